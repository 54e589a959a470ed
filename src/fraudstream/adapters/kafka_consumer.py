"""The consumer of the micro-batch transport: what is fetched, where from, and what is committed.

Written against faust-streaming 0.15.3 and aiokafka 0.14.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from aiokafka.errors import IllegalStateError, OffsetOutOfRangeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from faust.types.tuples import ack_lock
from mode.utils.futures import notify

from fraudstream.adapters.kafka_batches import Backlog, OffsetRun, PartitionProgress
from fraudstream.adapters.kafka_offsets import skip_expired
from fraudstream.adapters.kafka_thread import ConsumerThread

if TYPE_CHECKING:
    from fraudstream.adapters.kafka_transport import MicroBatchTransport

POLL_S = 0.2
"""The longest one look for records lasts. A resume, a seek or a stop takes effect at the next look."""

IDLE_POLL_S = 0.5
"""How often a worker with nothing to do looks around, and tells aiokafka that it lives (see `touch`)."""

STALE = -2
"""Generation of a batch that will be delivered again; Faust's stream skips it, as it equals no group's generation."""


class MicroBatchConsumer(driver.Consumer):
    """Faust's aiokafka consumer, changed in how records are fetched, in how offsets are kept, and where it may stall.

    Records taken from aiokafka are gone for aiokafka, so whoever drops them must seek. Faust drops them in several
    places (a paused partition, a stopped flow, a rebalance, a seek) and seeks in some. Here there is one rule: whatever
    makes fetched records worthless sets `_reposition_due`, and the fetching task repositions every partition before it
    fetches again. That task is the only one that fetches or seeks, so nothing is in flight meanwhile.
    """

    _thread: ConsumerThread

    def __init__(self, transport: "MicroBatchTransport", *args: Any, **kwargs: Any) -> None:
        super().__init__(transport, *args, **kwargs)
        self._settings = transport
        self._backlog = Backlog()
        self._runs: dict[TP, OffsetRun] = {}
        self._delivered: WeakKeyDictionary[Message, dict[TP, int]] = WeakKeyDictionary()  # and their last offsets
        self._fetched_to: dict[TP, int] = {}
        self._seeks: dict[TP, int] = {}
        self._assigned: set[TP] = set()
        self._assignments = 0  # counts assignments; a worker that gets the same partitions again has a new one
        self._prepared = 0  # the assignment whose start offsets are set
        self._generation = 0
        self._reposition_due = True
        self._wake = asyncio.Event()
        self.polled_at_s = time.monotonic()

    def _new_consumer_thread(self) -> ConsumerThread:
        settings = cast("MicroBatchTransport", self.transport)  # called by Faust's __init__
        thread = ConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.fetch_wait_max_ms, thread.isolation_level = settings.fetch_wait_max_ms, settings.isolation_level
        return thread

    # -- fetching

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's name
        """Yield at most one batch; Faust calls it again at once, for ever."""
        if not self.flow_active:
            await self._idle()
            return
        if self._reposition_due:
            await self._reposition()
            return
        active = frozenset(self._get_active_partitions())
        if not active:
            self.polled_at_s = time.monotonic()
            await self._idle()
            return
        if sum(not message.acked for message in self._delivered) >= self._settings.batches_open_max:
            # Not a poll: after broker_max_poll_interval without an ack another worker gets the partitions.
            await self._wait_for_wake()
            return
        await self._fetch(active, min(timeout, POLL_S))
        if records := self._next_batch(active):
            message = self._to_batch(records)
            yield message.tp, message

    async def _fetch(self, active: frozenset[TP], timeout_s: float) -> None:
        wanting = {tp for tp in active if self._backlog.size(tp) < self._settings.records_max}
        if not wanting:
            return
        nothing_ready = not any(self._backlog.size(tp) for tp in active)
        # A set of its own: Faust hands over its live one, and aiokafka reads an empty set as "every partition".
        try:
            fetched = await self._getmany(wanting, timeout_s if nothing_ready else 0)
        except OffsetOutOfRangeError as error:
            await self._reach(skip_expired(self._thread, error.args[0], self._settings.on_expired))
            return
        self.polled_at_s = time.monotonic()
        for key, records in fetched.items():
            tp, first = TP(*key), records[0].offset
            if tp not in self._runs:  # nothing was committed: the broker says where the partition begins
                self._runs[tp] = OffsetRun(first)
            elif first < self._fetched_to.get(tp, 0):  # the broker has lost the end of its log
                self._runs[tp] = OffsetRun(first, self._runs[tp].committed)
                self._read_offset.pop(tp, None)  # Faust drops what is below it
            self._fetched_to[tp] = records[-1].offset + 1
            self._backlog.add(tp, records)

    def _next_batch(self, active: frozenset[TP]) -> list[Any]:
        return [] if self._reposition_due else self._backlog.take(active, self._settings.records_max)

    def _to_batch(self, records: Sequence[Any]) -> Message:
        lasts = {TP(record.topic, record.partition): record.offset for record in records}
        tp, last = next(iter(lasts.items()))  # Faust's idea of the event: a message of its first partition
        message = ConsumerMessage(
            tp.topic, tp.partition, last, records[0].timestamp / 1000, records[0].timestamp_type, None, None,
            cast(bytes, records), None, 0, 0, tp, generation_id=self._generation,
        )  # fmt: skip
        for of, offset in lasts.items():
            self._runs[of].deliver(offset)
        self._delivered[message] = lasts
        with contextlib.suppress(AssertionError):  # aiokafka's answer when the partition has just left
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        return message

    async def _idle(self) -> None:
        await self._thread.call_thread(self._thread.touch)
        await self._wait_for_wake()

    async def _wait_for_wake(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), IDLE_POLL_S)
        self._wake.clear()

    # -- where to read from

    async def _reposition(self) -> None:
        await self._reach(self._reposition_partitions())

    async def _reach(self, positions: Coroutine[Any, Any, None]) -> None:
        # `wait_first` gives up when a rebalance or the worker's end stops the flow; both set `_reposition_due` again.
        try:
            await self.wait_first(positions, self.suspend_flow.wait())
        except IllegalStateError as exc:  # a partition left between the look and the seek: a rebalance is under way
            self.log.info("Positions not set, to be tried again: %r", exc)
            await self._wait_for_wake()

    async def _reposition_partitions(self) -> None:
        assignment, assigned = self._assignments, self._assigned
        runs = self._runs if assignment == self._prepared else await self._start_runs(assigned)
        if assignment != self._assignments:
            return  # a rebalance came in between
        for tp in self._seeks.keys() & assigned:
            runs[tp] = OffsetRun(self._seeks[tp], runs[tp].committed if tp in runs else None)
        self._forget_deliveries()
        self._runs = runs
        self._seeks.clear()
        self._reposition_due = False  # before the seek: what becomes due meanwhile is done in the next round
        # Without a commit aiokafka starts at the beginning by itself, but a fetch of the generation before, which ended
        # late, may have taken records already.
        from_beginning = assignment != self._prepared and self.app.conf.consumer_auto_offset_reset == "earliest"
        to_beginning = assigned - runs.keys() if from_beginning else set[TP]()
        positions = {tp: run.resume_at for tp, run in runs.items()}
        try:
            await self._thread.call_thread(self._thread.seek_all, positions, to_beginning)
        except BaseException:
            self._reposition_due = True
            raise
        self._prepared = assignment

    async def _start_runs(self, assigned: set[TP]) -> dict[TP, OffsetRun]:
        committed: dict[TP, int | None] = await self._thread.call_thread(self._thread.committed, assigned)
        wanted = await self._settings.on_assigned(committed) if self._settings.on_assigned else None
        starts = {tp: offset for tp, offset in {**committed, **(wanted or {})}.items() if offset is not None}
        return {tp: OffsetRun(offset, committed[tp]) for tp, offset in starts.items() if tp in assigned}

    def _forget_deliveries(self) -> None:
        for message in self._delivered:
            message.generation_id = STALE
        self._delivered.clear()
        for run in self._runs.values():
            run.drop_open()
        self._backlog.clear()
        self._fetched_to.clear()
        self._read_offset.clear()  # Faust drops what is below it
        self._wake.set()

    def _reposition_soon(self) -> None:
        self._reposition_due = True
        self._wake.set()

    async def seek(self, partition: TP, offset: int) -> None:
        """Deliver from `offset` next. Batches handed out before become stale; the commit does not move back."""
        self._seeks[TP(*partition)] = offset
        self._overtake_nothing()
        self._reposition_soon()

    def _overtake_nothing(self) -> None:
        # At once: the agent may come to a later batch of the partition before the positions are set. All of them, as a later
        # batch may hold records of any partition of an earlier one; all are delivered again anyway.
        for message in self._delivered:
            message.generation_id = STALE

    async def perform_seek(self) -> None:
        """Nothing: `_reposition` does it. Past broker_request_timeout in here Faust would never fetch again."""

    def stop_flow(self) -> None:
        super().stop_flow()
        self._reposition_soon()  # what is queued or being fetched may get lost from here on

    def resume_flow(self) -> None:
        super().resume_flow()
        self._wake.set()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        super().resume_partitions(tps)
        self._wake.set()

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: `batches_open_max` bounds the queue. Faust's list of full partitions outlives a rebalance."""

    on_buffer_drop = on_buffer_full

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        try:
            await super().on_partitions_revoked(revoked)  # waits for the batch in work, and commits
        finally:
            self._assigned = set()
            self._seeks.clear()
            self._forget_deliveries()
            self._runs = {}
            self._reposition_soon()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._assigned = set(assigned)
        self._generation = generation_id
        self._assignments += 1
        self._reposition_soon()
        await super().on_partitions_assigned(assigned, generation_id)

    # -- acks and commits

    def ack(self, message: Message) -> bool:
        """Finish a batch; a stale one is let go without effect on the offsets."""
        with ack_lock:  # as in Faust: an ack may come from another thread
            if message.acked:
                return False
            message.acked = True
            self._unacked_messages.discard(message)
            # Untracked: the stream skipped it without showing it to the agent, which Faust takes for an ack.
            lasts = self._delivered.get(message, {}) if self.is_current(message) and message.tracked else {}
            finished = [tp for tp, last in lasts.items() if tp in self._runs and self._runs[tp].finish(last)]
            if finished:
                self._n_acked += len(cast(Sequence[Any], message.value))
            notify(self._waiting_for_ack)
            self._wake.set()
            return bool(finished)

    def release(self, message: Message, *, aside: bool = False) -> None:
        """Give a batch back undone: it is delivered again, together with all that followed it.

        With `aside` not before the next seek, and what follows is delivered meanwhile. The commit waits there.
        """
        if message.acked:  # let go before
            return
        lasts = self._delivered.get(message, {}) if self.is_current(message) else {}
        message.acked = True  # lets a rebalance or the worker's end, which wait for the batch in work, go on
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
        if lasts and aside:
            for tp, last in lasts.items():
                self._runs[tp].set_aside(last)
            self._wake.set()
        elif lasts:
            self._overtake_nothing()
            self._reposition_soon()

    def is_current(self, message: Message) -> bool:
        return message.generation_id == self._generation

    async def on_task_error(self, exc: BaseException) -> None:
        """End the worker: Faust would start the agent anew, its batch never committed, never repeated, waited for."""
        await self.app.crash(exc)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: Faust takes each batch for a gap of its length, and fills an interval tree with them."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._runs) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        run = self._runs.get(tp)
        return run.committable if run else None

    def _should_commit(self, tp: TP, offset: int) -> bool:  # noqa: ARG002 - Faust's signature
        return True  # Faust compares with the last offset it tried, so that a failed commit is never repeated

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        committed = await super()._commit_offsets(offsets, start_new_transaction)
        if committed:
            for tp, offset in offsets.items():
                if tp in self._runs:
                    self._runs[tp].mark_committed(offset)
        return committed

    async def commit_and_end_transactions(self) -> None:
        # Faust's commit does nothing while another is under way, which may have begun before the last ack.
        await self.maybe_wait_for_commit_to_finish()
        await super().commit_and_end_transactions()

    async def verify_all_partitions_active(self) -> None:
        """Nothing: it compares a monotonic clock with wall time, so never fires, and raises in a rebalance."""

    def progress(self) -> dict[TP, PartitionProgress]:
        fetches = self._thread.fetches()
        return {
            tp: PartitionProgress.of(self._runs.get(tp), self._backlog.size(tp), *fetches.get(tp, (None, None)))
            for tp in self._assigned
        }

"""The thread in which aiokafka runs, under Faust: fetches, heartbeats and commits go on while an agent computes."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiokafka
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, NoOffsetForPartitionError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

COMMIT_TIMEOUT_S = 5.0
"""aiokafka retries a commit for ever while the coordinator is away. A commit that is given up is tried again with the
next one, whereas one that waits for ever holds a rebalance and the worker's end."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with the calls that the consumer below needs; they run in that thread."""

    fetch_wait_max_ms: int
    isolation_level: str

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        # Faust fixes both values in the call of aiokafka's constructor; they are read when the consumer starts.
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.fetch_wait_max_ms
        consumer._isolation_level = self.isolation_level
        if consumer._auto_offset_reset == "earliest":
            # Positions are set before the first fetch. An offset that the broker does not hold is told (`skip_expired`).
            consumer._auto_offset_reset = "none"
        return consumer

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> Any:
        # A new assignment has no positions for a moment, in which aiokafka itself looks for committed offsets; what it says
        # where there are none is raised by a later fetch, when the partitions were long told to begin at the beginning.
        try:
            return await super()._fetch_records(*args, **kwargs)
        except NoOffsetForPartitionError as error:
            self.log.info("No offset was committed: %r", error)
            return {}

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        # After a crash the thread ends by itself, and what it is asked then has no answer: the worker's end would wait
        # for this commit for ever. The records are delivered again.
        asked = asyncio.ensure_future(super().commit(offsets))
        ended = asyncio.ensure_future(self._shutdown.wait())
        try:
            await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
            return asked.done() and asked.result()
        finally:
            ended.cancel()
            asked.cancel()

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Faust ends the worker on every error here but one, a timeout or a partition that has just left included.
        assigned = self.assignment()
        wanted = {
            driver.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        if not wanted:
            return False
        try:
            await asyncio.wait_for(self._ensure_consumer().commit(wanted), COMMIT_TIMEOUT_S)
        except (CommitFailedError, IllegalStateError, TimeoutError) as exc:
            self.log.warning("Offsets not committed, to be tried again: %r", exc)
            return False
        except KafkaError as exc:
            self.log.exception("Offsets cannot be committed")
            await self.crash(exc)
            return False
        return True

    async def committed(self, partitions: Iterable[TP]) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        tps = list(partitions)
        offsets = await asyncio.gather(*(consumer.committed(driver.ensure_aiokafka_TP(tp)) for tp in tps))
        return dict(zip(tps, offsets, strict=True))

    async def bounds(self, tp: TP) -> tuple[int, int]:
        """The first offset that the broker holds of a partition, and the end of its log."""
        consumer, key = self._ensure_consumer(), driver.ensure_aiokafka_TP(tp)
        beginnings, ends = await consumer.beginning_offsets([key]), await consumer.end_offsets([key])
        return beginnings[key], ends[key]

    async def seek_all(self, offsets: Mapping[TP, int], to_beginning: Iterable[TP]) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in offsets.items():
            consumer.seek(driver.ensure_aiokafka_TP(tp), offset)
        if beginning := [driver.ensure_aiokafka_TP(tp) for tp in to_beginning]:
            await consumer.seek_to_beginning(*beginning)

    def fetches(self) -> dict[TP, tuple[int | None, float | None]]:
        """Records left in the broker, and seconds since it answered last, for each partition; None: not known yet.

        Read from any thread: what aiokafka keeps about its last fetch.
        """
        subscription = self._consumer._subscription.subscription if self._consumer else None
        assignment = subscription.assignment if subscription else None
        if not assignment:
            return {}
        result = {}
        for tp in assignment.tps:
            state = assignment.state_value(tp)
            known = state.highwater is not None and state.has_valid_position
            lag = max(0, state.highwater - state.position) if known else None
            result[TP(*tp)] = lag, time.time() - state.timestamp / 1000 if state.timestamp else None
        return result

    async def on_thread_stop(self) -> None:
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            # aiokafka awaits the fetch that it has just cancelled. One that waits for a broker which is away ends so,
            # and Faust would wait a minute for a thread that is half stopped. The group is left already.
            await self._ensure_consumer()._client.close()

    async def touch(self) -> None:
        """Reset aiokafka's clock of `broker_max_poll_interval`.

        aiokafka leaves the group when nothing was polled for that long, and joins again only on a poll. Faust polls
        neither without partitions nor while its flow is stopped, which a rebalance does: a spare worker would leave
        for ever, and so would one whose batch had taken too long.
        """
        with self._ensure_consumer()._subscription.fetch_context():
            pass

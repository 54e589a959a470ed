"""The bookkeeping of micro-batches: which offset may be committed, and whose records are next. No client in here."""

import time
from collections.abc import Collection, Mapping
from typing import Any

from faust.types import TP
from msgspec import Struct


class OffsetRun:
    """Which offset of one partition may be committed while batches finish in any order.

    It is one past the last record of the last batch of an unbroken run of finished batches: never past a record whose
    batch is open, never behind a batch that finished with all before it. Offsets that are missing between or inside
    batches (compaction, transaction markers, aborted records) belong to nobody and hold nothing up.

    >>> run = OffsetRun(origin=100)
    >>> run.deliver(last_offset=109); run.deliver(last_offset=119)
    >>> run.finish(119), run.committable
    (True, None)
    >>> run.finish(109), run.committable
    (True, 120)
    """

    __slots__ = ("_batches", "_origin", "_run_end", "batches_open", "committed", "delivered", "moved_at_s")

    def __init__(self, origin: int, committed: int | None = None) -> None:
        self._origin = origin
        self._run_end: int | None = None
        self._batches: dict[int, bool] = {}  # last offset -> finished; in order of delivery, so in order of offset
        self.committed = committed
        self.batches_open = 0
        self.delivered: int | None = None  # one past the last record that was handed out
        self.moved_at_s = time.monotonic()  # when a batch ended, or the first of the open ones was handed out

    @property
    def resume_at(self) -> int:
        """Where delivery would start again: every record below is done."""
        return self._origin if self._run_end is None else self._run_end

    @property
    def committable(self) -> int | None:
        """The offset to commit; None where no batch is finished, or the group's commit is there: it never moves back."""
        end = self._run_end
        return end if end is not None and (self.committed is None or end > self.committed) else None

    def deliver(self, last_offset: int) -> None:
        """Open the batch that ends at `last_offset`; it begins past the end of every batch before it."""
        if self.batches_open == 0:
            self.moved_at_s = time.monotonic()
        self._batches[last_offset] = False
        self.batches_open += 1
        self.delivered = last_offset + 1

    def finish(self, last_offset: int) -> bool:
        """Finish the open batch that ends at `last_offset`; False, and no effect, where there is none."""
        if self._batches.get(last_offset, True):
            return False
        self._batches[last_offset] = True
        self.batches_open -= 1
        self.moved_at_s = time.monotonic()
        while self._batches and self._batches[head := next(iter(self._batches))]:
            del self._batches[head]
            self._run_end = head + 1
        return True

    def set_aside(self, last_offset: int) -> None:
        """Hold the commit at the open batch that ends at `last_offset`, and count it no longer as work that is due."""
        if not self._batches.get(last_offset, True):
            self.batches_open -= 1
            self.moved_at_s = time.monotonic()

    def drop_open(self) -> None:
        """Forget the open batches, which will be delivered again from `resume_at`."""
        self._batches.clear()
        self.batches_open = 0

    def mark_committed(self, offset: int) -> None:
        self.committed = offset if self.committed is None else max(offset, self.committed)


class Backlog:
    """Fetched records that wait for delivery, handed out so that the partitions' times advance together.

    The partition whose next record is oldest goes first: state that cards of several partitions share (a terminal's
    counters) then sees their events nearly in the order of time. A partition that was passed over `PASSES_MAX` times
    for each that waits goes next all the same, so that no clock of a producer can starve another's records.
    """

    PASSES_MAX = 4

    def __init__(self) -> None:
        self._records: dict[TP, list[Any]] = {}
        self._passes: dict[TP, int] = {}

    def add(self, tp: TP, records: list[Any]) -> None:
        """Append records of a partition, later than all before."""
        waiting = self._records.get(tp)
        self._records[tp] = waiting + records if waiting else records

    def size(self, tp: TP) -> int:
        return len(self._records.get(tp, ()))

    def take(self, active: Collection[TP], records_max: int) -> list[Any]:
        """The next batch among the `active` partitions, one after the other; the records of others wait on."""
        taken: list[Any] = []
        ready = [tp for tp in self._records if tp in active]
        while ready and (room := records_max - len(taken)):
            chosen = self._next(ready)
            ready.remove(chosen)
            records = self._records.pop(chosen)
            if len(records) > room:
                self._records[chosen] = records[room:]
            taken += records[:room]
        return taken

    def _next(self, ready: Collection[TP]) -> TP:
        for tp in ready:
            self._passes[tp] = self._passes.get(tp, 0) + 1
        chosen = max(ready, key=lambda tp: self._passes[tp])
        if self._passes[chosen] <= self.PASSES_MAX * len(ready):
            chosen = min(ready, key=lambda tp: self._records[tp][0].timestamp)
        self._passes[chosen] = 0
        return chosen

    def clear(self) -> None:
        self._records.clear()
        self._passes.clear()


class PartitionProgress(Struct, frozen=True):
    """How far one assigned partition is. Offsets are those of the next record; ages are seconds."""

    delivered: int | None  # handed to the agent up to here
    acked: int | None  # finished up to here without a hole
    committed: int | None
    batches_open: int
    records_waiting: int  # fetched and not yet handed out
    moved_age_s: float | None  # since a batch ended, or since the first of the open ones was handed out
    fetch_age_s: float | None  # since the broker last answered a fetch of this partition; None: not yet
    lag: int | None  # records in the broker that were not fetched yet, as of that answer

    @staticmethod
    def of(
        run: OffsetRun | None, records_waiting: int, lag: int | None, fetch_age_s: float | None
    ) -> "PartitionProgress":
        """The progress of a partition whose offsets are kept by `run` (None: it has not begun)."""
        if run is None:
            return PartitionProgress(None, None, None, 0, records_waiting, None, fetch_age_s, lag)
        moved_age_s = time.monotonic() - run.moved_at_s
        return PartitionProgress(
            run.delivered,
            run.resume_at,
            run.committed,
            run.batches_open,
            records_waiting,
            moved_age_s,
            fetch_age_s,
            lag,
        )


def stalled(progress: Mapping[TP, PartitionProgress], polled_age_s: float, limit_s: float) -> list[str]:
    """What has stood still for longer than `limit_s`, in words; empty where all is well.

    `polled_age_s` is the time since records were last asked for. Nobody asks while as many batches are open as may be;
    it is the oldest of them that counts then.
    """
    found = []
    if polled_age_s > limit_s and not any(at.batches_open for at in progress.values()):
        found.append(f"records were last asked for {polled_age_s:.0f} s ago")
    for tp, at in sorted(progress.items()):
        if at.batches_open:
            if at.moved_age_s is not None and at.moved_age_s > limit_s:
                found.append(f"{tp.topic}[{tp.partition}]: the batch in work has not ended for {at.moved_age_s:.0f} s")
        elif at.fetch_age_s is not None and at.fetch_age_s > limit_s and not at.records_waiting:
            found.append(f"{tp.topic}[{tp.partition}]: the broker last answered {at.fetch_age_s:.0f} s ago")
    return found

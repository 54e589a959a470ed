"""Batches to a sink, at their pace, until the end or until somebody says stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import numpy as np
from msgspec import Struct

from fraudstream_producers.batches import Batch
from fraudstream_producers.contract import rfc3339
from fraudstream_producers.interleave import Kind
from fraudstream_producers.progress import Progress
from fraudstream_producers.sink import DELIVERY_TIMEOUT_S

# A wait is cut into pieces, so that delivery reports come in and the progress moves; and it is no shorter than what
# a machine can keep, so that a high rate goes out in small groups instead of a busy loop.
_WAIT_S_MAX = 0.2
_WAIT_S_MIN = 0.001
# After a stop nobody waits a minute for a broker that is gone.
_STOP_FLUSH_S = 10.0


class Sink(Protocol):
    """Where records go; see `sink.KafkaSink`."""

    first_error: str | None
    fatal: str | None

    @property
    def failed(self) -> int: ...
    def send(self, batch: Batch, first: int, last: int, stopped: Callable[[], bool]) -> int: ...
    def poll(self) -> None: ...
    def flush(self, timeout_s: float) -> None: ...
    def delivered(self, kind: Kind) -> int: ...


class Clock(Protocol):
    """Seconds since the start, and a wait that a stop may cut short."""

    def elapsed_s(self) -> float: ...
    def wait(self, seconds: float) -> None: ...


class WallClock:
    """Real time. Setting `stop` ends every wait."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._started_s = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def wait(self, seconds: float) -> None:
        self._stop.wait(seconds)


class Summary(Struct, frozen=True, kw_only=True):
    """What was delivered. `produced` are the good transactions; on their topic are also `malformed` and `duplicates`."""

    produced: int
    labels: int
    malformed: int
    duplicates: int
    failed: int
    seconds: float
    records_per_second: float
    first_event_time: str | None  # of the transactions
    last_event_time: str | None
    interrupted: bool
    first_error: str | None

    def line(self) -> str:
        """The summary as one line for people."""
        parts = [f"{self.produced:,} transactions"]
        for name, count in (("labels", self.labels), ("malformed", self.malformed), ("duplicates", self.duplicates)):
            parts += [f"{count:,} {name}"] if count else []
        parts += [f"{self.failed:,} FAILED (the first one: {self.first_error})"] if self.failed else []
        span = f"; event time {self.first_event_time} to {self.last_event_time}" if self.first_event_time else ""
        stopped = "stopped early: " if self.interrupted else ""
        return f"{stopped}{', '.join(parts)} in {self.seconds:.1f} s, {self.records_per_second:,.0f} records/s{span}"


class Delivery:
    """One run: every batch goes to the sink, each record no earlier than it is due.

    `seconds` ends the run when that time has passed; what would be due only then is not sent. Setting `stop` ends it
    at once, and so does an error after which the sink can deliver nothing more. In any case what was handed over is flushed, and the summary counts exactly what the broker has.
    """

    def __init__(
        self,
        sink: Sink,
        progress: Progress,
        stop: threading.Event,
        *,
        seconds: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._sink = sink
        self._progress = progress
        self._stop = stop
        self._seconds = float("inf") if seconds is None else seconds
        self._clock = clock or WallClock(stop)
        self._transactions = 0
        self._records = 0
        self._first_ms: int | None = None
        self._last_ms: int | None = None

    def run(self, batches: Iterable[Batch]) -> Summary:
        """Send, flush, count."""
        for batch in batches:
            sent = self._send_when_due(batch)
            if sent < len(batch):
                break
        interrupted = self._stop.is_set()
        self._sink.flush(_STOP_FLUSH_S if interrupted else DELIVERY_TIMEOUT_S + 5)
        seconds = self._clock.elapsed_s()
        delivered = {kind: self._sink.delivered(kind) for kind in Kind}
        return Summary(
            produced=delivered[Kind.TRANSACTION],
            labels=delivered[Kind.LABEL],
            malformed=delivered[Kind.MALFORMED],
            duplicates=delivered[Kind.DUPLICATE],
            failed=self._sink.failed,
            seconds=round(seconds, 3),
            records_per_second=round(sum(delivered.values()) / max(seconds, 1e-3), 1),
            first_event_time=_text(self._first_ms),
            last_event_time=_text(self._last_ms),
            interrupted=interrupted,
            first_error=self._sink.first_error,
        )

    def _send_when_due(self, batch: Batch) -> int:
        """Send the batch; the number of its records that were handed over, all of them unless the run has ended."""
        done = 0
        while done < len(batch) and not self._stop.is_set() and not self._sink.fatal:
            now_s = self._clock.elapsed_s()
            if now_s >= self._seconds:
                break
            last = len(batch)
            if batch.due_s is not None:
                if batch.due_s[done] >= self._seconds:
                    break
                last = int(np.searchsorted(batch.due_s, min(now_s, np.nextafter(self._seconds, 0)), "right"))
            if last > done:
                sent = self._sink.send(batch, done, last, self._stop.is_set)
                self._count(batch, done, sent)
                done = sent
            elif batch.due_s is not None:
                self._sink.poll()
                self._clock.wait(min(max(float(batch.due_s[done]) - now_s, _WAIT_S_MIN), _WAIT_S_MAX))
            self._progress.update(self._transactions, self._records, self._sink.failed, self._last_ms)
        return done

    def _count(self, batch: Batch, first: int, last: int) -> None:
        kinds = np.array(batch.kind[first:last])
        event_ms = batch.time_ms[first:last][kinds == Kind.TRANSACTION]
        self._records += last - first
        self._transactions += len(event_ms)
        if len(event_ms):
            self._first_ms = int(event_ms[0]) if self._first_ms is None else self._first_ms
            self._last_ms = int(event_ms[-1])


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one of them ends the process in the usual way."""
    stop = threading.Event()
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    for number in usual:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()


def _text(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else rfc3339(np.array([epoch_ms], np.int64))[0]

"""Pace, end and count of a run, with a clock moved by hand and a sink that remembers."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from rich.console import Console

from fraudstream_producers.batches import Batch, Pace
from fraudstream_producers.deliver import Delivery, Summary, stopped_by_signals
from fraudstream_producers.interleave import Kind, Plan
from fraudstream_producers.progress import Bar, Lines, NoProgress


class HandClock:
    """Time passes only while somebody waits."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def elapsed_s(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


class RememberingSink:
    """Takes everything and notes when; records with a value in `refused` fail."""

    def __init__(self, clock: HandClock, refused: frozenset[bytes] = frozenset()) -> None:
        self.clock = clock
        self.refused = refused
        self.sent: list[tuple[float, bytes]] = []
        self.flushed_for_s: list[float] = []
        self.first_error: str | None = None
        self.fatal: str | None = None
        self._delivered: Counter[int] = Counter()
        self.failed = 0

    def send(self, batch: Batch, first: int, last: int, stopped: Callable[[], bool]) -> int:
        for kind, value in zip(batch.kind[first:last], batch.value[first:last], strict=True):
            assert value is not None
            if value in self.refused:
                self.failed += 1
                self.first_error = self.first_error or "refused"
            else:
                self._delivered[kind] += 1
                self.sent.append((self.clock.now_s, value))
        return last

    def poll(self) -> None:
        pass

    def flush(self, timeout_s: float) -> None:
        self.flushed_for_s.append(timeout_s)

    def delivered(self, kind: Kind) -> int:
        return self._delivered[kind]


def batch(due_s: list[float] | None, first: int = 0, kinds: list[Kind] | None = None, count: int = 0) -> Batch:
    count = len(due_s) if due_s is not None else count
    kind = kinds or [Kind.TRANSACTION] * count
    return Batch(
        kind=[int(k) for k in kind],
        key=[b"k"] * count,
        value=[str(first + n).encode() for n in range(count)],
        timestamp_ms=[0] * count,
        time_ms=np.arange(first, first + count) * 1_000,
        due_s=None if due_s is None else np.array(due_s),
    )


def plan(time_s: list[int], kinds: list[Kind] | None = None, *, paced: bool = True) -> Plan:
    kind = np.array(kinds or [Kind.TRANSACTION] * len(time_s), np.uint8)
    times = np.array(time_s, np.int64) * 1_000
    return Plan(None, None, kind, np.arange(len(times)), times, paced)


def run(batches: list[Batch], seconds: float | None = None, stop: threading.Event | None = None) -> RememberingSink:
    clock = HandClock()
    sink = RememberingSink(clock)
    Delivery(sink, NoProgress(), stop or threading.Event(), seconds=seconds, clock=clock).run(batches)
    return sink


def test_a_rate_spaces_transactions_and_lets_other_records_ride_along() -> None:
    """At 10 a second transaction n is due at n / 10 s over all plans; a label is due with the transaction before it."""
    pace = Pace(rate=10.0)
    first = pace.due_s(plan([0, 5, 5, 9], [Kind.TRANSACTION, Kind.LABEL, Kind.TRANSACTION, Kind.DUPLICATE]))
    second = pace.due_s(plan([11, 12]))
    assert first is not None
    assert second is not None
    assert first.tolist() == pytest.approx([0.0, 0.0, 0.1, 0.1])
    assert second.tolist() == pytest.approx([0.2, 0.3])


def test_a_speed_keeps_the_gaps_of_event_time() -> None:
    """At 60 times real time a minute of event time is a second; nothing is due before what precedes it."""
    pace = Pace(speed=60.0)
    due_s = [pace.due_s(plan([600, 660, 630])), pace.due_s(plan([720]))]
    assert [d.tolist() for d in due_s if d is not None] == [[0.0, 1.0, 1.0], [2.0]]


def test_no_pace_is_at_once() -> None:
    """Without rate and speed, and for an unpaced plan, nothing waits."""
    assert Pace().due_s(plan([1, 2])) is None
    assert Pace(rate=1.0).due_s(plan([1, 2], paced=False)) is None


def test_records_are_sent_when_they_are_due_and_not_before() -> None:
    """Each record goes out at or within a millisecond after its due time, in order."""
    due_s = [0.0, 0.5, 0.5, 3.0, 3.7]
    sink = run([batch(due_s[:3]), batch(due_s[3:], first=3)])
    assert [value for _, value in sink.sent] == [b"0", b"1", b"2", b"3", b"4"]
    for (sent_s, _), wanted_s in zip(sink.sent, due_s, strict=True):
        assert wanted_s <= sent_s <= wanted_s + 0.0011


def test_a_time_limit_is_exact() -> None:
    """Of a record every 100 ms, one second of run sends the ten that are due before it ends."""
    assert len(run([batch([n / 10 for n in range(100)])], seconds=1.0).sent) == 10


def test_what_was_sent_late_still_respects_the_time_limit() -> None:
    """A run that is behind does not send, after its time, what was due before."""
    clock = HandClock()
    clock.now_s = 5.0
    sink = RememberingSink(clock)
    Delivery(sink, NoProgress(), threading.Event(), seconds=1.0, clock=clock).run([batch([0.0, 0.1])])
    assert sink.sent == []


def test_a_stop_ends_the_run_and_flushes_for_seconds_only() -> None:
    """After a stop nothing more is sent, what was sent is flushed with a short deadline, and the summary says so."""
    stop = threading.Event()

    def endless() -> Iterator[Batch]:
        number = 0
        while True:
            if number == 30:
                stop.set()
            yield batch(None, first=number, count=10)
            number += 10

    clock = HandClock()
    sink = RememberingSink(clock)
    summary = Delivery(sink, NoProgress(), stop, clock=clock).run(endless())
    assert summary.interrupted
    assert summary.produced == len(sink.sent) == 30
    assert sink.flushed_for_s == [10.0]
    assert summary.line().startswith("stopped early: 30 transactions")


def test_the_summary_counts_by_kind_and_names_the_first_error() -> None:
    """Delivered records are counted by what they are, refused ones as failed, event times are the transactions'."""
    kinds = [
        Kind.LABEL,
        Kind.TRANSACTION,
        Kind.TRANSACTION,
        Kind.MALFORMED,
        Kind.DUPLICATE,
        Kind.TRANSACTION,
        Kind.LABEL,
    ]
    clock = HandClock()
    sink = RememberingSink(clock, refused=frozenset({b"2"}))
    summary = Delivery(sink, NoProgress(), threading.Event(), clock=clock).run([batch(None, kinds=kinds, count=7)])
    assert (summary.produced, summary.labels, summary.malformed, summary.duplicates) == (2, 2, 1, 1)
    assert (summary.failed, summary.first_error, summary.interrupted) == (1, "refused", False)
    assert summary.first_event_time == "1970-01-01T00:00:01.000Z"
    assert summary.last_event_time == "1970-01-01T00:00:05.000Z"
    assert "1 FAILED (the first one: refused)" in summary.line()


def test_a_fatal_error_ends_the_run() -> None:
    """A sink that can deliver nothing more is not given the rest of an endless stream."""

    class DyingSink(RememberingSink):
        def send(self, batch: Batch, first: int, last: int, stopped: Callable[[], bool]) -> int:
            self.fatal = "fenced"
            self.failed += 1
            self.first_error = "fenced"
            return first + 1

    clock = HandClock()
    endless = iter(lambda: batch(None, count=10), None)
    summary = Delivery(DyingSink(clock), NoProgress(), threading.Event(), clock=clock).run(endless)
    assert (summary.produced, summary.failed, summary.first_error) == (0, 1, "fenced")


def test_nothing_to_send_is_a_summary_of_zeros() -> None:
    """A run without a batch ends at once, without event times."""
    clock = HandClock()
    summary = Delivery(RememberingSink(clock), NoProgress(), threading.Event(), clock=clock).run([])
    assert isinstance(summary, Summary)
    assert (summary.produced, summary.first_event_time) == (0, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_for_the_end_and_a_second_one_is_the_usual(number: signal.Signals) -> None:
    """The first signal sets the event; from then on, and after the block, the handlers are the ones from before."""
    before = signal.getsignal(number)
    with stopped_by_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(5)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar draws itself and leaves nothing behind; lines come every few seconds, so a short run has none."""
    console = Console(force_terminal=True, width=120)
    with Bar(console, "replay", 100) as bar:
        bar.update(50, 60, 1, 1_700_000_000_000)
    drawn = capsys.readouterr().out
    assert "50/100" in drawn
    assert "2023-11-14 22:13" in drawn
    with Lines(Console(width=120), "replay", 100) as lines:
        lines.update(50, 60, 0, None)
        assert capsys.readouterr().out == ""
        lines._next_s = 0.0
        lines.update(50, 60, 2, 1_700_000_000_000)
    line = capsys.readouterr().out
    assert line.startswith("replay: 50 of 100 transactions, 0:00:0")
    assert line.rstrip().endswith("at 2023-11-14 22:13, 2 failed")

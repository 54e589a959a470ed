"""How far a run is: a bar where somebody watches, a line now and then where a log does."""

import datetime as dt
import time
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

# A bar that moves ten times a second looks alive; a log wants no more than a line in five seconds.
_BAR_INTERVAL_S = 0.1
_LINE_INTERVAL_S = 5.0


class Progress(Protocol):
    """Told how far the run is, as often as one likes."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_problem: object) -> None: ...
    def update(self, transactions: int, records: int, failed: int, event_ms: int | None) -> None: ...


class NoProgress:
    """Says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        pass

    def update(self, transactions: int, records: int, failed: int, event_ms: int | None) -> None:
        pass


class Bar:
    """A bar on a terminal: transactions, records a second, time left, event time reached."""

    def __init__(self, console: Console, title: str, total: int | None) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>9,.0f}/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            refresh_per_second=1 / _BAR_INTERVAL_S,
        )
        self._task = self._bar.add_task(title, total=total, rate=0.0, note="")
        self._rate = _Rate(10)
        self._next_s = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._bar.stop()

    def update(self, transactions: int, records: int, failed: int, event_ms: int | None) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _BAR_INTERVAL_S
        note = f"{_event_time(event_ms)}{f' [red]{failed:,} failed[/red]' if failed else ''}"
        self._bar.update(self._task, completed=transactions, rate=self._rate.of(records, now_s), note=note)


class Lines:
    """A plain line every few seconds, for logs."""

    def __init__(self, console: Console, title: str, total: int | None) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._rate = _Rate(1)
        self._next_s = time.monotonic() + _LINE_INTERVAL_S
        self._started_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        pass

    def update(self, transactions: int, records: int, failed: int, event_ms: int | None) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _LINE_INTERVAL_S
        line = f"{self._title}: {transactions:,}"
        if self._total:
            left_s = (now_s - self._started_s) * (self._total / max(transactions, 1) - 1)
            line += f" of {self._total:,} transactions, {dt.timedelta(seconds=round(left_s))} left"
        else:
            line += " transactions"
        line += f", {self._rate.of(records, now_s):,.0f} records/s, at {_event_time(event_ms)}"
        line += f", {failed:,} failed" if failed else ""
        self._console.print(line, highlight=False, soft_wrap=True)


class _Rate:
    """Records a second over the last `intervals` updates: enough of them that the figure can be read."""

    def __init__(self, intervals: int) -> None:
        self._intervals = intervals
        self._points: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def of(self, records: int, now_s: float) -> float:
        self._points = [*self._points[-self._intervals :], (now_s, records)]
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def progress_on_stderr(title: str, total: int | None, *, quiet: bool = False) -> Progress:
    """The progress that fits standard error: a bar on a terminal, lines elsewhere, nothing when `quiet`."""
    if quiet:
        return NoProgress()
    console = Console(stderr=True)
    if console.is_terminal:
        return Bar(console, title, total)
    return Lines(console, title, total)


def _event_time(event_ms: int | None) -> str:
    if event_ms is None:
        return ""
    return dt.datetime.fromtimestamp(event_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")

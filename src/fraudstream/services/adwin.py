"""ADWIN over means: does a stream of figures have another mean than before? (Bifet and Gavalda, SDM 2007.)

One figure for a run of transactions or for some hundred examples, not for each: a look costs nothing, and figures that
are means of many are nearly independent. What ADWIN has seen is kept in memory: another worker that takes the watch over
begins with the runs that Redis still has.
"""

from collections.abc import Sequence
from typing import Any, Final

from fraudstream.core.alarms import Check
from fraudstream.core.census import CENSUS, RUN_OFFSETS, SCORE_UNIT, Counts, Monitor
from fraudstream.core.drift import alpha_of
from fraudstream.core.ports import StateStore
from fraudstream.core.quality import UNIT, Tallies
from fraudstream.core.watch import LABEL_CHECKS

# Runs of each partition that a new watch begins with.
RUNS_MAX: Final = 256
# Examples of one figure of the log-loss.
EXAMPLES: Final = 500
# Figures that say what is usual, before any is judged.
FIRST: Final = 8


class Means:
    """One stream of means that are not negative. `subject` is what they are means of.

    ADWIN's bound is for figures that use the whole of [0, 1]: the mean score of frauds that are one in a hundred could
    treble unnoticed. So a mean x is taken as x / (x + u), where u is what is usual, the mean of the first figures: the usual
    becomes a half, twice as much two thirds.
    """

    def __init__(self, subject: str, alarms_per_month: float) -> None:
        self._subject = subject
        from river.drift import ADWIN  # noqa: PLC0415 - a worker that only scores starts without river

        # The probability of a cut at each figure: a thirtieth of a month's share, as figures are about one a day or more.
        # Looked at with each of them: they are few.
        self._adwin: Any = ADWIN(delta=alpha_of(alarms_per_month, LABEL_CHECKS, 30.0), clock=1)  # type: ignore[no-untyped-call] # river has no types
        self._first: list[float] = []
        self._usual = 0.0
        self._moved = False
        self._before = 0.0

    def update(self, mean: float) -> None:
        """Take the next figure."""
        if self._usual:
            self._take(mean)
            return
        self._first = [*self._first[1 - FIRST :], mean]
        self._usual = sum(self._first) / len(self._first) if len(self._first) >= FIRST else 0.0
        if self._usual:
            for figure in self._first:
                self._take(figure)
            self._first.clear()

    def check(self) -> Check:
        """Did the mean move since the last look?"""
        moved, self._moved = self._moved, False
        now = self._mean()
        message = f"the mean {self._subject} is {now:.5f}"
        if moved:
            message = f"the mean {self._subject} moved from {self._before:.5f} to {now:.5f}"
        return Check(
            self._subject, "adwin", float(moved), 0.5, message, {"mean": now, "figures": float(self._adwin.width)}
        )

    def _take(self, mean: float) -> None:
        before = self._mean()
        self._adwin.update(mean / (mean + self._usual))
        if self._adwin.drift_detected:
            self._moved, self._before = True, before

    def _mean(self) -> float:
        share: float = self._adwin.estimation
        return self._usual * share / (1.0 - share)


class ScoreMeans:
    """Feeds the mean score of each run that is complete, partition by partition in the order of time."""

    def __init__(self, monitor: Monitor, alarms_per_month: float) -> None:
        self._monitor = monitor
        self._means = Means("score", alarms_per_month)
        self._fed: dict[int, int] = {}

    def look(self, store: StateStore) -> Check:
        """Read what is new."""
        runs: list[tuple[int, int]] = []
        for partition, last in store.watermarks().items():
            stop = (last + 1) // RUN_OFFSETS
            start = max(self._fed.get(partition, 0), stop - RUNS_MAX)
            runs += [(partition, run) for run in range(start, stop)]
            self._fed[partition] = stop
        rows = store.rows({CENSUS: [self._monitor.run_name(*run) for run in runs]})[CENSUS] if runs else []
        counts: Sequence[Counts] = [self._monitor.read([row]) for row in rows]
        for one in sorted(counts, key=lambda one: one.newest_ms):
            if 2 * one.transactions >= RUN_OFFSETS:
                self._means.update(one.sums["score"] / one.transactions / SCORE_UNIT)
        return self._means.check()


class LossMeans:
    """Feeds the mean log-loss of each some hundred examples that were judged since."""

    def __init__(self, alarms_per_month: float) -> None:
        self._means = Means("log-loss", alarms_per_month)
        self._fed = 0, 0

    def look(self, total: Tallies) -> Check:
        """Take what was judged since the last figure, if it is enough for one."""
        examples, loss = total["examples"], total["loss"]
        more = examples - self._fed[0]
        if more < 0 or not self._fed[0]:  # another version, or the first look: from here on
            self._fed = examples, loss
        elif more >= EXAMPLES:
            self._means.update((loss - self._fed[1]) / more / UNIT)
            self._fed = examples, loss
        return self._means.check()

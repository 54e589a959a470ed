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
# A loss of a clipped probability: figures have to lie in [0, 1].
LOSS_MAX: Final = 16.0


class Means:
    """One stream of means in [0, 1]. `subject` is what they are means of."""

    def __init__(self, subject: str, alarms_per_month: float) -> None:
        self._subject = subject
        from river.drift import ADWIN  # noqa: PLC0415 - a worker that only scores starts without river

        # The probability of a cut at each figure: a thirtieth of a month's share, as figures are about one a day or more.
        self._adwin: Any = ADWIN(delta=alpha_of(alarms_per_month, LABEL_CHECKS, 30.0))  # type: ignore[no-untyped-call] # river has no types
        self._moved = False
        self._before = 0.0

    def update(self, mean: float) -> None:
        """Take the next figure."""
        before = self._adwin.estimation
        self._adwin.update(mean)
        if self._adwin.drift_detected:
            self._moved, self._before = True, before

    def check(self) -> Check:
        """Did the mean move since the last look?"""
        moved, self._moved = self._moved, False
        now = self._adwin.estimation
        message = f"the mean {self._subject} is {now:.5f}"
        if moved:
            message = f"the mean {self._subject} moved from {self._before:.5f} to {now:.5f}"
        return Check(
            self._subject, "adwin", float(moved), 0.5, message, {"mean": now, "figures": float(self._adwin.width)}
        )


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
            self._means.update(min(1.0, (loss - self._fed[1]) / more / UNIT / LOSS_MAX))
            self._fed = examples, loss
        return self._means.check()

"""ADWIN over means: does a stream of figures have another mean than before? (Bifet and Gavalda, SDM 2007.)

One figure for a day of transactions or for some hundred examples, not for each: a look costs nothing, figures that are
means of many are nearly independent, and a day's mean does not move with the time of day as that of an hour does. What was
seen is part of the watch's state: another worker goes on with it, and a look that failed has seen nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

from fraudstream.core.alarms import Check
from fraudstream.core.census import SCORE_UNIT, Counts
from fraudstream.core.drift import alpha_of
from fraudstream.core.quality import UNIT, Tallies
from fraudstream.core.watch import LABEL_CHECKS, TRANSACTIONS_MIN, Followed

# Examples of one figure of the log-loss.
EXAMPLES: Final = 500
# Figures that say what is usual, before any is judged.
FIRST: Final = 8
# Figures that are kept: more than a year of days, of which each look reads all (0.2 ms).
FIGURES_MAX: Final = 400


class Means:
    """One stream of means that are not negative. `subject` is what they are means of, `followed` what was seen of it.

    ADWIN's bound is for figures that use the whole of [0, 1]: the mean score of frauds that are one in a hundred could
    treble unnoticed. So a mean x is taken as x / (x + u), where u is what is usual, the mean of the first figures: the usual
    becomes a half, twice as much two thirds.
    """

    def __init__(self, subject: str, alarms_per_month: float, followed: Followed | None = None) -> None:
        self._subject = subject
        self.followed = followed or Followed()
        from river.drift import ADWIN  # noqa: PLC0415 - a worker that only scores starts without river

        # The probability of a cut at each figure: a thirtieth of a month's share, as figures are about one a day or more.
        # Looked at with each of them: they are few.
        self._adwin: Any = ADWIN(delta=alpha_of(alarms_per_month, LABEL_CHECKS, 30.0), clock=1)  # type: ignore[no-untyped-call] # river has no types
        if self.followed.usual:
            for figure in self.followed.figures:
                self._take(figure)

    def update(self, mean: float) -> None:
        """Take the next figure."""
        followed = self.followed
        followed.figures = [*followed.figures, mean][-(FIGURES_MAX if followed.usual else FIRST) :]
        if followed.usual:
            before = self._mean()
            self._take(mean)
            if self._adwin.drift_detected:
                followed.moved, followed.before = True, before
        elif len(followed.figures) >= FIRST:
            followed.usual = sum(followed.figures) / FIRST
            if followed.usual:
                for figure in followed.figures:
                    self._take(figure)

    def check(self) -> Check:
        """Did the mean move, and no alarm has told of it?"""
        now, moved = self._mean(), self.followed.moved
        message = f"the mean {self._subject} is {now:.5f}"
        if moved:
            message = f"the mean {self._subject} moved from {self.followed.before:.5f} to {now:.5f}"
        return Check(
            self._subject, "adwin", float(moved), 0.5, message, {"mean": now, "figures": float(self._adwin.width)}
        )

    def told(self) -> None:
        """An alarm tells of it."""
        self.followed.moved = False

    def _take(self, mean: float) -> None:
        self._adwin.update(mean / (mean + self.followed.usual))

    def _mean(self) -> float:
        share: float = self._adwin.estimation
        return self.followed.usual * share / (1.0 - share)


class ScoreMeans(Means):
    """Feeds the mean score of each UTC day that is over; days with few transactions are taken together."""

    def __init__(self, alarms_per_month: float, followed: Followed | None = None) -> None:
        super().__init__("score", alarms_per_month, followed)

    def look(self, days: Mapping[int, Counts]) -> Check:
        """Take the days that ended since; `days` are whole ones, by number."""
        followed = self.followed
        for day in sorted(day for day, counts in days.items() if day > followed.upto and counts.transactions):
            if followed.upto >= 0:  # the first one may have begun in the middle of the day
                n, score = followed.fed[0] + days[day].transactions, followed.fed[1] + days[day].sums["score"]
                if n >= TRANSACTIONS_MIN:
                    self.update(score / n / SCORE_UNIT)
                    n, score = 0, 0
                followed.fed = n, score
            followed.upto = day
        return self.check()


class LossMeans(Means):
    """Feeds the mean log-loss of each some hundred examples that were judged since."""

    def __init__(self, alarms_per_month: float, followed: Followed | None = None) -> None:
        super().__init__("log-loss", alarms_per_month, followed)

    def look(self, total: Tallies) -> Check:
        """Take what was judged since the last figure, if it is enough for one."""
        examples, loss = total["examples"], total["loss"]
        before, lost = self.followed.fed
        more = examples - before
        if more < 0 or not before:  # the figures of quality began anew, or the first look: from here on
            self.followed.fed = examples, loss
        elif more >= EXAMPLES:
            self.update((loss - lost) / more / UNIT)
            self.followed.fed = examples, loss
        return self.check()

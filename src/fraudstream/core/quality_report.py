"""What is told of quality: each version and score since the start and lately, and day by day beside what was estimated."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from fraudstream.core.quality import Quality
from fraudstream.core.quality_figures import CostMatrix, Figures, figures
from fraudstream.core.watch import Estimated

# Four weeks: long enough for frauds to be many, short enough to be now.
DAYS_TOLD: Final = 28
# The score that decisions were made with: the one to set beside what was estimated for them.
DECIDED: Final = "decided"


class ScoreQuality(Struct, frozen=True):
    """One score of a version: since the start, and over the newest labelled days."""

    name: str
    total: Figures
    rolling: Figures


class VersionQuality(Struct, frozen=True):
    """One model version."""

    name: str
    scores: tuple[ScoreQuality, ...]


class DayQuality(Struct, frozen=True):
    """One day of transactions (days since 1970): what the scores promised, and what labels have shown so far."""

    day: int
    estimated: Estimated | None
    found: Figures | None


class Report(Struct, frozen=True):
    """All of it; the newest version first, days ascending."""

    versions: tuple[VersionQuality, ...]
    days: tuple[DayQuality, ...]


def report(quality: Quality, days: Mapping[int, Estimated], costs: CostMatrix, *, budget: int) -> Report:
    """Put together what is known; `days` are the estimates."""
    versions = quality.versions()
    told = []
    for version in versions:
        scores = []
        for name in quality.scores(version):
            daily = [tallies for _, tallies in quality.days(version, name)]
            total = figures(quality.total(version, name), costs, days=daily, budget=budget)
            lately = quality.total(version, name, last_days=DAYS_TOLD)
            rolling = figures(lately, costs, days=daily[-DAYS_TOLD:], budget=budget)
            scores.append(ScoreQuality(name, total, rolling))
        told.append(VersionQuality(version, tuple(scores)))
    found: dict[int, Figures] = {}
    for version in reversed(versions):  # where two versions decided on one day, the newer one is told
        for day, tallies in quality.days(version, DECIDED):
            found[day] = figures(tallies, costs, days=[tallies], budget=budget)
    every = sorted({*days, *found})
    return Report(tuple(told), tuple(DayQuality(day, days.get(day), found.get(day)) for day in every))

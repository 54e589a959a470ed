"""From scores to actions: the review threshold from the alerts a team can look into, the block threshold from precision."""

from typing import Final

import numpy as np

from fraudstream.models.metrics import Curve

# A precision over fewer alerts than this says nothing: 20 of 20 right still leaves 86 % possible (one-sided, 95 %).
BLOCK_ALERTS_MIN: Final = 20


def review_threshold(points: Curve, days: int, alerts_per_day: float) -> float:
    """The lowest threshold that gives at most `alerts_per_day` on average; the highest score if every one gives more."""
    affordable = np.flatnonzero(points.alerts <= alerts_per_day * max(days, 1))
    return _below(points, int(affordable[-1]) if len(affordable) else 0)


def block_threshold(points: Curve, precision: float, review: float) -> float | None:
    """The lowest threshold, not below `review`, with at least this precision; None if no threshold has it."""
    good = np.flatnonzero(
        (points.precision >= precision) & (points.alerts >= BLOCK_ALERTS_MIN) & (points.thresholds >= review)
    )
    return max(review, _below(points, int(good[-1]))) if len(good) else None


def _below(points: Curve, at: int) -> float:
    """Half way to the next lower score: no rounding of the last digit moves a transaction across it."""
    if at + 1 == len(points.thresholds):
        return float(points.thresholds[at])
    return float((points.thresholds[at] + points.thresholds[at + 1]) / 2.0)

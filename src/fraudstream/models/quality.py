"""The figures of one scored stretch of transactions: what training holds out and what `evaluate` reports."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from fraudstream.core.windows import BoolArray, FloatArray, IntArray
from fraudstream.models import metrics

Figures = dict[str, float | None]
HOUR_MS = 3_600_000
# Bands that hold small change, everyday purchases, and the large ones that cost most when they are missed.
AMOUNT_BANDS = ((0.0, 25.0), (25.0, 100.0), (100.0, 250.0), (250.0, math.inf))


# What a reader sees for names whose words do not speak for themselves.
LABELS: Mapping[str, str] = {
    "auc": "AUC ROC",
    "ap": "average precision",
    "cp_100": "CP@100, all cards",
    "cp_100_unknown_cards": "CP@100, without known cards",
    "precision_review": "precision, review and block",
    "recall_review": "recall, review and block",
    "precision_block": "precision, block",
    "recall_block": "recall, block",
}


class OnlineFigures(Struct, frozen=True):
    """Quality of one of the scores; as in `Report.metrics`."""

    log_loss: float | None
    ap: float | None
    auc: float | None
    expected_calibration_error: float | None


class OnlineReport(Struct, frozen=True):
    """Champion, online model and blend over the transactions from `from_time` on; before the online model was ready it
    counts as the champion. `learned` examples came from the whole range, `share` is that of the blend at its end.
    """

    from_time: str
    transactions: int
    frauds: int
    learned: int
    share: float
    champion: OnlineFigures
    online: OnlineFigures
    blend: OnlineFigures


@dataclass(frozen=True)
class Scored:
    """`n` transactions with what happened and what was thought, column by column."""

    times_ms: IntArray
    cards: IntArray
    amounts: FloatArray
    frauds: BoolArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.times_ms)

    def where(self, rows: BoolArray | IntArray) -> "Scored":
        """These rows only."""
        return Scored(self.times_ms[rows], self.cards[rows], self.amounts[rows], self.frauds[rows], self.scores[rows])

    @property
    def days(self) -> IntArray:
        return metrics.days_of(self.times_ms)

    @property
    def day_count(self) -> int:
        """Calendar days with at least one transaction."""
        return len(np.unique(self.days))


def figures(scored: Scored, *, review: float, block: float | None, known: BoolArray | None = None) -> Figures:
    """All figures by name; None where there is nothing to compute one from.

    `known` marks the transactions of cards that are known as compromised: with it, CP@100 is given without them too.
    """
    points = metrics.curve(scored.frauds, scored.scores)
    reviewed = metrics.at_threshold(scored.frauds, scored.scores, review)
    blocked = metrics.at_threshold(scored.frauds, scored.scores, math.inf if block is None else block)
    found: dict[str, float] = {
        "auc": metrics.auc_roc(points),
        "ap": metrics.average_precision(points),
        "cp_100": metrics.card_precision(scored.days, scored.cards, scored.frauds, scored.scores),
    }
    if known is not None:
        rest = scored.where(~known)
        found["cp_100_unknown_cards"] = metrics.card_precision(rest.days, rest.cards, rest.frauds, rest.scores)
    found |= {
        "log_loss": metrics.log_loss(scored.frauds, scored.scores),
        "expected_calibration_error": metrics.expected_calibration_error(scored.frauds, scored.scores),
        "mean_score": float(scored.scores.mean()) if len(scored) else math.nan,
        "fraud_rate": float(scored.frauds.mean()) if len(scored) else math.nan,
        "alerts_per_day": reviewed.alerts / max(scored.day_count, 1),
        "precision_review": reviewed.precision,
        "recall_review": reviewed.recall,
        "precision_block": blocked.precision,
        "recall_block": blocked.recall if block is not None else math.nan,
    }
    return {name: none_if_nan(value) for name, value in found.items()}


def slices(scored: Scored, *, review: float, utc_offset_ms: int = 0) -> dict[str, Figures]:
    """Quality by amount band, and by night (00:00 to 06:59 at `utc_offset_ms`) and day."""
    night = (scored.times_ms + utc_offset_ms) // HOUR_MS % 24 <= 6
    chosen: dict[str, BoolArray] = {
        _band(low, high): (scored.amounts >= low) & (scored.amounts < high) for low, high in AMOUNT_BANDS
    }
    chosen |= {"night": night, "day": ~night}
    found = {}
    for name, rows in chosen.items():
        part = scored.where(rows)
        points = metrics.curve(part.frauds, part.scores)
        reviewed = metrics.at_threshold(part.frauds, part.scores, review)
        values: Mapping[str, float] = {
            "transactions": len(part),
            "frauds": reviewed.frauds,
            "auc": metrics.auc_roc(points),
            "ap": metrics.average_precision(points),
            "precision_review": reviewed.precision,
            "recall_review": reviewed.recall,
        }
        found[name] = {key: none_if_nan(value) for key, value in values.items()}
    return found


def none_if_nan(value: float) -> float | None:
    """JSON has no nan; what could not be computed is null there."""
    return None if math.isnan(value) else float(value)


def _band(low: float, high: float) -> str:
    if math.isinf(high):
        return f"amount {low:g} and more"
    return f"amount below {high:g}" if not low else f"amount {low:g} to {high:g}"


def label_of(name: str) -> str:
    """A figure's name for a reader."""
    return LABELS.get(name, name.replace("_", " "))

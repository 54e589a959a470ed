"""Detection quality, in numpy alone. ROC AUC and average precision equal scikit-learn's, ties included.

Frauds are the positives. Scores are probabilities; higher is riskier.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fraudstream.core.features import DAY_MS
from fraudstream.core.learning import LOG_LOSS_CLIP
from fraudstream.core.quality import ECE_BINS
from fraudstream.core.windows import BoolArray, FloatArray, IntArray

CARDS_PER_DAY: Final = 100  # the k of CP@100: what a team of analysts can call in a day


@dataclass(frozen=True)
class Curve:
    """Operating points, one per distinct score, from the highest threshold down.

    At `thresholds[i]`, `alerts[i]` transactions score as high or higher; `hits[i]` of them are frauds.
    """

    thresholds: FloatArray
    hits: IntArray
    alerts: IntArray
    frauds: int
    transactions: int

    @property
    def recall(self) -> FloatArray:
        return self.hits / max(self.frauds, 1)

    @property
    def precision(self) -> FloatArray:
        return self.hits / self.alerts

    @property
    def false_positive_rate(self) -> FloatArray:
        return (self.alerts - self.hits) / max(self.transactions - self.frauds, 1)


def curve(frauds: BoolArray, scores: FloatArray) -> Curve:
    """Count hits and alerts at every distinct score. Both arrays (n,)."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.concatenate((ordered[1:] != ordered[:-1], [True]))) if len(ordered) else np.empty(0, int)
    hits = np.cumsum(frauds[order], dtype=np.int64)[ends]
    return Curve(ordered[ends], hits, ends.astype(np.int64) + 1, int(frauds.sum()), len(frauds))


def auc_roc(points: Curve) -> float:
    """Area under the ROC curve, by the trapezoidal rule (ties count half); nan if there is one class only.

    >>> auc_roc(curve(np.array([False, True, False, True]), np.array([0.1, 0.4, 0.4, 0.8])))
    0.875
    """
    legitimate = points.transactions - points.frauds
    if not points.frauds or not legitimate:
        return float("nan")
    false_alarms = np.concatenate(([0], points.alerts - points.hits)).astype(np.float64)
    hits = np.concatenate(([0], points.hits)).astype(np.float64)
    area = np.sum(np.diff(false_alarms) * (hits[1:] + hits[:-1])) / 2.0
    return float(area / (float(points.frauds) * float(legitimate)))


def average_precision(points: Curve) -> float:
    """Average precision: the sum of precision times the recall gained, over distinct scores; nan without frauds."""
    if not points.frauds:
        return float("nan")
    gained = np.diff(np.concatenate(([0], points.hits))) / points.frauds
    return float(np.sum(gained * points.precision))


def log_loss(frauds: BoolArray, scores: FloatArray) -> float:
    """Mean negative log-likelihood in nats, scores clipped to [eps, 1-eps]; nan for no transactions."""
    if not len(scores):
        return float("nan")
    p = np.clip(scores, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    return float(-np.mean(np.where(frauds, np.log(p), np.log1p(-p))))


@dataclass(frozen=True)
class Reliability:
    """Bins of scores: number of transactions, mean score and share of frauds in each; empty bins are left out."""

    counts: IntArray
    mean_scores: FloatArray
    fraud_shares: FloatArray
    frauds: IntArray


def reliability(frauds: BoolArray, scores: FloatArray, edges: FloatArray) -> Reliability:
    """Compare scores with what happened, in the bins between `edges` (ascending, interior ones only)."""
    bins = np.searchsorted(edges, scores, side="right")
    size = len(edges) + 1
    counts = np.bincount(bins, minlength=size)
    total = np.bincount(bins, weights=scores, minlength=size)
    hits = np.bincount(bins, weights=frauds, minlength=size)
    some = counts > 0
    return Reliability(
        counts[some], total[some] / counts[some], hits[some] / counts[some], np.rint(hits[some]).astype(np.int64)
    )


def expected_calibration_error(frauds: BoolArray, scores: FloatArray) -> float:
    """Mean |share of frauds - mean score| over ten bins of equal width, weighted by their transactions.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    if not len(scores):
        return float("nan")
    bins = reliability(frauds, scores, np.arange(1, ECE_BINS) / ECE_BINS)
    return float(np.sum(bins.counts * np.abs(bins.fraud_shares - bins.mean_scores)) / len(scores))


@dataclass(frozen=True)
class AtThreshold:
    """What alerting at or above one threshold gives. Precision is nan without alerts, recall without frauds."""

    alerts: int
    hits: int
    frauds: int

    @property
    def precision(self) -> float:
        return self.hits / self.alerts if self.alerts else float("nan")

    @property
    def recall(self) -> float:
        return self.hits / self.frauds if self.frauds else float("nan")


def at_threshold(frauds: BoolArray, scores: FloatArray, threshold: float) -> AtThreshold:
    """Count alerts and hits among transactions that score `threshold` or more."""
    alerts = scores >= threshold
    return AtThreshold(int(alerts.sum()), int((alerts & frauds).sum()), int(frauds.sum()))


def days_of(times_ms: IntArray) -> IntArray:
    """The UTC calendar day of each time, in days since 1970-01-01."""
    return times_ms // DAY_MS


def card_precision(
    days: IntArray, cards: IntArray, frauds: BoolArray, scores: FloatArray, k: int = CARDS_PER_DAY
) -> float:
    """CP@k: what share of the k most suspicious cards of a day is compromised, mean over the days.

    Each day the cards are ranked by their highest score (ties: lower card number first) and the top k are looked into.
    A card with a fraud that day counts as found and is left out on later days. Nan without transactions.

    Source: Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection, 2022, chapter 4.
    """
    if not len(days):
        return float("nan")
    size = int(cards.max()) + 1
    found = np.zeros(size, np.bool_)
    shares = []
    for day in np.unique(days):
        rows = np.flatnonzero(days == day)
        rows = rows[~found[cards[rows]]]
        highest = np.full(size, -np.inf)
        np.maximum.at(highest, cards[rows], scores[rows])
        compromised = np.zeros(size, np.bool_)
        compromised[cards[rows[frauds[rows]]]] = True
        seen = np.unique(cards[rows])
        top = seen[np.argsort(-highest[seen], kind="stable")[:k]]
        hits = top[compromised[top]]
        found[hits] = True
        shares.append(len(hits) / k)
    return float(np.mean(shares))


def known_compromised(
    days: IntArray, cards: IntArray, fraud_days: IntArray, fraud_cards: IntArray, *, delay_days: int
) -> BoolArray:
    """Which transactions (`days`, `cards`) are of a card that is known as compromised on that day.

    A fraud of day d is known after `delay_days`, that is from day d + delay_days + 1 on, as in the handbook's protocol.
    """
    size = 1 + max((int(a.max()) for a in (cards, fraud_cards) if len(a)), default=0)
    never = np.iinfo(np.int64).max
    first = np.full(size, never)
    np.minimum.at(first, fraud_cards, fraud_days + delay_days + 1)
    return days >= first[cards]

"""Metrics against scikit-learn and against slow definitions, with as many ties as scores come with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from fraudstream.models import metrics
from fraudstream.models.thresholds import BLOCK_ALERTS_MIN, block_threshold, review_threshold

# A few values only, so that ties are the rule.
SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.25000001, 0.5, 0.9, 1.0])
PAIRS = st.lists(st.tuples(st.booleans(), SCORES), min_size=2, max_size=60)
both_classes = PAIRS.filter(lambda pairs: len({fraud for fraud, _ in pairs}) == 2)


def arrays(pairs: list[tuple[bool, float]]) -> tuple[metrics.BoolArray, metrics.FloatArray]:
    return np.array([fraud for fraud, _ in pairs], bool), np.array([score for _, score in pairs])


@given(both_classes)
def test_auc_and_average_precision_equal_scikit_learns(pairs: list[tuple[bool, float]]) -> None:
    """Ties included, both areas are scikit-learn's to the last digits of a double."""
    frauds, scores = arrays(pairs)
    points = metrics.curve(frauds, scores)
    assert metrics.auc_roc(points) == pytest.approx(roc_auc_score(frauds, scores), abs=1e-12)
    assert metrics.average_precision(points) == pytest.approx(average_precision_score(frauds, scores), abs=1e-12)


@given(both_classes)
def test_operating_points_equal_scikit_learns(pairs: list[tuple[bool, float]]) -> None:
    """Precision and recall at each distinct score are those of scikit-learn's curve."""
    frauds, scores = arrays(pairs)
    points = metrics.curve(frauds, scores)
    precision, recall, thresholds = precision_recall_curve(frauds, scores)
    assert points.thresholds.tolist() == thresholds[::-1].tolist()
    assert points.precision == pytest.approx(precision[:-1][::-1])
    assert points.recall == pytest.approx(recall[:-1][::-1])


@given(both_classes)
def test_log_loss_equals_scikit_learns(pairs: list[tuple[bool, float]]) -> None:
    """Log-loss is scikit-learn's on the same clipped scores."""
    frauds, scores = arrays(pairs)
    clipped = np.clip(scores, metrics.LOG_LOSS_CLIP, 1 - metrics.LOG_LOSS_CLIP)
    assert metrics.log_loss(frauds, scores) == pytest.approx(sklearn_log_loss(frauds, clipped), rel=1e-9)


@given(PAIRS, SCORES)
def test_a_threshold_counts_what_scores_as_high(pairs: list[tuple[bool, float]], threshold: float) -> None:
    """Alerts and hits at a threshold are those of a plain count."""
    frauds, scores = arrays(pairs)
    at = metrics.at_threshold(frauds, scores, threshold)
    assert at.alerts == sum(score >= threshold for _, score in pairs)
    assert at.hits == sum(score >= threshold for fraud, score in pairs if fraud)


@pytest.mark.parametrize("frauds", [[], [True, True], [False]])
def test_what_cannot_be_computed_is_nan(frauds: list[bool]) -> None:
    """With one class or nothing at all there is no AUC, and without frauds no average precision."""
    truth = np.array(frauds, bool)
    points = metrics.curve(truth, np.linspace(0.1, 0.9, len(frauds)))
    assert np.isnan(metrics.auc_roc(points))
    assert np.isnan(metrics.average_precision(points)) == (not truth.any())


def slow_card_precision(rows: list[tuple[int, int, bool, float]], k: int) -> float:
    """CP@k by its words: a day at a time, card by card, in plain Python."""
    found: set[int] = set()
    shares = []
    for day in sorted({day for day, *_ in rows}):
        of_day = [row for row in rows if row[0] == day and row[1] not in found]
        best = {card: max(score for _, c, _, score in of_day if c == card) for _, card, _, _ in of_day}
        ranked = sorted(best, key=lambda card: (-best[card], card))[:k]
        hits = {card for card in ranked if any(fraud for _, c, fraud, _ in of_day if c == card)}
        found |= hits
        shares.append(len(hits) / k)
    return sum(shares) / len(shares)


ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8), st.booleans(), SCORES), min_size=1, max_size=60)


@given(ROWS, st.integers(1, 5))
def test_card_precision_equals_its_slow_definition(rows: list[tuple[int, int, bool, float]], k: int) -> None:
    """Days, cards, ties and cards found on earlier days are counted as the words of the definition say."""
    days, cards, frauds, scores = (np.array(column) for column in zip(*rows, strict=True))
    found = metrics.card_precision(days, cards, frauds, scores, k)
    assert found == pytest.approx(slow_card_precision(rows, k))


@given(ROWS, ROWS, st.integers(0, 3))
def test_known_cards_are_those_with_a_fraud_old_enough(
    rows: list[tuple[int, int, bool, float]], past: list[tuple[int, int, bool, float]], delay_days: int
) -> None:
    """A card is known on a day if it had a fraud more than the label delay before."""
    known = metrics.known_compromised(
        np.array([day for day, *_ in rows]),
        np.array([card for _, card, *_ in rows]),
        np.array([day for day, *_ in past]),
        np.array([card for _, card, *_ in past]),
        delay_days=delay_days,
    )
    expected = [any(c == card and d < day - delay_days for d, c, *_ in past) for day, card, *_ in rows]
    assert known.tolist() == expected


def test_calibration_error_is_the_weighted_gap() -> None:
    """Two bins, one right and one off by 0.4, weigh by their transactions."""
    frauds = np.array([False] * 19 + [True] + [True] * 5)
    scores = np.array([0.05] * 20 + [0.6] * 5)
    assert metrics.expected_calibration_error(frauds, scores) == pytest.approx(0.4 * 5 / 25)


# --- thresholds --------------------------------------------------------------------------------------------------------


@given(both_classes, st.floats(0.5, 10))
def test_the_review_threshold_keeps_to_the_budget(pairs: list[tuple[bool, float]], alerts_per_day: float) -> None:
    """It gives as many alerts as the budget allows, unless the highest score alone gives more."""
    frauds, scores = arrays(pairs)
    points = metrics.curve(frauds, scores)
    days = 3
    threshold = review_threshold(points, days, alerts_per_day)
    affordable = [n for n in points.alerts.tolist() if n <= alerts_per_day * days]
    assert np.count_nonzero(scores >= threshold) == (affordable[-1] if affordable else points.alerts[0])


def test_the_block_threshold_needs_precision_and_enough_alerts() -> None:
    """It is the lowest with the precision asked for, never below review, and off where there are too few alerts."""
    frauds = np.array([True] * 30 + [False] * 2 + [True] * 8 + [False] * 60)
    scores = np.linspace(0.99, 0.01, 100)
    points = metrics.curve(frauds, scores)
    threshold = block_threshold(points, 0.95, 0.0)
    assert threshold is not None
    blocked = scores >= threshold
    assert frauds[blocked].mean() >= 0.95
    assert np.count_nonzero(blocked) == 40
    assert block_threshold(points, 0.95, 0.75) == 0.75
    assert block_threshold(points, 0.95, 1.5) is None
    few = metrics.curve(frauds[: BLOCK_ALERTS_MIN - 1], scores[: BLOCK_ALERTS_MIN - 1])
    assert block_threshold(few, 0.5, 0.0) is None

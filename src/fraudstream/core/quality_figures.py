"""From tallies to figures: detection, calibration and money, each exact or with the bound of its error."""

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from fraudstream.core.quality import UNIT, Tallies
from fraudstream.core.windows import FloatArray


class CostMatrix(Struct, frozen=True):
    """What a decision costs, in major units.

    A `review` costs `review_cost`. A fraud that raised an alert saves `saved_share` of its amount, one that did not loses
    `lost_share` of it. A legitimate transaction that was blocked costs `false_block_cost`: the sale, the customer's anger.
    """

    review_cost: float = 5.0
    saved_share: float = 1.0
    lost_share: float = 1.0
    false_block_cost: float = 20.0


class Figures(Struct, frozen=True):
    """Quality of one score over some examples; None where there is nothing to compute a figure from.

    `auc`, `average_precision`, `precision_budget` and `recall_budget` are sketched: the figure that exact scores would
    give lies within `..._error` of the one told. All others are exact.
    """

    examples: int
    frauds: int
    auc: float | None
    auc_error: float | None
    average_precision: float | None
    average_precision_error: float | None
    log_loss: float | None
    expected_calibration_error: float | None
    mean_score: float | None
    fraud_rate: float | None
    alerts: int
    precision: float | None
    recall: float | None
    precision_budget: float | None
    precision_budget_error: float | None
    recall_budget: float | None
    recall_budget_error: float | None
    money_saved: float
    money_lost: float
    money_spent: float


def figures(tallies: Tallies, costs: CostMatrix, *, days: Iterable[Tallies] = (), budget: int = 100) -> Figures:
    """All figures of one score. `days` are its tallies day by day, for the `budget` of alerts a day.

    What is told of the budget is of these days alone: those that left the state are only in `tallies`.
    """
    daily = list(days)
    examples, frauds, alerts, hits = (tallies[name] for name in ("examples", "frauds", "alerts", "hits"))
    auc, auc_error = auc_roc(tallies)
    precision, precision_error = average_precision(tallies)
    looked, found, found_error = at_budget(daily, budget)
    frauds_daily = sum(day["frauds"] for day in daily)
    false_blocks = tallies["blocks"] - tallies["block_hits"]
    reviews = alerts - tallies["blocks"]
    return Figures(
        examples=examples,
        frauds=frauds,
        auc=auc,
        auc_error=auc_error,
        average_precision=precision,
        average_precision_error=precision_error,
        log_loss=_share(tallies["loss"], examples * UNIT),
        expected_calibration_error=expected_calibration_error(tallies),
        mean_score=_share(int(tallies.calibration[1].sum()), examples * UNIT),
        fraud_rate=_share(frauds, examples),
        alerts=alerts,
        precision=_share(hits, alerts),
        recall=_share(hits, frauds),
        precision_budget=_share(found, looked),
        precision_budget_error=_share(found_error, looked),
        recall_budget=_share(found, frauds_daily),
        recall_budget_error=_share(found_error, frauds_daily),
        money_saved=tallies["saved"] / 100 * costs.saved_share,
        money_lost=tallies["missed"] / 100 * costs.lost_share,
        money_spent=reviews * costs.review_cost + false_blocks * costs.false_block_cost,
    )


def auc_roc(tallies: Tallies) -> tuple[float | None, float | None]:
    """Area under the ROC curve and the bound of its error.

    Pairs of a fraud and a legitimate example in one bin count half. Exact scores would give them anything from none to
    one: so the error is at most half their share of all pairs.
    """
    legit, fraud = tallies.legit.astype(np.float64), tallies.fraud.astype(np.float64)
    pairs = legit.sum() * fraud.sum()
    if not pairs:
        return None, None
    below = np.cumsum(legit) - legit
    tied = float(np.dot(fraud, legit))
    return float((np.dot(fraud, below) + tied / 2) / pairs), tied / 2 / float(pairs)


def average_precision(tallies: Tallies) -> tuple[float | None, float | None]:
    """Average precision and the bound of its error.

    Told is the middle between each bin's frauds before its legitimate examples and behind them. Exact scores can give
    no less than the latter; and no more than frauds first and all at one score, where each has the precision of the last
    (scikit-learn's rule for ties).
    """
    fraud, legit = tallies.fraud[::-1].astype(np.float64), tallies.legit[::-1].astype(np.float64)
    total = float(fraud.sum())
    if not total:
        return None, None
    held = fraud > 0
    hits, false = (np.cumsum(of) - of for of in (fraud, legit))
    first = _gained(fraud[held], hits[held], false[held])
    behind = _gained(fraud[held], hits[held], (false + legit)[held])
    highest = float(np.sum(fraud[held] * (hits + fraud)[held] / (hits + fraud + false)[held]))
    middle = (first + behind) / 2
    return middle / total, max(highest - middle, middle - behind) / total


def _gained(fraud: FloatArray, hits: FloatArray, false: FloatArray) -> float:
    """Sum of the precision at each fraud of the bins, after `hits` frauds and `false` legitimate examples."""
    total = 0.0
    for n, before, wrong in zip(fraud.tolist(), hits.tolist(), false.tolist(), strict=True):
        found = before + np.arange(1, int(n) + 1)
        total += float(np.sum(found / (found + wrong)))
    return total


def at_budget(days: Iterable[Tallies], budget: int) -> tuple[int, float, float]:
    """What the `budget` highest scores of each day find: examples looked into, frauds among them, and how far off at most.

    Where a day's budget ends inside a bin, the share of its frauds that is within the budget is taken as that of all.
    """
    looked, found, error = 0, 0.0, 0.0
    for day in days:
        left = min(budget, day["examples"])
        looked += left
        for fraud, legit in zip(day.fraud[::-1].tolist(), day.legit[::-1].tolist(), strict=True):
            if fraud + legit <= left:
                left -= fraud + legit
                found += fraud
                continue
            inside = left * fraud / (fraud + legit)
            found += inside
            error += max(min(fraud, left) - inside, inside - max(0, left - legit))
            break
    return looked, found, error


def expected_calibration_error(tallies: Tallies) -> float | None:
    """Mean |share of frauds - mean score| over ten bins of equal width, weighted by their examples.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    count, told, frauds = tallies.calibration
    if not count.sum():
        return None
    return float(np.sum(np.abs(frauds - told / UNIT)) / count.sum())


def _share(part: float, of: float) -> float | None:
    return part / of if of else None

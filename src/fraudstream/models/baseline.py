"""The reference that drift is measured against and reasons are told by: bins, counts, usual values, and what is chance."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from fraudstream.core.drift import Null, learn_null, psi
from fraudstream.core.features import DAY_MS
from fraudstream.core.windows import BoolArray, FloatArray, IntArray
from fraudstream.models.artefact import RECENT_TRANSACTIONS, FeatureBaseline, Matrix, RateBaseline, ScoreBaseline

# Tenths, the customary bins of a population stability index: each holds enough of any week's transactions.
FEATURE_QUANTILES: Final = tuple(at / 10 for at in range(1, 10))
# Alerts live in the last hundredth of the scores; without a bin of its own their drift would not be seen.
SCORE_QUANTILES: Final = (*FEATURE_QUANTILES, 0.99)
# Earlier stretches that serve as references for the days after them, the newest of those there are.
EARLIER_MAX: Final = 8
# How far behind a reference a day may lie: a version is in use for about a month before it is trained anew.
LAG_DAYS_MAX: Final = 28
RECENT_CHUNKS_MAX: Final = 40


def edges_of(values: FloatArray, quantiles: Sequence[float]) -> FloatArray:
    """Distinct quantiles that are values themselves, so that a frequent value (0 frauds, say) has its own bin."""
    edges: FloatArray = np.unique(np.quantile(values, quantiles, method="inverted_cdf"))
    # Nothing lies above the largest value: an edge there would make an empty last bin.
    below: FloatArray = edges[edges < values.max()]
    return below


def count_bins(values: FloatArray, edges: FloatArray) -> list[int]:
    """How many values each bin holds: bin i has `edges[i-1] < v <= edges[i]`."""
    return [int(n) for n in np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)]


class Earlier:
    """The transactions before the reference period, to learn from them what chance does.

    Parameters
    ----------
    times_ms
        Their times, ascending.
    stretch_ms
        How long the reference period is: pseudo references are as long.
    """

    def __init__(self, times_ms: IntArray, stretch_ms: int) -> None:
        self._times_ms = times_ms
        self._stretch_ms = max(stretch_ms, DAY_MS)
        self._cuts = list(self._make_cuts())

    def nulls(self, values: FloatArray, quantiles: Sequence[float]) -> tuple[Null | None, Null | None]:
        """What the index of a day, and of the recent transactions, is without drift."""
        days: list[float] = []
        recent: list[float] = []
        sizes: list[int] = []
        for first, stop, day_cuts in self._cuts:
            edges = edges_of(values[first:stop], quantiles)
            if not len(edges):
                continue
            reference = np.array(count_bins(values[first:stop], edges))
            for start, end in day_cuts:
                days.append(psi(reference, np.array(count_bins(values[start:end], edges))))
                sizes.append(end - start)
            last = day_cuts[-1][1]
            starts = range(stop, last - RECENT_TRANSACTIONS + 1, RECENT_TRANSACTIONS)
            for start in starts[:: max(1, len(starts) // RECENT_CHUNKS_MAX)]:
                chunk = values[start : start + RECENT_TRANSACTIONS]
                recent.append(psi(reference, np.array(count_bins(chunk, edges))))
        return learn_null(days, float(np.mean(sizes)) if sizes else 0.0), learn_null(recent, RECENT_TRANSACTIONS)

    def daily(self) -> RateBaseline | None:
        """Transactions a day; None of less than a week."""
        if not len(self._times_ms):
            return None
        per_day = np.bincount((self._times_ms - self._times_ms[0]) // DAY_MS)[:-1]
        if len(per_day) < 7:
            return None
        return RateBaseline(float(np.mean(per_day)), float(np.std(per_day, ddof=1)))

    def _make_cuts(self) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """(first, stop) of each pseudo reference, and (start, end) of the days behind it."""
        if not len(self._times_ms):
            return
        first_ms, last_ms = int(self._times_ms[0]), int(self._times_ms[-1])
        starts = [last_ms - DAY_MS - n * self._stretch_ms for n in range(1, EARLIER_MAX + 1)]
        for start_ms in (at for at in starts if at >= first_ms):
            stop_ms = start_ms + self._stretch_ms
            days = range(stop_ms, min(stop_ms + LAG_DAYS_MAX * DAY_MS, last_ms + 1 - DAY_MS), DAY_MS)
            edges_ms = np.searchsorted(
                self._times_ms, [start_ms, stop_ms, *(at for d in days for at in (d, d + DAY_MS))]
            )
            first, stop, *pairs = edges_ms.tolist()
            found = [(a, b) for a, b in zip(pairs[::2], pairs[1::2], strict=True) if b > a]
            if stop > first and found:
                yield first, stop, found


def feature_baselines(
    names: Sequence[str],
    reference: Matrix,
    *,
    fitted: Matrix,
    fitted_frauds: BoolArray,
    past: Earlier,
    past_matrix: Matrix,
) -> dict[str, FeatureBaseline]:
    """Bins over the rows of `reference`, usual values over the legitimate rows of `fitted`, chance over the `past`."""
    legit = fitted[~fitted_frauds]
    usual = np.median(legit, axis=0)
    baselines = {}
    for at, name in enumerate(names):
        values = reference[:, at].astype(np.float64)
        edges = edges_of(values, FEATURE_QUANTILES)
        nulls = past.nulls(past_matrix[:, at].astype(np.float64), FEATURE_QUANTILES)
        counts = tuple(count_bins(values, edges))
        baselines[name] = FeatureBaseline(
            tuple(edges.tolist()), counts, float(usual[at]), *nulls, low=float(values.min()), high=float(values.max())
        )
    return baselines


def score_baseline(scores: FloatArray, past: Earlier, past_scores: FloatArray) -> ScoreBaseline:
    """Bins over scores."""
    edges = edges_of(scores, SCORE_QUANTILES)
    nulls = past.nulls(past_scores, SCORE_QUANTILES)
    return ScoreBaseline(tuple(edges.tolist()), tuple(count_bins(scores, edges)), *nulls)

"""The reference that drift is measured against and reasons are told by: bins, counts and usual values."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fraudstream.core.windows import FloatArray
from fraudstream.models.artefact import FeatureBaseline, Matrix, ScoreBaseline
from fraudstream.models.history_file import BoolArray

# Tenths, the customary bins of a population stability index: each holds enough of any week's transactions.
FEATURE_QUANTILES: Final = tuple(at / 10 for at in range(1, 10))
# Alerts live in the last hundredth of the scores; without a bin of its own their drift would not be seen.
SCORE_QUANTILES: Final = (*FEATURE_QUANTILES, 0.99)


def edges_of(values: FloatArray, quantiles: Sequence[float]) -> FloatArray:
    """Distinct quantiles that are values themselves, so that a frequent value (0 frauds, say) has its own bin."""
    edges: FloatArray = np.unique(np.quantile(values, quantiles, method="inverted_cdf"))
    # Nothing lies above the largest value: an edge there would make an empty last bin.
    below: FloatArray = edges[edges < values.max()]
    return below


def count_bins(values: FloatArray, edges: FloatArray) -> list[int]:
    """How many values each bin holds: bin i has `edges[i-1] < v <= edges[i]`."""
    return [int(n) for n in np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)]


def feature_baselines(
    names: Sequence[str], reference: Matrix, fitted: Matrix, fitted_frauds: BoolArray
) -> dict[str, FeatureBaseline]:
    """Bins over the rows of `reference`, usual values over the legitimate rows of `fitted`."""
    legit = fitted[~fitted_frauds]
    usual = np.median(legit, axis=0)
    baselines = {}
    for at, name in enumerate(names):
        values = reference[:, at].astype(np.float64)
        edges = edges_of(values, FEATURE_QUANTILES)
        baselines[name] = FeatureBaseline(tuple(edges.tolist()), tuple(count_bins(values, edges)), float(usual[at]))
    return baselines


def score_baseline(scores: FloatArray) -> ScoreBaseline:
    """Bins over scores."""
    edges = edges_of(scores, SCORE_QUANTILES)
    return ScoreBaseline(tuple(edges.tolist()), tuple(count_bins(scores, edges)))

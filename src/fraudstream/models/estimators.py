"""The scikit-learn classifier that is fitted: named by its import path, made with JSON parameters and a seed."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from sklearn.base import is_classifier
from threadpoolctl import threadpool_limits

from fraudstream.core.windows import BoolArray, FloatArray
from fraudstream.errors import SettingsError
from fraudstream.models.artefact import Matrix
from fraudstream.models.export import corrected

# Chosen by measurement, see docs/decisions/default-model.md.
DEFAULT_ESTIMATOR: Final = "sklearn.ensemble.HistGradientBoostingClassifier"
DEFAULT_PARAMS: Final[Mapping[str, Any]] = {"learning_rate": 0.05, "max_leaf_nodes": 15, "max_iter": 200}
# A tenth of the legitimate transactions teaches a tree model as much as all of them, in a tenth of the time.
LEGIT_SHARE: Final = 0.1
# ... unless there are so few that every one counts.
LEGIT_ROWS_MIN: Final = 20_000
# OpenMP's threads wait for each other by spinning: on two busy cores a fit of one second was seen to take thirty. A second
# is what one thread needs, and with one the sums, hence the model, are the same on every machine of the kind.
THREADS: Final = 1


def make_estimator(path: str, params: Mapping[str, Any], seed: int) -> Any:
    """Call the class or function at `path` (`package.module.Name`) with `params`, and give the result the seed.

    Raises
    ------
    SettingsError
        If there is nothing at `path`, it does not take these parameters, or is no classifier with probabilities.
    """
    module_name, _, name = path.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"estimator {path!r}: not found ({error}); give an import path: {DEFAULT_ESTIMATOR}"
        ) from error
    try:
        estimator = factory(**params)
    except Exception as error:  # what a foreign constructor raises is its own choice
        raise SettingsError(f"estimator {path}: does not take {dict(params)}: {error}") from error
    if inspect.isclass(estimator) or not hasattr(estimator, "fit") or not is_classifier(estimator):
        raise SettingsError(f"estimator {path}: not a scikit-learn classifier")
    if not hasattr(estimator, "predict_proba"):
        raise SettingsError(f"estimator {path}: gives no probabilities (predict_proba)")
    seeds = {key: seed for key in estimator.get_params() if key.split("__")[-1] == "random_state"}
    unset = {key: value for key, value in seeds.items() if estimator.get_params()[key] is None}
    estimator.set_params(**unset)
    return estimator


def legit_share_for(legit_rows: int, wanted: float) -> float:
    """The share of legitimate transactions to keep: `wanted`, or more where that would leave too few."""
    return min(1.0, max(wanted, LEGIT_ROWS_MIN / max(legit_rows, 1)))


class Fitted:
    """A fitted estimator whose probabilities are those of the whole stream, not of the sample it was fitted on."""

    def __init__(self, estimator: Any, legit_share: float) -> None:
        self.estimator = estimator
        self.legit_share = legit_share

    def score(self, matrix: Matrix) -> FloatArray:
        """Probability of fraud of each row, (n,)."""
        if not len(matrix):
            return np.zeros(0)
        with threadpool_limits(THREADS):
            sampled = np.asarray(self.estimator.predict_proba(matrix)[:, 1], np.float64)
        return corrected(sampled, self.legit_share)


def fit(
    path: str, params: Mapping[str, Any], matrix: Matrix, frauds: BoolArray, *, legit_share: float, seed: int
) -> Fitted:
    """Fit on all frauds and a share of the rest. The same arguments give the same model."""
    estimator = make_estimator(path, params, seed)
    share = legit_share_for(int(np.count_nonzero(~frauds)), legit_share)
    kept = frauds | (np.random.default_rng(seed).random(len(frauds)) < share)
    rows = slice(None) if share >= 1.0 else np.flatnonzero(kept)
    try:
        with threadpool_limits(THREADS):
            estimator.fit(matrix[rows], frauds[rows].astype(np.int64))
    except Exception as error:  # a parameter that only fit() checks, most likely
        raise SettingsError(f"estimator {path}: cannot be fitted: {' '.join(str(error).split())[:300]}") from error
    return Fitted(estimator, share)

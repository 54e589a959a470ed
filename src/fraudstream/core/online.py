"""The online model as scorers see it: arrays, evaluated for a whole batch at once, and its say in the score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from fraudstream.core.learning import Policy
from fraudstream.core.windows import FloatArray

DEVIATIONS_MAX: Final = 8.0
"""How far from its mean, in standard deviations, a value counts: an amount of a million must not decide by itself."""
PROBABILITY_MIN: Final = 1e-6
"""In log-odds a score counts as at least so far from 0 and from 1: exactly there it would be infinitely sure."""


def logit(probabilities: FloatArray) -> FloatArray:
    """Log-odds; those of PROBABILITY_MIN are the smallest there are."""
    clipped = np.clip(probabilities, PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)
    found: FloatArray = np.log(clipped / (1.0 - clipped))
    return found


def logit_of(probability: float) -> float:
    """`logit` of a single one, in a fifth of the time: the learner takes one example after the other."""
    clipped = min(max(probability, PROBABILITY_MIN), 1.0 - PROBABILITY_MIN)
    return math.log(clipped / (1.0 - clipped))


@dataclass(frozen=True)
class Linear:
    """A logistic regression over `n` scaled features and, last, the champion's logit, added to the champion's logit: with
    weights and intercept 0 it is the champion.

    `means`, `scales` (one over the standard deviation, 0 for a constant) and `weights` have n + 1 entries.
    """

    means: FloatArray
    scales: FloatArray
    weights: FloatArray
    intercept: float

    @classmethod
    def of(
        cls, means: Sequence[float], variances: Sequence[float], weights: Sequence[float], intercept: float
    ) -> "Linear":
        """From what the learner keeps."""
        deviations = np.sqrt(np.array(variances))
        scales = np.divide(1.0, deviations, out=np.zeros(len(deviations)), where=deviations > 0)
        return cls(np.array(means), scales, np.array(weights), float(intercept))

    def probabilities(self, matrix: npt.NDArray[np.float32], champion: FloatArray) -> FloatArray:
        """Probability of fraud for each row of (n, features). What is no number counts as the mean."""
        inputs = np.empty((len(matrix), matrix.shape[1] + 1))
        inputs[:, :-1] = matrix
        inputs[:, -1] = offsets = logit(champion)
        inputs -= self.means
        inputs *= self.scales
        np.clip(inputs, -DEVIATIONS_MAX, DEVIATIONS_MAX, out=inputs)
        logits = inputs @ self.weights
        if not np.isfinite(logits.sum()):
            logits = np.nan_to_num(inputs, copy=False, nan=0.0) @ self.weights
        logits += offsets
        logits += self.intercept
        with np.errstate(over="ignore"):
            found: FloatArray = 1.0 / (1.0 + np.exp(-logits))
        return found


class Serving(Struct, frozen=True):
    """What a scorer needs of a snapshot. `arrays` has means, scales and weights, each per input in order;
    None where the model has no such form: then scorers load the model itself.
    """

    model_name: str
    model_version: str
    features_digest: str
    learned: int
    share: float
    intercept: float = 0.0
    arrays: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None = None

    def linear(self) -> Linear | None:
        """The model to evaluate."""
        if self.arrays is None:
            return None
        means, scales, weights = (np.array(values) for values in self.arrays)
        return Linear(means, scales, weights, self.intercept)


def decided_with(policy: Policy, champion: FloatArray, online: FloatArray, weight: float) -> FloatArray:
    """The score to decide with. `weight` is the online model's share, in [0, 1], in a blend.

    A blend mixes probabilities, so two calibrated scores stay calibrated enough for the champion's thresholds, and its
    log-loss is never more than that of the weighted parts (the logarithm is concave).
    """
    if policy == "online":
        return online
    if policy == "blend":
        return weight * online + (1.0 - weight) * champion
    return champion

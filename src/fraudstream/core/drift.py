"""Has the world moved? Counts of now against counts of the reference, with a limit that follows from the alarms one asks for.

The population stability index of two samples of one distribution is not zero: with independent transactions it is about
(1/n + 1/m) chi2(B - 1). Transactions are not independent (a card's come together, days of a week differ, frauds come in
campaigns), so the null distribution is learned: at training, days are compared with earlier weeks at the distances that
occur later, and a scaled chi2 is fitted to the mean and the variance of what was found. Where nothing could be learned
the formula alone stands.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from fraudstream.core.windows import FloatArray, IntArray

# Half a count in every bin, in both samples: an empty bin makes the index large, not infinite.
SMOOTHING: Final = 0.5
# Shifts that no decision would notice are no alarm, however sure: half of what is customarily called no change (0.1) is
# far above it, and a day of some thousand transactions comes to about 0.01 by chance.
PSI_MIN: Final = 0.02
# The null is learned from a few weeks that overlap: what it says of rare values is not certain. Twice as much keeps
# the alarms of 20 simulated months below what was asked for, and costs no kind of drift that was tried (decisions/drift.md).
LEARNED_MARGIN: Final = 2.0
# A window that moves on is looked at again and again. Looks at one that overlaps are not independent: a window worth of
# transactions counts as this many looks.
LOOKS_PER_WINDOW: Final = 4.0


# Below this many comparisons a mean and a variance say nothing.
CHUNKS_MIN: Final = 8


class Null(Struct, frozen=True):
    """What an index is without drift: mean and variance over `chunks` comparisons of chunks of `size` transactions."""

    mean: float
    variance: float
    size: float
    chunks: int


def psi(reference: IntArray, now: IntArray) -> float:
    """Population stability index of two samples in the same bins (natural logarithm).

    >>> psi(np.array([500, 500]), np.array([500, 500]))
    0.0
    """
    p, q = _smoothed(reference), _smoothed(now)
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon(reference: IntArray, now: IntArray) -> float:
    """Jensen-Shannon divergence in bits, 0 (equal) to 1 (nothing in common). Lin, IEEE Trans. Inf. Theory 37, 1991."""
    p, q = _shares(reference), _shares(now)
    middle = (p + q) / 2
    return max(0.0, (_kullback_leibler(p, middle) + _kullback_leibler(q, middle)) / 2)


def kolmogorov_smirnov(reference: IntArray, now: IntArray) -> float:
    """The largest difference of the two distribution functions at the edges of the bins: at most that of the samples."""
    return float(np.max(np.abs(np.cumsum(_shares(reference)) - np.cumsum(_shares(now)))))


def psi_limit(null: Null | None, bins: int, *, alpha: float, reference: int, now: int) -> float:
    """The index that is exceeded without drift with probability `alpha` a look.

    Parameters
    ----------
    null
        What was learned; None: independence is assumed.
    bins
        Number of bins.
    reference, now
        Transactions of the reference and of the window.
    """
    independent = (1 / max(reference, 1) + 1 / max(now, 1)) * chi2_quantile(alpha, bins - 1) if bins > 1 else 0.0
    learned = 0.0
    if null is not None and null.mean > 0 and null.variance > 0:
        # Satterthwaite: the scaled chi2 with this mean and variance. Fewer transactions than it was learned on scatter
        # more; of more of them only what is chance gets smaller, and that part is not known: the limit stays.
        scale, freedom = null.variance / (2 * null.mean), 2 * null.mean**2 / null.variance
        learned = scale * chi2_quantile(alpha, freedom) * LEARNED_MARGIN
        learned *= max(1.0, null.size / max(now, 1))
    return max(PSI_MIN, independent, learned)


def learn_null(indices: Sequence[float] | FloatArray, size: float) -> Null | None:
    """The null distribution of an index from comparisons without drift; None if there are too few to learn from."""
    values = np.asarray(indices, np.float64)
    if len(values) < CHUNKS_MIN:
        return None
    return Null(float(values.mean()), float(values.var(ddof=1)), size, len(values))


def alpha_of(alarms_per_month: float, checks: int, windows_per_month: float) -> float:
    """The probability of a false alarm each look may have, so that all checks together raise what is asked for."""
    looks = max(1.0, windows_per_month * LOOKS_PER_WINDOW)
    return min(0.05, alarms_per_month / (max(checks, 1) * looks))


def chi2_quantile(alpha: float, freedom: float) -> float:
    """The value that a chi2 of `freedom` (> 0) degrees exceeds with probability `alpha`; within 1e-6 of itself.

    By bisection over the incomplete gamma function (Abramowitz and Stegun, 6.5): no statistics library in the core.

    >>> round(chi2_quantile(0.05, 9), 3)
    16.919
    """
    low, high = 0.0, max(1.0, freedom)
    while chi2_above(high, freedom) > alpha:
        low, high = high, 2 * high
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if chi2_above(middle, freedom) > alpha else (low, middle)
    return high


def chi2_above(value: float, freedom: float) -> float:
    """The probability that a chi2 of `freedom` degrees exceeds a value."""
    a, x = freedom / 2, value / 2
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:  # series of the lower part
        term = total = 1 / a
        n = a
        while term > total * 1e-15:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - front * total)
    # Continued fraction of the upper part (Lentz).
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    fraction = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b or tiny)
        c = b + step / c or tiny
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction


def _smoothed(counts: IntArray) -> FloatArray:
    found: FloatArray = (counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts))
    return found


def _shares(counts: IntArray) -> FloatArray:
    found: FloatArray = counts / max(int(counts.sum()), 1)
    return found


def _kullback_leibler(p: FloatArray, q: FloatArray) -> float:
    some = p > 0
    return float(np.sum(p[some] * np.log2(p[some] / q[some])))

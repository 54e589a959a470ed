"""Drift figures against their definitions, and limits against what chance does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from fraudstream.core.drift import (
    LEARNED_MARGIN,
    LOOKS_PER_WINDOW,
    PSI_MIN,
    Null,
    alpha_of,
    chi2_quantile,
    jensen_shannon,
    kolmogorov_smirnov,
    learn_null,
    psi,
    psi_limit,
)


@given(alpha=st.floats(1e-9, 0.5), freedom=st.floats(0.2, 60.0))
def test_chi2_quantiles_are_scipys(alpha: float, freedom: float) -> None:
    """Within a millionth of itself, for the small tails and broken degrees of freedom that limits need."""
    assert chi2_quantile(alpha, freedom) == pytest.approx(stats.chi2.isf(alpha, freedom), rel=1e-6, abs=1e-12)


counts = st.lists(st.integers(0, 1_000), min_size=3, max_size=12).filter(lambda of: sum(of) > 0)


@given(counts, st.randoms())
def test_distances_are_zero_for_equal_samples_and_symmetric(some: list[int], random: object) -> None:
    """All three are 0 for one sample twice, above 0 for different shares, and do not care which sample is which."""
    one, other = np.array(some), np.array(some[::-1])
    for distance in (psi, jensen_shannon, kolmogorov_smirnov):
        assert distance(one, one) == pytest.approx(0.0, abs=1e-12)
        assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-12)


@given(counts)
def test_jensen_shannon_is_scipys(some: list[int]) -> None:
    """Scipy gives its square root."""
    one, other = np.array(some), np.array(some[1:] + some[:1])
    assert jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, 2) ** 2, abs=1e-9)


def test_kolmogorov_smirnov_on_bins_is_at_most_that_of_the_samples() -> None:
    """The largest difference at an edge is one of the differences of the samples."""
    random = np.random.default_rng(1)
    one, other = random.normal(size=2_000), random.normal(0.3, size=1_000)
    edges = np.quantile(one, np.arange(1, 10) / 10)
    binned = [np.bincount(np.searchsorted(edges, values), minlength=10) for values in (one, other)]
    exact = stats.ks_2samp(one, other).statistic
    assert 0.8 * exact < kolmogorov_smirnov(*binned) <= exact + 1e-12


@pytest.mark.parametrize(("reference", "now", "bins"), [(20_000, 2_000, 10), (5_000, 5_000, 4), (50_000, 1_500, 11)])
def test_without_drift_the_limit_is_passed_as_often_as_asked(reference: int, now: int, bins: int) -> None:
    """Independent samples of one distribution: of 4,000 looks at a probability of 1 %, 0.5 to 1.7 % pass the limit."""
    random = np.random.default_rng(bins)
    shares = random.dirichlet(np.full(bins, 5.0))
    limit = (1 / reference + 1 / now) * chi2_quantile(0.01, bins - 1)
    passed = np.mean([
        psi(random.multinomial(reference, shares), random.multinomial(now, shares)) > limit for _ in range(4_000)
    ])  # fmt: skip
    assert 0.005 < passed < 0.017
    alone = psi_limit(None, bins, alpha=0.01, reference=reference, now=now)
    assert alone == max(PSI_MIN, limit)


def test_a_learned_null_follows_what_was_seen() -> None:
    """Days that scatter three times as much as independent ones raise the limit, small windows raise it further."""
    random = np.random.default_rng(5)
    null = learn_null(3 * random.chisquare(9, 200) / 1_000, 1_000)
    assert null is not None
    learned = psi_limit(null, 10, alpha=1e-3, reference=10_000, now=1_000)
    assert learned == pytest.approx(LEARNED_MARGIN * 3 * stats.chi2.isf(1e-3, 9) / 1_000, rel=0.25)
    assert psi_limit(null, 10, alpha=1e-3, reference=10_000, now=500) == pytest.approx(2 * learned)
    assert psi_limit(null, 10, alpha=1e-3, reference=10_000, now=100_000) == learned
    assert psi_limit(null, 10, alpha=1e-5, reference=10_000, now=1_000) > learned


def test_too_few_comparisons_teach_nothing() -> None:
    """Seven days make no variance; and a feature that never varied falls back on independence."""
    assert learn_null([0.01] * 7, 1_000) is None
    constant = psi_limit(Null(0.01, 0.0, 1_000, 20), 10, alpha=0.01, reference=10**6, now=10**6)
    assert constant == PSI_MIN


def test_the_alarms_asked_for_are_shared_among_checks_and_looks() -> None:
    """Twice the checks or twice the looks is half the probability each; one alarm a day is one alarm a day."""
    one = alpha_of(1.0, 10, 30.0)
    assert one == pytest.approx(1.0 / (10 * 30 * LOOKS_PER_WINDOW))
    assert alpha_of(1.0, 20, 30.0) == alpha_of(1.0, 10, 60.0) == one / 2
    assert alpha_of(1_000.0, 1, 30.0) == 0.05

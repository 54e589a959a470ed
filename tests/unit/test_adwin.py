"""ADWIN over means: what it must notice, and what it must not."""

import numpy as np
import pytest

from fraudstream.core.quality import UNIT
from fraudstream.services.adwin import EXAMPLES, LossMeans, Means

STEADY = 300


def figures(count: int, mean: float, seed: int) -> list[float]:
    """Means of runs as they scatter from one to the next: by some 30 %, to the right."""
    scatter: list[float] = (mean * np.random.default_rng(seed).lognormal(0.0, 0.3, count)).tolist()
    return scatter


@pytest.mark.parametrize("usual", [0.002, 0.01, 0.4])
@pytest.mark.parametrize("times", [2.0, 0.5])
def test_a_mean_that_moved_is_told_whatever_its_size(usual: float, times: float) -> None:
    """Doubled or halved, a mean is told within 150 figures, with what it was and is."""
    means = Means("score", 1.0)
    for figure in figures(STEADY, usual, 1):
        means.update(figure)
    assert not means.check().value
    after = []
    for figure in figures(150, usual * times, 2):
        means.update(figure)
        after.append(means.check())
    told = next(check for check in after if check.value)
    assert told.message.startswith("the mean score moved from ")
    assert after[-1].values["mean"] == pytest.approx(usual * times, rel=0.15)


def test_a_mean_that_only_scatters_is_not_told() -> None:
    """Two thousand figures without drift, three times, raise nothing."""
    for seed in range(3):
        means = Means("score", 1.0)
        for figure in figures(2_000, 0.01, seed):
            means.update(figure)
        assert not means.check().value


def test_too_few_figures_say_nothing_and_zeros_do_no_harm() -> None:
    """Before it is known what is usual there is no mean, and a stream of zeros has none."""
    means = Means("score", 1.0)
    for _ in range(20):
        means.update(0.0)
    assert (means.check().value, means.check().values["mean"]) == (0.0, 0.0)


def test_losses_are_judged_by_figures_of_some_hundred_examples() -> None:
    """Losses that double are told from the tallies alone, as they grow."""
    losses = LossMeans(1.0)
    total = {"examples": 0, "loss": 0}
    moved = False
    for number, mean in enumerate([*figures(STEADY, 0.016, 3), *figures(150, 0.032, 4)]):
        total = {"examples": total["examples"] + EXAMPLES, "loss": total["loss"] + round(mean * EXAMPLES * UNIT)}
        check = losses.look(total)
        assert not (check.value and number < STEADY)
        moved = moved or bool(check.value)
    assert moved

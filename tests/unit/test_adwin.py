"""ADWIN over means: what it must notice, and what it must not."""

import msgspec
import numpy as np
import pytest

from fraudstream.core.census import SCORE_UNIT, SUMS, Counts
from fraudstream.core.quality import UNIT
from fraudstream.core.watch import TRANSACTIONS_MIN, Followed
from fraudstream.services.adwin import EXAMPLES, FIGURES_MAX, LossMeans, Means, ScoreMeans

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


def day_of(count: int, mean: float) -> Counts:
    sums = dict.fromkeys(SUMS, 0) | {"transactions": count, "score": round(count * mean * SCORE_UNIT)}
    return Counts(0, sums, {})


def test_scores_are_judged_by_whole_days() -> None:
    """A day that ended is one figure, told once; the first one may be half a day; few transactions wait for more."""
    means = ScoreMeans(1.0)
    days = {
        7: day_of(900, 0.5),
        8: day_of(1_000, 0.01),
        9: day_of(300, 0.02),
        10: day_of(0, 0.0),
        11: day_of(300, 0.04),
    }
    for last in (7, 9, 9, 11, 11):
        means.look({day: counts for day, counts in days.items() if day <= last})
    assert means.followed.figures == pytest.approx([0.01, 0.03])
    assert TRANSACTIONS_MIN == 500


def test_a_doubled_score_is_told_by_its_days_in_the_end() -> None:
    """Days scatter less than runs, and there are fewer of them: some hundred of them tell a doubling."""
    means, moved = ScoreMeans(1.0), []
    for day, figure in enumerate([*figures(150, 0.01, 5), *figures(150, 0.02, 6)]):
        if means.look({day: day_of(1_000, figure)}).value:
            moved.append(day)
    assert moved
    assert moved[0] > 150


def test_what_was_seen_goes_on_from_the_state() -> None:
    """Read back between any two figures, as by another worker or after a look that failed, it comes to the same."""
    one, followed = Means("score", 1.0), Followed()
    for figure in (*figures(STEADY, 0.01, 1), *figures(FIGURES_MAX - STEADY, 0.02, 2)):
        one.update(figure)
        again = Means("score", 1.0, msgspec.json.decode(msgspec.json.encode(followed), type=Followed))
        again.update(figure)
        followed = again.followed
        assert again.check() == one.check()
    assert one.check().value
    assert len(followed.figures) == FIGURES_MAX


def test_a_move_is_shown_until_an_alarm_tells_of_it() -> None:
    """Neither further figures nor further looks take it away."""
    means = Means("score", 1.0)
    for figure in (*figures(STEADY, 0.01, 1), *figures(150, 0.04, 2)):
        means.update(figure)
    assert means.check().value
    assert means.check().value
    means.told()
    assert not means.check().value

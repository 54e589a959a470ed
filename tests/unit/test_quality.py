"""Quality under late labels: equal to scikit-learn's at every prefix, or within the bound that is told with it."""

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, precision_score, recall_score, roc_auc_score

from fraudstream.core import quality as state
from fraudstream.core.features import DAY_MS
from fraudstream.core.quality import Judged, Key, Quality, Tallies
from fraudstream.core.quality_figures import CostMatrix, Figures, at_budget, figures
from fraudstream.models import metrics

COSTS = CostMatrix(review_cost=3.0, saved_share=0.8, lost_share=1.0, false_block_cost=10.0)
REVIEW, BLOCK = 0.5, 0.9


def judged(count: int, seed: int = 0, days: int = 3, version: str = "fraud 1") -> Judged:
    """Transactions of which one in twenty is a fraud, with a champion that ranks them well and an online model less so."""
    random = np.random.default_rng(seed)
    frauds = random.random(count) < 0.05
    logit = random.normal(-4.0, 1.5, count) + 4.0 * frauds
    noisy = logit + random.normal(0, 1.0, count)
    return Judged(
        version,
        times_ms=np.sort(random.integers(0, days * DAY_MS, count)),
        frauds=frauds,
        amounts_minor=random.integers(1, 50_000, count),
        review=np.full(count, REVIEW),
        block=np.full(count, BLOCK),
        scores={"champion": 1 / (1 + np.exp(-logit)), "online": 1 / (1 + np.exp(-noisy))},
    )


def cut(whole: Judged, start: int, stop: int) -> Judged:
    rows = slice(start, stop)
    return Judged(
        whole.version,
        *(getattr(whole, name)[rows] for name in ("times_ms", "frauds", "amounts_minor", "review", "block")),
        {name: scores[rows] for name, scores in whole.scores.items()},
    )


def told(quality: Quality, score: str = "champion", budget: int = 100) -> Figures:
    days = [tallies for _, tallies in quality.days("fraud 1", score)]
    return figures(quality.total("fraud 1", score), COSTS, days=days, budget=budget)


def of(batch: Judged) -> Quality:
    quality = Quality()
    quality.update(batch)
    return quality


# --- against scikit-learn, at every prefix -----------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["champion", "online"])
def test_exact_figures_equal_scikit_learns_at_every_prefix(score: str) -> None:
    """Log-loss, precision, recall and calibration after each example are what scikit-learn says of all so far."""
    whole, quality = judged(400), Quality()
    scores = whole.scores[score]
    for n in range(1, 401):
        quality.update(cut(whole, n - 1, n))
        found, frauds, so_far = told(quality, score), whole.frauds[:n], scores[:n]
        assert found.examples == n
        assert found.log_loss == pytest.approx(log_loss(frauds, so_far, labels=[False, True]), abs=1e-9)
        alerts = so_far >= REVIEW
        if alerts.any():
            assert found.precision == precision_score(frauds, alerts)
        if frauds.any():
            assert found.recall == recall_score(frauds, alerts)
        calibration = metrics.expected_calibration_error(frauds, so_far)
        assert found.expected_calibration_error == pytest.approx(calibration, abs=1e-9)
        assert found.mean_score == pytest.approx(so_far.mean(), abs=1e-9)


@pytest.mark.parametrize("score", ["champion", "online"])
def test_sketched_figures_are_within_their_bound_at_every_prefix(score: str) -> None:
    """ROC AUC and average precision differ from scikit-learn's by no more than the bound that is told."""
    whole, quality = judged(600, seed=1), Quality()
    for n in range(1, 601):
        quality.update(cut(whole, n - 1, n))
        frauds, so_far = whole.frauds[:n], whole.scores[score][:n]
        if not frauds.any() or frauds.all():
            continue
        found = told(quality, score)
        assert found.auc is not None
        assert found.auc_error is not None
        assert abs(found.auc - roc_auc_score(frauds, so_far)) <= found.auc_error + 1e-12
        assert found.average_precision is not None
        assert found.average_precision_error is not None
        expected = average_precision_score(frauds, so_far)
        assert abs(found.average_precision - expected) <= found.average_precision_error + 1e-12


def test_the_sketch_is_close_where_there_are_many_examples() -> None:
    """On 50,000 examples AUC is off by less than 0.0002 and average precision by less than 0.002."""
    whole = judged(50_000, seed=2)
    found = told(of(whole))
    frauds, scores = whole.frauds, whole.scores["champion"]
    assert found.auc == pytest.approx(roc_auc_score(frauds, scores), abs=2e-4)
    assert found.average_precision == pytest.approx(average_precision_score(frauds, scores), abs=2e-3)
    assert found.auc_error is not None
    assert found.auc_error < 0.006
    assert found.average_precision_error is not None
    assert found.average_precision_error < 0.02


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 1e-9, 0.01, 0.4999, 0.5, 0.501, 0.9, 0.99999, 1.0])), min_size=2
    )
)
def test_bounds_hold_for_any_scores(pairs: list[tuple[bool, float]]) -> None:
    """Scores of 0 and 1, ties, and one class only: bounds hold, and nothing is told where there is nothing to tell."""
    frauds = np.array([fraud for fraud, _ in pairs])
    scores = np.array([score for _, score in pairs])
    n = len(pairs)
    batch = Judged(
        "fraud 1", np.zeros(n, np.int64), frauds, np.ones(n, np.int64), np.full(n, REVIEW), np.full(n, BLOCK),
        {"champion": scores},
    )  # fmt: skip
    found = told(of(batch))
    if frauds.all() or not frauds.any():
        assert found.auc is None
    else:
        assert found.auc is not None
        assert found.auc_error is not None
        assert abs(found.auc - roc_auc_score(frauds, scores)) <= found.auc_error + 1e-12
    assert found.log_loss == pytest.approx(metrics.log_loss(frauds, scores), abs=1e-8)
    if frauds.any():
        assert found.average_precision is not None
        assert found.average_precision_error is not None
        expected = average_precision_score(frauds, scores)
        assert abs(found.average_precision - expected) <= found.average_precision_error + 1e-12


# --- the daily budget and money ----------------------------------------------------------------------------------------


def test_the_daily_budget_finds_what_sorting_each_day_finds() -> None:
    """Frauds among each day's 40 highest scores, within the bound; with a budget above every day's number, all."""
    whole = judged(3_000, seed=3)
    days, hits, looked = whole.times_ms // DAY_MS, 0, 0
    for day in np.unique(days):
        rows = days == day
        top = np.argsort(-whole.scores["champion"][rows])[:40]
        hits += int(whole.frauds[rows][top].sum())
        looked += len(top)
    found = told(of(whole), budget=40)
    assert found.precision_budget is not None
    assert found.precision_budget_error is not None
    assert abs(found.precision_budget - hits / looked) <= found.precision_budget_error
    assert found.precision_budget_error < 0.03
    assert found.recall_budget is not None
    assert found.recall_budget_error is not None
    assert abs(found.recall_budget - hits / whole.frauds.sum()) <= found.recall_budget_error
    assert found.recall_budget_error < 0.1
    assert told(of(whole), budget=10_000).recall_budget == 1.0


def test_recall_at_the_budget_is_that_of_the_days_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days that left the state are in the total, but nobody knows any more what a budget would have found in them."""
    monkeypatch.setattr(state, "DAYS_MAX", 2)
    quality = of(judged(3_000, seed=3, days=20))
    found = told(quality, budget=10_000)
    assert found.recall_budget == 1.0
    assert found.frauds > sum(day["frauds"] for _, day in quality.days("fraud 1", "champion"))


def test_a_budget_that_ends_inside_a_bin_takes_its_share() -> None:
    """Ten equal scores of which two are frauds: a budget of five finds one, give or take one."""
    frauds = np.array([True] * 2 + [False] * 8)
    tallies = state.tallies_of(frauds, np.full(10, 0.7), np.ones(10, np.int64), np.full(10, REVIEW), np.full(10, BLOCK))
    assert at_budget([tallies], 5) == (5, 1.0, 1.0)


def test_money_follows_the_cost_matrix() -> None:
    """A fraud alerted saves its share, one missed loses it, a review costs, and so does a legitimate one blocked."""
    frauds = np.array([True, True, True, False, False, False])
    scores = np.array([0.95, 0.6, 0.1, 0.95, 0.6, 0.1])
    amounts = np.array([10_000, 20_000, 40_000, 1_000, 1_000, 1_000])
    tallies = state.tallies_of(frauds, scores, amounts, np.full(6, REVIEW), np.full(6, BLOCK))
    found = figures(tallies, COSTS)
    assert found.money_saved == pytest.approx(0.8 * 300.0)
    assert found.money_lost == pytest.approx(400.0)
    assert found.money_spent == pytest.approx(2 * 3.0 + 1 * 10.0)
    assert (found.alerts, found.precision, found.recall) == (4, 0.5, pytest.approx(2 / 3))


# --- the state ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(cuts=st.sets(st.integers(1, 499), max_size=6))
def test_how_the_examples_were_shared_out_makes_no_difference(cuts: set[int]) -> None:
    """The same examples in other batches give the same bytes: a crash in between cannot be told from none."""
    whole, quality = judged(500), Quality()
    for start, stop in pairwise([0, *sorted(cuts), 500]):
        quality.update(cut(whole, start, stop))
    assert quality.fields() == of(whole).fields()


def test_changed_fields_bring_the_state_back() -> None:
    """The fields that changed, laid over those before: the same state, of less than a kilobyte each."""
    quality, kept = Quality(), dict[str, bytes]()
    for seed in range(3):
        quality.update(judged(200, seed, days=1 + seed))
        written, dropped = quality.changes()
        kept |= written
        assert not dropped
    assert quality.changes() == ({}, [])
    assert Quality.from_fields(kept).fields() == quality.fields()
    assert max(map(len, quality.fields().values())) < 1_000


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("x", b"y"),
        ("v|s|1", b"y"),
        ("v|s|one", b""),
        ("v|s|1", zlib.compress(b"12345678")),
        ("v|s|1", zlib.compress(b"1")),
    ],
)
def test_a_field_that_cannot_be_read_is_told_and_the_others_count(name: str, packed: bytes) -> None:
    """It is named with its fault, left out, and emptied with the next changes: damage heals, and costs one field."""
    whole = of(judged(100))
    found = Quality.from_fields(whole.fields() | {name: packed})
    assert list(found.unreadable) == [name]
    assert found.fields() == whole.fields()
    assert found.changes() == ({}, [name])


def test_scores_that_are_not_there_are_not_judged() -> None:
    """Before there is an online model its score is nan: the champion's examples count, the online model's do not."""
    batch = judged(100)
    batch.scores["online"][:60] = np.nan
    quality = of(batch)
    assert told(quality, "champion").examples == 100
    assert told(quality, "online").examples == 40


def test_old_days_and_versions_leave_and_the_total_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state has a bound: the newest days and versions are told one by one, and what leaves is named for deletion."""
    monkeypatch.setattr(state, "DAYS_MAX", 2)
    monkeypatch.setattr(state, "VERSIONS_MAX", 2)
    quality = of(judged(300, days=4))
    assert [day for day, _ in quality.days("fraud 1", "champion")] == [2, 3]
    assert quality.total("fraud 1", "champion")["examples"] == 300
    written, dropped = quality.changes()
    assert not set(written) & set(dropped)
    assert Key("fraud 1", "champion", 0).encoded() in dropped
    quality.update(judged(10, days=6, version="fraud 2"))
    quality.update(judged(10, days=7, version="fraud 3"))
    assert quality.versions() == ["fraud 3", "fraud 2"]
    _, dropped = quality.changes()
    assert Key("fraud 1", "champion", state.TOTAL).encoded() in dropped


def test_the_newest_days_can_be_asked_for_alone() -> None:
    """A rolling figure is the sum of its days."""
    quality = of(judged(300, days=4))
    days = dict(quality.days("fraud 1", "champion"))
    rolling = quality.total("fraud 1", "champion", last_days=2)
    assert rolling.vector.tolist() == (days[2].vector + days[3].vector).tolist()
    assert isinstance(rolling, Tallies)

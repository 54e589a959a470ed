"""Fraud patterns: each looks like what it is called, their sum is the fraud rate, and a model can learn them, not well."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from fraudstream_producers.columns import epoch_ms
from fraudstream_producers.frauds import PATTERN_NAMES, Frauds, GiftCards
from fraudstream_producers.settings import Settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.world import WorldSettings

WORLD = WorldSettings(cards=1_500, terminals=3_000)
MINUTE_MS = 60_000


class Columns:
    """Some days of a simulation as arrays."""

    def __init__(self, settings: Settings, count: int, first: int = 0) -> None:
        simulation = Simulation(settings)
        days = [simulation.day(day) for day in range(first, first + count)]
        self.event_ms = np.concatenate([epoch_ms(d.transactions["event_time"]) for d in days])
        self.amount = np.concatenate([d.transactions["amount"].to_numpy() for d in days])
        self.card = np.array([int(c[4:]) for d in days for c in d.transactions["card_id"].to_pylist()])
        self.terminal = np.array([int(t[4:]) for d in days for t in d.transactions["terminal_id"].to_pylist()])
        self.pattern = np.concatenate([d.pattern for d in days])
        self.is_fraud = np.concatenate([d.transactions["is_fraud"].to_numpy(zero_copy_only=False) for d in days])

    def of(self, name: str) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.pattern == PATTERN_NAMES.index(name) + 1
        return found


@pytest.fixture(scope="module")
def columns() -> Columns:
    return Columns(Settings(world=WORLD), 60)


@pytest.mark.parametrize("rate", [0.002, 0.008, 0.05])
def test_the_realised_fraud_rate_is_near_the_one_asked_for(rate: float) -> None:
    """Over 60 days the share of frauds comes within 15 % of the setting."""
    made = Columns(Settings(world=WORLD, frauds=Frauds(rate=rate)), 60)
    assert made.is_fraud.mean() == pytest.approx(rate, rel=0.15)


def test_no_fraud_rate_no_fraud() -> None:
    """With rate 0 every transaction is honest."""
    assert not Columns(Settings(world=WORLD, frauds=Frauds(rate=0.0)), 5).is_fraud.any()


def test_the_truth_is_a_pattern(columns: Columns) -> None:
    """A transaction is a fraud exactly if a pattern made it."""
    assert ((columns.pattern > 0) == columns.is_fraud).all()


def test_every_pattern_has_about_its_share(columns: Columns) -> None:
    """Each default pattern is there with its share of the frauds, within a third of it; the one for drift is not."""
    frauds = columns.is_fraud.sum()
    for name, pattern in Frauds().patterns().items():
        assert columns.of(name).sum() / frauds == pytest.approx(pattern.share_of_frauds, rel=0.35), name
    assert not columns.of("gift_cards").any()


def test_frauds_are_spread_over_all_days(columns: Columns) -> None:
    """Campaigns are running from the first day on: no day of 60 has less than a quarter of the mean."""
    day = (columns.event_ms - columns.event_ms[0]) // 86_400_000
    per_day = np.bincount(day[columns.is_fraud], minlength=60)
    assert per_day.min() > per_day.mean() / 4


def test_large_amounts_are_above_the_limit(columns: Columns) -> None:
    """Each fraud of that pattern exceeds the limit, which one in a hundred honest amounts does."""
    limit = Frauds().large_amount.limit
    assert (columns.amount[columns.of("large_amount")] >= limit).all()
    assert 0.001 < (columns.amount[~columns.is_fraud] > limit).mean() < 0.03


def test_a_compromised_terminal_strikes_for_weeks(columns: Columns) -> None:
    """At struck terminals most transactions are frauds between the first and the last one, for up to 28 days."""
    hit = columns.of("compromised_terminal")
    shares, spans = [], []
    for terminal in np.unique(columns.terminal[hit]):
        here = columns.terminal == terminal
        times = columns.event_ms[here & hit]
        between = here & (columns.event_ms >= times[0]) & (columns.event_ms <= times[-1])
        shares.append(hit[between].mean())
        spans.append((times[-1] - times[0]) / 86_400_000)
    assert np.median(shares) > 0.7
    assert np.max(spans) > 14
    assert np.median(spans) <= 28


def test_a_leaked_card_pays_multiplied_amounts_for_two_weeks(columns: Columns) -> None:
    """Frauds of leaked cards are about five times what the card spends; its other transactions go on."""
    hit = columns.of("leaked_card")
    ratios = []
    for card in np.unique(columns.card[hit]):
        honest = (columns.card == card) & ~columns.is_fraud
        if honest.sum() >= 10:
            ratios.append(np.median(columns.amount[hit & (columns.card == card)]) / np.median(columns.amount[honest]))
    assert 3 < np.median(ratios) < 8


def test_card_testing_is_many_tiny_amounts_within_minutes(columns: Columns) -> None:
    """A burst is at least six amounts of at most 3.00 by one card at one terminal within eight minutes."""
    tiny = columns.of("card_testing") & (columns.amount <= 3.0)
    pairs = {(int(c), int(t)) for c, t in zip(columns.card[tiny], columns.terminal[tiny], strict=True)}
    assert len(pairs) > 10
    for card, terminal in pairs:
        times = columns.event_ms[tiny & (columns.card == card) & (columns.terminal == terminal)]
        assert len(times) >= 6
        assert times[-1] - times[0] <= 8 * MINUTE_MS
    assert (columns.amount[columns.of("card_testing")] > 50).any()  # and somebody cashed out


def test_fast_travel_jumps_farther_than_anyone_goes() -> None:
    """The stops of a burst are within the hour, and two of them lie farther apart than an hour's drive."""
    made = Columns(Settings(world=WORLD), 30)
    positions = Simulation(Settings(world=WORLD))._world.terminals.position_km
    hit = np.flatnonzero(made.of("fast_travel"))
    farthest = []
    for card in np.unique(made.card[hit]):
        rows = hit[made.card[hit] == card]
        rows = rows[made.event_ms[rows] - made.event_ms[rows[0]] <= 60 * MINUTE_MS]
        assert len(rows) >= 2
        stops = positions[made.terminal[rows]]
        farthest.append(np.linalg.norm(stops[:, None] - stops[None], axis=2).max())
    assert np.median(farthest) > 50


def test_gift_cards_are_round_amounts_by_night() -> None:
    """The pattern kept for drift buys round amounts before six in the morning."""
    frauds = Frauds(gift_cards=GiftCards(share_of_frauds=0.5))
    made = Columns(Settings(world=WORLD, frauds=frauds), 10)
    hit = made.of("gift_cards")
    assert hit.sum() > 20
    assert (made.amount[hit] % 25 == 0).all()
    assert (made.event_ms[hit] // 3_600_000 % 24 < 6).all()


def test_frauds_can_be_learned_but_not_trivially() -> None:
    """A forest on ten simple features ranks frauds of later days well (AUC .80 to .98), and the amount alone does not."""
    columns = Columns(Settings(world=WorldSettings(cards=500, terminals=1_000), frauds=Frauds(rate=0.015)), 60)
    features = simple_features(columns)
    day = (columns.event_ms - columns.event_ms[0]) // 86_400_000
    train, test = (day >= 15) & (day < 38), day >= 45
    forest = RandomForestClassifier(30, max_depth=10, min_samples_leaf=2, n_jobs=1, random_state=0)
    forest.fit(features[train], columns.is_fraud[train])
    auc = roc_auc_score(columns.is_fraud[test], forest.predict_proba(features[test])[:, 1])
    by_amount = roc_auc_score(columns.is_fraud[test], columns.amount[test])
    assert 0.80 < auc < 0.98
    assert by_amount < auc - 0.05


def simple_features(columns: Columns) -> NDArray[np.float64]:
    """Amount, night, the card's counts and means of the last hour, day and weeks, the terminal's known frauds."""
    rows = []
    cards: dict[int, list[tuple[int, float]]] = {}
    terminals: dict[int, list[tuple[int, bool]]] = {}
    for t, card, terminal, amount, is_fraud in zip(
        columns.event_ms.tolist(),
        columns.card.tolist(),
        columns.terminal.tolist(),
        columns.amount.tolist(),
        columns.is_fraud.tolist(),
        strict=True,
    ):
        seen = [*(pair for pair in cards.get(card, []) if pair[0] > t - 20 * 1_440 * MINUTE_MS), (t, amount)]
        cards[card] = seen
        row: list[float] = [amount, t // 3_600_000 % 24 < 6]
        for window_ms in (60 * MINUTE_MS, 1_440 * MINUTE_MS, 20 * 1_440 * MINUTE_MS):
            recent = [a for at, a in seen if at > t - window_ms]
            row += [len(recent), sum(recent) / len(recent)]
        past = terminals.setdefault(terminal, [])
        known = [f for at, f in past if t - 28 * 1_440 * MINUTE_MS < at <= t - 7 * 1_440 * MINUTE_MS]
        row += [len(known), sum(known) / len(known) if known else 0.0]
        past.append((t, is_fraud))
        rows.append(row)
    return np.array(rows, float)

"""The simulated world: the same for a seed however it is asked, and like card traffic to look at."""

import datetime as dt
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from fraudstream_producers.columns import LABELS, TRANSACTIONS, epoch_ms, numbered
from fraudstream_producers.errors import UsageError
from fraudstream_producers.settings import Settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.world import World, WorldSettings

SMALL = Settings(world=WorldSettings(cards=400, terminals=900))


def days(simulation: Simulation, first: int, last: int) -> pa.Table:
    return pa.concat_tables([simulation.day(day).transactions for day in range(first, last)])


def test_a_day_does_not_depend_on_what_was_asked_before() -> None:
    """Days made in order, alone, and in another order by another instance are equal, and so are their labels."""
    in_order = [Simulation(SMALL).day(day) for day in range(6)]
    other = Simulation(SMALL)
    for number in (5, 0, 3):
        again = other.day(number)
        assert again.transactions.equals(in_order[number].transactions)
        assert again.labels().equals(in_order[number].labels())


def test_another_seed_is_another_world() -> None:
    """Two seeds share neither amounts nor times."""
    one, two = (Simulation(Settings(seed=seed, world=SMALL.world)).day(0).transactions for seed in (1, 2))
    assert not set(one["event_time"].to_pylist()) & set(two["event_time"].to_pylist())


def test_transactions_are_in_event_time_order_with_unique_ids() -> None:
    """Over days, no transaction is earlier than the one before, each day stays within its midnights, no id repeats."""
    simulation = Simulation(SMALL)
    table = days(simulation, 0, 10)
    event_ms = epoch_ms(table["event_time"])
    assert table.schema == TRANSACTIONS
    assert (np.diff(event_ms) >= 0).all()
    assert event_ms[0] >= simulation.day_start_ms(0)
    assert event_ms[-1] < simulation.day_start_ms(10)
    assert len(set(table["transaction_id"].to_pylist())) == len(table)


def test_ids_of_transactions_say_nothing_about_fraud() -> None:
    """Ids number the transactions of a day in event-time order, honest and fraudulent alike."""
    table = Simulation(SMALL).day(3).transactions
    assert table["transaction_id"].to_pylist() == [f"s7-00003-{row:07d}" for row in range(len(table))]


def test_amounts_have_two_decimals_and_are_positive() -> None:
    """An amount is a whole number of cents, at least one."""
    minor = days(Simulation(SMALL), 0, 5)["amount"].to_numpy() * 100
    assert (minor > 0.5).all()
    assert np.allclose(minor, np.rint(minor), atol=1e-6)


def test_traffic_has_the_rhythm_of_a_day() -> None:
    """The four busiest hours lie in the afternoon and carry several times as much as the four quietest, at night."""
    event_ms = epoch_ms(days(Simulation(SMALL), 0, 14)["event_time"])
    by_hour = np.bincount(event_ms // 3_600_000 % 24, minlength=24)
    busiest = set(np.argsort(by_hour)[-4:].tolist())
    quietest = set(np.argsort(by_hour)[:4].tolist())
    assert busiest <= set(range(11, 19))
    assert quietest <= {22, 23, 0, 1, 2, 3, 4, 5}
    assert sum(by_hour[list(busiest)]) > 5 * sum(by_hour[list(quietest)])


def test_each_card_has_its_own_level_of_amounts() -> None:
    """What a card spent in the first half tells what it spends in the second (correlation of medians above 0.6)."""
    simulation = Simulation(SMALL)
    medians = []
    for table in (days(simulation, 0, 20), days(simulation, 20, 40)):
        honest = table.filter(pa.array(~table["is_fraud"].to_numpy(zero_copy_only=False)))
        card = np.array([int(name[4:]) for name in honest["card_id"].to_pylist()])
        amount = honest["amount"].to_numpy()
        medians.append([np.median(amount[card == c]) if (card == c).sum() >= 10 else np.nan for c in range(400)])
    both = ~np.isnan(medians).any(axis=0)
    first, second = (np.log(np.array(m)[both]) for m in medians)
    assert both.sum() > 200
    assert np.corrcoef(first, second)[0, 1] > 0.6


def test_cards_keep_to_terminals_near_their_home() -> None:
    """Most honest purchases are within five radii of home, and a card's favourite takes a good part of them."""
    world = World(7, WorldSettings(cards=300, terminals=3_000))
    traffic = world.traffic(0, dt.date(2025, 1, 1))
    for day in range(1, 20):
        more = world.traffic(day, dt.date(2025, 1, 1))
        traffic = type(traffic).concatenated([traffic, more])
    distance = np.linalg.norm(world.terminals.position_km[traffic.terminal] - world.cards.home_km[traffic.card], axis=1)
    assert np.mean(distance < 5 * world.cards.radius_km[traffic.card]) > 0.8
    busiest = int(np.argmax(np.bincount(traffic.card)))
    counts = Counter(traffic.terminal[traffic.card == busiest].tolist())
    assert counts.most_common(1)[0][1] > 0.12 * counts.total()


def test_the_mean_number_of_transactions_is_as_asked() -> None:
    """Transactions per card and day come within 5 % of the setting, over whole weeks."""
    world = WorldSettings(cards=2_000, terminals=2_000, transactions_per_card_day=1.5)
    simulation = Simulation(Settings(world=world))
    rows = sum(len(simulation.day(day).pattern) for day in range(14))
    assert rows / (14 * 2_000) == pytest.approx(1.5, rel=0.05)


def test_a_world_of_one_card_and_one_terminal_works() -> None:
    """The smallest world there is makes traffic without an error."""
    table = days(Simulation(Settings(world=WorldSettings(cards=1, terminals=1))), 0, 30)
    assert set(table["terminal_id"].to_pylist()) <= {"term0000000"}
    assert set(table["card_id"].to_pylist()) == {"card0000000"}


def test_a_part_of_a_day_keeps_the_labels_of_the_day() -> None:
    """The labels of rows 100 to 200 are those that the whole day has for them."""
    day = Simulation(SMALL).day(2)
    part = day.part(100, 200).part(50, 100)
    ids = part.transactions["transaction_id"].to_pylist()
    whole = {row["transaction_id"]: row for row in day.labels().to_pylist()}
    assert len(ids) == 50
    assert part.labels().schema == LABELS
    assert part.labels().to_pylist() == [whole[name] for name in ids]


def test_numbered_ids_have_leading_zeros_and_a_limit() -> None:
    """Numbers become fixed-width text; one that does not fit is an error, not a shorter id."""
    assert numbered("a-", np.array([0, 42, 999]), 3).to_pylist() == ["a-000", "a-042", "a-999"]
    with pytest.raises(UsageError, match="3 digits"):
        numbered("a-", np.array([1000]), 3)

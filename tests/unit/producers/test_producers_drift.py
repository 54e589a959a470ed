"""Drift on a schedule: nothing before the day, the new world from that day on."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fraudstream_producers.drift import (
    AmountScale,
    Drift,
    NewPattern,
    RenumberTerminals,
    amount_factor,
    parse_drift,
    shares_on,
    terminal_numbers,
)
from fraudstream_producers.errors import UsageError
from fraudstream_producers.frauds import PATTERN_NAMES, Frauds
from fraudstream_producers.settings import Settings, checked, load_settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.world import WorldSettings

BASE = Settings(world=WorldSettings(cards=800, terminals=1_500))


def drifting(*drift: Drift) -> Simulation:
    return Simulation(msgspec.structs.replace(BASE, drift=drift))


@pytest.mark.parametrize(
    "drift", [AmountScale(day=5, factor=1.5), NewPattern(day=5), RenumberTerminals(day=5), NewPattern(day=5, share=1.0)]
)
def test_nothing_changes_before_the_day(drift: Drift) -> None:
    """Up to the day before a drift, the transactions are those of the same world without it; then they differ."""
    calm, changing = Simulation(BASE), drifting(drift)
    assert changing.day(4).transactions.equals(calm.day(4).transactions)
    assert not changing.day(5).transactions.equals(calm.day(5).transactions)


def test_amounts_are_scaled_from_the_day_on() -> None:
    """Each amount is the undrifted one times the factor, to the cent."""
    calm = Simulation(BASE).day(6).transactions["amount"].to_numpy()
    scaled = drifting(AmountScale(day=6, factor=1.5)).day(6).transactions["amount"].to_numpy()
    assert np.abs(scaled - 1.5 * calm).max() < 0.0126


def test_a_new_pattern_takes_its_share_and_leaves_the_rate() -> None:
    """Half of the frauds are of the new pattern once old campaigns have ended, and the fraud rate stays."""
    drift = (NewPattern(day=3, name="gift_cards", share=0.5),)
    simulation = Simulation(msgspec.structs.replace(BASE, frauds=Frauds(rate=0.04), drift=drift))
    new = PATTERN_NAMES.index("gift_cards") + 1
    assert not any((simulation.day(day).pattern == new).any() for day in range(3))
    after = np.concatenate([simulation.day(day).pattern for day in range(33, 73)])
    frauds = after[after > 0]
    assert (frauds == new).mean() == pytest.approx(0.5, rel=0.1)
    assert len(frauds) / len(after) == pytest.approx(0.04, rel=0.1)


def test_renumbered_terminals_are_the_same_places_under_new_ids() -> None:
    """From the day on no id is known, and the mapping of old to new ids is one to one."""
    before = Simulation(BASE).day(9).transactions["terminal_id"].to_pylist()
    after = drifting(RenumberTerminals(day=9)).day(9).transactions["terminal_id"].to_pylist()
    pairs = set(zip(before, after, strict=True))
    assert not set(before) & set(after)
    assert len(pairs) == len(set(before)) == len(set(after))


def test_a_share_of_the_terminals_can_be_renumbered() -> None:
    """With share 0.3 about three in ten terminals change, and ids given up are not used again by a second change."""
    first, second = RenumberTerminals(day=1, share=0.3), RenumberTerminals(day=2, share=1.0)
    numbers = [terminal_numbers(day, 2_000, 7, (first, second)) for day in range(3)]
    assert (numbers[0] == np.arange(2_000)).all()
    assert (numbers[1] != numbers[0]).mean() == pytest.approx(0.3, abs=0.05)
    assert not set(numbers[2]) & (set(numbers[0]) | set(numbers[1]))
    assert len(set(numbers[1])) == len(set(numbers[2])) == 2_000


def test_several_drifts_add_up() -> None:
    """Factors multiply as they begin; shares always sum to one."""
    drift = (AmountScale(day=1, factor=2.0), AmountScale(day=3, factor=0.25), NewPattern(day=2), NewPattern(day=3))
    assert [amount_factor(day, drift) for day in range(4)] == [1.0, 2.0, 2.0, 0.5]
    weights = {name: pattern.share_of_frauds for name, pattern in Frauds().patterns().items()}
    for day in range(4):
        assert sum(shares_on(day, weights, drift).values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("amount:30:1.5", AmountScale(day=30, factor=1.5)),
        ("pattern:30", NewPattern(day=30)),
        ("pattern:30:fast_travel:0.25", NewPattern(day=30, name="fast_travel", share=0.25)),
        ("terminals:45", RenumberTerminals(day=45)),
        ("terminals:45:0.5", RenumberTerminals(day=45, share=0.5)),
    ],
)
def test_short_forms_are_read(spec: str, expected: Drift) -> None:
    """The short form of the command line means the same as the table of the settings file."""
    assert parse_drift(spec) == expected


@pytest.mark.parametrize("spec", ["", "amount", "amount:30", "amount:x:2", "terminals:1:2:3", "weather:3"])
def test_unreadable_short_forms_are_refused(spec: str) -> None:
    """A text of no known form names the forms there are."""
    with pytest.raises(UsageError, match="amount:DAY:FACTOR"):
        parse_drift(spec)


def test_a_pattern_that_does_not_exist_is_refused() -> None:
    """The error names the patterns that do exist."""
    with pytest.raises(UsageError, match="gift_cards"):
        checked(msgspec.structs.replace(BASE, drift=(NewPattern(day=0, name="telepathy"),)))


def test_settings_are_read_from_toml(tmp_path: Path) -> None:
    """A TOML file sets any field; what it does not name keeps its default."""
    path = tmp_path / "world.toml"
    path.write_text(
        """
        seed = 3
        start = 2024-06-01
        [world]
        cards = 10
        [frauds]
        rate = 0.02
        [frauds.leaked_card]
        multiplier = 3.0
        [labels]
        delay = "gamma"
        [[drift]]
        kind = "amount"
        day = 30
        factor = 1.5
        [[drift]]
        kind = "terminals"
        day = 40
        """,
        encoding="utf-8",
    )
    settings = load_settings(path)
    assert (settings.seed, settings.start.isoformat(), settings.world.cards) == (3, "2024-06-01", 10)
    assert (settings.frauds.leaked_card.multiplier, settings.frauds.leaked_card.days) == (3.0, 14)
    assert settings.drift == (AmountScale(day=30, factor=1.5), RenumberTerminals(day=40))
    assert checked(settings) == settings


@pytest.mark.parametrize(
    "text", ["seed = -1", "[world]\ncardss = 3", "[frauds]\nrate = 0.9", "[[drift]]\nkind = 'x'", "seed =", "\x00"]
)
def test_wrong_settings_are_one_clear_error(tmp_path: Path, text: str) -> None:
    """A wrong value, an unknown field and a broken file are errors that name the file."""
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"wrong\.toml"):
        load_settings(path)

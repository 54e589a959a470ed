"""Feature lists: every fault is told with the entry it is in and what to do about it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fraudstream.core import spec as specs
from fraudstream.core.features import FeatureSet
from fraudstream.errors import SettingsError

GOOD: dict[str, Any] = {
    "entities": {"card": "card_id", "terminal": "terminal_id", "shop": "shop"},
    "windows": {
        "d1": {"length": "1d", "hop": "6h"},
        "late": {"length": "7d", "hop": "1d", "delay": "7d"},
    },
    "features": {
        "amount": {"field": "amount"},
        "night": {"calendar": "night"},
        "mean": {"entity": "card", "aggregate": "mean", "window": "d1"},
        "std": {"entity": "card", "aggregate": "std", "window": "d1"},
        "ratio": {"ratio": ["amount", "mean"]},
        "z": {"deviation": ["amount", "mean", "std"]},
        "frauds": {"entity": "terminal", "aggregate": "frauds", "window": "late"},
    },
    "calendar": {"utc_offset": "+02:00"},
}

# path into the document, what stands there instead, what the message says
FAULTS: list[tuple[str, Any, str]] = [
    ("features", {}, "0 features: declare between 1 and 128"),
    ("features", {f"f{n}": {"field": "amount"} for n in range(129)}, "129 features: declare between 1 and 128"),
    ("feature", {"a": {"field": "amount"}}, "a list has the tables entities, windows, features and calendar"),
    ("entities", ["card"], r"entities.*a list has the tables entities, windows, features and calendar"),
    ("entities.Card", "card_id", "entity 'Card': a name has lower case letters, digits and _"),
    ("windows.1d", {"length": "1d", "hop": "1h"}, "window '1d': a name has .* begins with a letter"),
    ("features.é", {"field": "amount"}, "feature 'é': a name has lower case letters, digits and _"),
    ("features." + "x" * 65, {"field": "amount"}, "at most 64 long"),
    ("entities.card", 3, 'entity card: name the field that is its key, such as "card_id"'),
    ("entities.card", "", 'entity card: name the field that is its key, such as "card_id"'),
    ("entities.card", "amount", "entity card: amount is no key with a history; use card_id or terminal_id or another"),
    ("entities.card", "event_time", "entity card: event_time is no key"),
    ("calendar.utc_offset", "02:00", "calendar: utc_offset '02:00' is not of the form \\+02:00"),
    ("calendar.utc_offset", "+15:00", "calendar: utc_offset '\\+15:00' is not of the form"),
    ("calendar.utc_offset", 2, r"calendar: Expected `str`, got `int` - at `\$.utc_offset`"),
    ("calendar.zone", "Paris", "calendar: Object contains unknown field `zone`"),
    ("windows.d1", "1d", "window d1: Expected `object`, got `str`"),
    ("windows.d1", {"length": "1d"}, "window d1: Object missing required field `hop`"),
    ("windows.d1.size", 3, "window d1: Object contains unknown field `size`"),
    ("windows.d1.length", 7, r"window d1: Expected `str`, got `int` - at `\$.length`"),
    (
        "windows.d1.length",
        "7 days",
        "window d1: '7 days' is not a duration: write a number and one of s, m, h, d, such as 7d",
    ),
    ("windows.d1.hop", "", "window d1: '' is not a duration"),
    ("windows.late.delay", "-1d", "window late: '-1d' is not a duration"),
    ("windows.d1.hop", "0s", "window d1: length and hop must be longer than nothing"),
    ("windows.d1.length", "0d", "window d1: length and hop must be longer than nothing"),
    ("windows.d1.hop", "7h", r"window d1: length and delay must be whole numbers of hops \(7h\)"),
    ("windows.late.delay", "36h", r"window late: length and delay must be whole numbers of hops \(1d\)"),
    ("features.mean", 3, "feature mean: Expected `object`, got `int`"),
    ("features.mean.windows", "d1", "feature mean: Object contains unknown field `windows`"),
    ("features.ratio.ratio", ["amount"], r"feature ratio: Expected `array` of length 2, got 1 - at `\$.ratio`"),
    ("features.score", {"field": "score"}, "feature score: the name is taken by the model's own score; use another"),
    ("features.champion_logit", {"field": "x"}, "feature champion_logit: the name is taken by the model's own score"),
    ("features.mean", {}, "feature mean: declare exactly one of field, calendar, aggregate, ratio, deviation"),
    ("features.mean.field", "amount", "feature mean: declare exactly one of field, calendar, aggregate"),
    ("features.amount.field", "currency", "feature amount: currency is not a number; use amount or a numeric field"),
    ("features.night.calendar", "noon", "feature night: calendar is one of hour, weekend, night"),
    ("features.ratio.ratio", ["amount", "z"], "feature ratio: 'z' is not declared above it"),
    ("features.z.deviation", ["amount", "mean", "z"], "feature z: 'z' is not declared above it"),
    ("features.amount.window", "d1", "feature amount: entity, window and before go with an aggregate"),
    ("features.amount.entity", "card", "feature amount: entity, window and before go with an aggregate"),
    ("features.night.before", True, "feature night: entity, window and before go with an aggregate"),
    ("features.mean.entity", "cart", "feature mean: entity 'cart' is not declared"),
    ("features.mean.entity", "", "feature mean: entity '' is not declared"),
    ("features.mean.aggregate", "median", "feature mean: aggregate is one of count, sum, .*, seconds_since_last"),
    ("features.mean.window", "d2", "feature mean: window 'd2' is not declared"),
    ("features.mean.aggregate", "seconds_since_last", "feature mean: seconds_since_last takes no window and no before"),
    ("features.frauds.window", "d1", "feature frauds: a fraud window needs a delay as long as the labels are late"),
    # what only compiling can tell
    ("features.frauds.entity", "shop", "entity shop: fraud windows work only on card_id and terminal_id"),
    (
        "features.mean",
        {"entity": "terminal", "aggregate": "max", "window": "d1"},
        "entity terminal: max and seconds_since_last work only for an entity on card_id without fraud windows",
    ),
    (
        "features.mean",
        {"entity": "shop", "aggregate": "seconds_since_last"},
        "entity shop: max and seconds_since_last work only for an entity on card_id without fraud windows",
    ),
    (
        "windows.d1.hop",
        "1m",
        "entity card: its windows need [0-9]+ bytes a key, above the limit of 4096; use longer hops",
    ),
    ("windows.d1", {"length": "999999d", "hop": "1s"}, "entity card: its windows need [0-9]+ bytes a key"),
]


def changed(path: str, value: Any) -> dict[str, Any]:
    document = deepcopy(GOOD)
    *folders, last = path.split(".")
    place = document
    for folder in folders:
        place = place[folder]
    place[last] = value
    if path == "features.mean":  # the features below it would be the first to complain
        for name in ("ratio", "z"):
            del document["features"][name]
    return document


def test_a_good_list_compiles() -> None:
    """The list that the faults are put into has none itself."""
    features = FeatureSet(specs.parse(GOOD))
    assert features.names == tuple(GOOD["features"])
    assert [(e.name, e.owned) for e in features.entities] == [("card", True), ("terminal", False)]


@pytest.mark.parametrize(
    ("path", "value", "message"), FAULTS, ids=[f"{path}={value!r}"[:60] for path, value, _ in FAULTS]
)
def test_a_fault_is_told_with_its_entry_and_what_to_do(path: str, value: Any, message: str) -> None:
    """Each fault raises a SettingsError of one line that names the entry."""
    with pytest.raises(SettingsError, match=message) as raised:
        FeatureSet(specs.parse(changed(path, value)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("90s", 90_000), ("15m", 900_000), ("6h", 21_600_000), ("30d", 2_592_000_000), ("0s", 0)]
)
def test_durations(text: str, milliseconds: int) -> None:
    """A number and one of s, m, h, d."""
    assert specs.duration_ms(text) == milliseconds


def test_a_text_that_is_not_toml_is_told(tmp_path: Path) -> None:
    """A syntax error is told with its line, and with the file if it came from one."""
    with pytest.raises(SettingsError, match=r"^not TOML: .*at line 2"):
        FeatureSet.parse("[features]\namount = nothing\n")
    path = tmp_path / "my-features.toml"
    path.write_text("features = {")
    with pytest.raises(SettingsError, match=r"^feature list .*my-features.toml: not TOML"):
        FeatureSet.load(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A missing file is named; without a path the list that ships is read."""
    with pytest.raises(SettingsError, match=r"^feature list .*nothing.toml: No such file"):
        FeatureSet.load(tmp_path / "nothing.toml")
    assert FeatureSet.load(None).digest == FeatureSet.default().digest


def test_the_digest_covers_every_number_and_no_text() -> None:
    """Texts for people may change under a model; whatever changes a number, or the order of columns, changes the digest."""
    digest = FeatureSet(specs.parse(GOOD)).digest
    assert FeatureSet(specs.parse(changed("features.amount.text", "how much"))).digest == digest
    for path, value in [
        ("windows.d1.hop", "3h"),
        ("calendar.utc_offset", "+03:00"),
        ("features.mean.before", True),
        ("features.z.deviation", ["mean", "amount", "std"]),
        ("entities.terminal", "card_id"),
        ("features", dict(reversed(list(GOOD["features"].items())[:2]))),
    ]:
        assert FeatureSet(specs.parse(changed(path, value))).digest != digest, path


def test_rows_are_named_by_what_decides_their_bytes() -> None:
    """Two lists that keep the same windows of an entity share its rows; other windows make rows of their own."""
    card, terminal = FeatureSet(specs.parse(GOOD)).entities
    other = FeatureSet(specs.parse(changed("features.extra", {"entity": "card", "aggregate": "sum", "window": "d1"})))
    assert [entity.state_digest for entity in other.entities] == [card.state_digest, terminal.state_digest]
    wider = FeatureSet(specs.parse(changed("features.extra", {"entity": "card", "aggregate": "sum", "window": "late"})))
    assert wider.entities[0].state_digest != card.state_digest
    assert wider.entities[1].state_digest == terminal.state_digest


def test_an_entity_that_no_feature_uses_keeps_nothing() -> None:
    """A declared entity without features has no rows and is never asked for."""
    assert "shop" not in [entity.name for entity in FeatureSet(specs.parse(GOOD)).entities]


def test_a_list_may_have_no_windows_at_all() -> None:
    """Tables that are not needed may be left out."""
    features = FeatureSet.parse("features.amount = { field = 'amount' }")
    assert (features.entities, features.horizon_ms, features.labels_delay_ms) == ((), 0, None)


def test_the_default_list_needs_labels_within_a_week() -> None:
    """The shortest delay of a fraud window says how late labels may be."""
    assert FeatureSet.default().labels_delay_ms == 7 * 86_400_000

"""The declaration of a feature list: what a TOML document may say, checked, with a clear word for each fault."""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from fraudstream.errors import SettingsError

TOPIC_KEY_FIELD: Final = "card_id"  # the key of the transactions topic: one card's records lie in one partition
# A label names a transaction; of that, the stored decision still knows these two.
FRAUD_FIELDS: Final = ("card_id", "terminal_id")
SECONDS_SINCE_LAST: Final = "seconds_since_last"
AGGREGATES: Final = ("count", "sum", "mean", "max", "std", "frauds", "fraud_share")
CALENDAR: Final = ("hour", "weekend", "night")
# "Never seen" and "not seen for a month" are the same to a card model, and a bounded number keeps trees and scalers sane.
IDLE_CAP_MS: Final = 30 * 86_400_000
KEY_LENGTH_MAX: Final = 128
# A matrix of this many float32 columns and the stored decision stay small (README of the state: 4 bytes each).
FEATURES_MAX: Final = 128
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Fields of a transaction that are no key with a history, and those that are no number.
_NO_KEYS: Final = ("transaction_id", "event_time", "amount")
_NO_NUMBERS: Final = ("transaction_id", "event_time", "card_id", "terminal_id", "currency")
# What stands beside the features, so that none can be called so: the score where drift is told, and the one input of the
# online model that is no feature, what the champion says in log-odds.
SCORE_TOLD: Final = "score"
CHAMPION_LOGIT: Final = "champion_logit"
E = TypeVar("E", bound=Struct)


class Window(Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of time before a transaction, in whole hops."""

    length: str
    hop: str
    delay: str = "0s"

    @property
    def hop_ms(self) -> int:
        return duration_ms(self.hop)

    @property
    def delay_ms(self) -> int:
        return duration_ms(self.delay)

    @property
    def tiles_back(self) -> tuple[int, int]:
        """The tiles it covers, counted back from the transaction's own: start (included), stop (excluded)."""
        tiles, delay = duration_ms(self.length) // self.hop_ms, self.delay_ms // self.hop_ms
        return (delay + 1, delay + 1 + tiles) if delay else (0, tiles)


class Calendar(Struct, frozen=True, forbid_unknown_fields=True):
    """The clock on the wall of the card holders, and how far behind it a transaction may come.

    `lateness`: a transaction whose event time lies up to this much before the newest of its card or terminal still finds its
    windows whole. Partitions of a backlog are not read in step, so a terminal's transactions do not come in order.
    """

    utc_offset: str = "+00:00"
    lateness: str = "0s"

    @property
    def utc_offset_ms(self) -> int:
        sign = -1 if self.utc_offset[0] == "-" else 1
        hours, minutes = self.utc_offset[1:].split(":")
        return sign * (int(hours) * 60 + int(minutes)) * 60_000

    @property
    def lateness_ms(self) -> int:
        return duration_ms(self.lateness)


class Feature(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One column: a field, a calendar value, an aggregate over an entity's window, or a ratio or deviation of these."""

    field: str = ""
    calendar: str = ""
    entity: str = ""
    aggregate: str = ""
    window: str = ""
    before: bool = False  # the window as it was before this transaction
    ratio: tuple[str, str] | None = None
    deviation: tuple[str, str, str] | None = None
    text: str = ""

    @property
    def reads_frauds(self) -> bool:
        return self.aggregate in ("frauds", "fraud_share")


class FeatureList(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole document."""

    entities: dict[str, str]
    windows: dict[str, Window]
    features: dict[str, Feature]
    calendar: Calendar

    def canonical(self) -> Any:
        """What the digest covers: everything that changes a number, in order; not the texts."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        for feature in built["features"].values():
            feature.pop("text", None)
        return {key: list(value.items()) for key, value in built.items()}


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    """The tables of a document, their entries not yet looked at."""

    features: dict[str, Any]
    entities: dict[str, Any] = {}
    windows: dict[str, Any] = {}
    calendar: dict[str, Any] = {}


def duration_ms(text: str) -> int:
    """`"90s"`, `"15m"`, `"6h"`, `"30d"` in milliseconds. Raises `SettingsError` for anything else."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not match:
        raise SettingsError(f"{text!r} is not a duration: write a number and one of s, m, h, d, such as 7d")
    return int(match[1]) * _UNITS_MS[match[2]]


def parse(document: Mapping[str, Any]) -> FeatureList:
    """Check a document. Raises `SettingsError` that names the entry and what is wrong with it."""
    try:
        tables = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{error}: a list has the tables entities, windows, features and calendar") from error
    if not 0 < len(tables.features) <= FEATURES_MAX:
        raise SettingsError(f"{len(tables.features)} features: declare between 1 and {FEATURES_MAX}")
    for kind, names in (("entity", tables.entities), ("window", tables.windows), ("feature", tables.features)):
        for name in names:
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"{kind} {name!r}: a name has lower case letters, digits and _, begins with a letter and is at most "
                    "64 long"
                )
    declared = FeatureList(
        entities={name: _entity(name, source) for name, source in tables.entities.items()},
        windows={name: _entry(f"window {name}", entry, Window) for name, entry in tables.windows.items()},
        features={name: _entry(f"feature {name}", entry, Feature) for name, entry in tables.features.items()},
        calendar=_entry("calendar", tables.calendar, Calendar),
    )
    if not re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", declared.calendar.utc_offset):
        raise SettingsError(f"calendar: utc_offset {declared.calendar.utc_offset!r} is not of the form +02:00")
    try:
        duration_ms(declared.calendar.lateness)
    except SettingsError as error:
        raise SettingsError(f"calendar: lateness {error}") from error
    for name, window in declared.windows.items():
        _check_window(name, window)
    for at, (name, feature) in enumerate(declared.features.items()):
        _check_feature(name, feature, declared, set(list(declared.features)[:at]))
    return declared


def _entry(place: str, entry: Any, kind: type[E]) -> E:
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{place}: {error}") from error


def _entity(name: str, source: Any) -> str:
    if not isinstance(source, str) or not source:
        raise SettingsError(f'entity {name}: name the field that is its key, such as "{TOPIC_KEY_FIELD}"')
    if source in _NO_KEYS:
        raise SettingsError(
            f"entity {name}: {source} is no key with a history; use {' or '.join(FRAUD_FIELDS)} or another"
        )
    return source


def _check_window(name: str, window: Window) -> None:
    try:
        length, hop, delay = duration_ms(window.length), window.hop_ms, window.delay_ms
    except SettingsError as error:
        raise SettingsError(f"window {name}: {error}") from error
    if hop <= 0 or length <= 0:
        raise SettingsError(f"window {name}: length and hop must be longer than nothing")
    if length % hop or delay % hop:
        raise SettingsError(f"window {name}: length and delay must be whole numbers of hops ({window.hop})")


def _check_feature(name: str, feature: Feature, declared: FeatureList, before: set[str]) -> None:
    def wrong(what: str) -> SettingsError:
        return SettingsError(f"feature {name}: {what}")

    if name in (SCORE_TOLD, CHAMPION_LOGIT):
        raise wrong("the name is taken by the model's own score; use another")
    kinds = [k for k in ("field", "calendar", "aggregate", "ratio", "deviation") if getattr(feature, k)]
    if len(kinds) != 1:
        raise wrong("declare exactly one of field, calendar, aggregate, ratio, deviation")
    if feature.field in _NO_NUMBERS:
        raise wrong(f"{feature.field} is not a number; use amount or a numeric field of your own")
    if feature.calendar and feature.calendar not in CALENDAR:
        raise wrong(f"calendar is one of {', '.join(CALENDAR)}")
    for other in (*(feature.ratio or ()), *(feature.deviation or ())):
        if other not in before:
            raise wrong(f"{other!r} is not declared above it")
    if feature.aggregate:
        fault = _aggregate_fault(feature, declared)
        if fault:
            raise wrong(fault)
    elif feature.entity or feature.window or feature.before:
        raise wrong("entity, window and before go with an aggregate")


def _aggregate_fault(feature: Feature, declared: FeatureList) -> str | None:
    if feature.entity not in declared.entities:
        return f"entity {feature.entity!r} is not declared"
    if feature.aggregate == SECONDS_SINCE_LAST:
        return f"{SECONDS_SINCE_LAST} takes no window and no before" if feature.window or feature.before else None
    if feature.aggregate not in AGGREGATES:
        return f"aggregate is one of {', '.join((*AGGREGATES, SECONDS_SINCE_LAST))}"
    if feature.window not in declared.windows:
        return f"window {feature.window!r} is not declared"
    if feature.reads_frauds and not declared.windows[feature.window].delay_ms:
        return "a fraud window needs a delay as long as the labels are late, or it would look into the future"
    return None

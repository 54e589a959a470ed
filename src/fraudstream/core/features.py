"""The feature list: declared in TOML, compiled once, computed for a whole batch at once.

Training, backtest and the live worker all call `FeatureSet.observe` and `FeatureSet.matrix`: there is no second
implementation to disagree with. The digest of the list travels with every model; a model meets only the list it was
trained on.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudstream.core import spec as specs
from fraudstream.core.layout import COUNT, FRAUDS, MAXIMUM, ROW_BYTES_MAX, SQUARES, SUM, Layout, Read, Ring
from fraudstream.core.windows import FloatArray, IntArray, Observed, States, observe
from fraudstream.errors import SettingsError
from fraudstream.events import Transaction

DAY_MS: Final = 86_400_000
# A Python float, which compares with an integer of any size.
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
# The columns of the window rows that an aggregate is computed from.
_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "count": (COUNT,),
    "sum": (SUM,),
    "mean": (COUNT, SUM),
    "max": (MAXIMUM,),
    "std": (COUNT, SUM, SQUARES),
    "frauds": (FRAUDS,),
    "fraud_share": (COUNT, FRAUDS),
}
# Without these a record is no transaction.
_ALWAYS_THERE: Final = ("card_id", "terminal_id")
_STORAGE_ORDER: Final = (SUM, SQUARES, MAXIMUM, COUNT, FRAUDS)


@dataclass(frozen=True)
class Columns:
    """A batch of `n` transactions, column by column.

    `amounts` in major units, `amounts_minor` in hundredths; `keys` holds for every entity the `n` key values (None
    where the transaction has none: it then has no history); `numbers` the numeric extra fields the list asks for.
    """

    times_ms: IntArray
    amounts: FloatArray
    amounts_minor: IntArray
    keys: Mapping[str, Sequence[str | None]]
    numbers: Mapping[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times_ms)


@dataclass(frozen=True)
class Entity:
    """One kind of key with history. `owned`: all its records lie in one Kafka partition, so one worker writes it."""

    name: str
    field: str
    owned: bool
    layout: Layout

    @cached_property
    def state_digest(self) -> str:
        """Names the rows of this entity: they are readable by any feature list that asks for the same windows."""
        told = json.dumps([self.name, self.field, self.owned, self.layout.keeps_last, self.layout.describe()])
        return f"{self.name}:{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    @property
    def horizon_ms(self) -> int:
        """How long a key may be idle before nothing of its row can be seen any more."""
        return max(self.layout.horizon_ms, specs.IDLE_CAP_MS if self.layout.keeps_last else 0)

    @property
    def counts_frauds(self) -> bool:
        return any(FRAUDS in ring.columns for ring in self.layout.rings)


class FeatureSet:
    """A compiled feature list.

    Examples
    --------
    >>> features = FeatureSet.default()
    >>> features.names[0]
    'amount'
    >>> len(features.digest)
    64
    """

    def __init__(self, declared: specs.FeatureList) -> None:
        self.spec = declared
        self.names: tuple[str, ...] = tuple(declared.features)
        self.digest = hashlib.sha256(json.dumps(declared.canonical(), separators=(",", ":")).encode()).hexdigest()
        self._reads: dict[str, dict[tuple[str, str, bool], int]] = {}
        compiled = (self._compile(name, at) for name, at in declared.entities.items())
        self.entities: tuple[Entity, ...] = tuple(entity for entity in compiled if entity.layout.row_bytes)
        # The rows of `Observed.sums` that each aggregate is computed from.
        self._places = {
            name: [self._reads[f.entity][f.window, column, f.before] for column in _COLUMNS[f.aggregate]]
            for name, f in declared.features.items()
            if f.aggregate in _COLUMNS
        }
        self.number_fields: tuple[str, ...] = tuple(
            f.field for f in declared.features.values() if f.field and f.field != "amount"
        )

    @classmethod
    def default(cls) -> "FeatureSet":
        """The list that ships with the package (`fraudstream/default-features.toml`)."""
        return cls.parse(files("fraudstream").joinpath("default-features.toml").read_text("utf-8"))

    @classmethod
    def load(cls, path: Path | None) -> "FeatureSet":
        """Read a list from a file; `None` is the default list. Raises `SettingsError` naming file and fault."""
        if path is None:
            return cls.default()
        try:
            return cls.parse(path.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"feature list {path}: {error.strerror or error}") from error
        except SettingsError as error:
            raise SettingsError(f"feature list {path}: {error}") from error

    @classmethod
    def parse(cls, text: str) -> "FeatureSet":
        """Compile a TOML text. Raises `SettingsError` with the place and the reason."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"not TOML: {error}") from error
        return cls(specs.parse(document))

    @property
    def horizon_ms(self) -> int:
        """How long any key may be idle before nothing of its row can be seen any more."""
        return max((entity.horizon_ms for entity in self.entities), default=0)

    @property
    def labels_delay_ms(self) -> int | None:
        """The shortest delay of a window that reads frauds: labels must be known by then. None if no window does."""
        delays = [self.spec.windows[f.window].delay_ms for f in self.spec.features.values() if f.reads_frauds]
        return min(delays, default=None)

    def columns(self, transactions: Sequence[Transaction]) -> Columns:
        """Turn decoded transactions into columns."""
        n = len(transactions)
        return Columns(
            times_ms=np.fromiter([t.event_time_ms for t in transactions], np.int64, n),
            amounts=np.fromiter([t.amount for t in transactions], np.float64, n),
            amounts_minor=np.fromiter([t.amount_minor for t in transactions], np.int64, n),
            keys={e.name: keys_of(transactions, e.field) for e in self.entities},
            numbers={
                name: np.fromiter((_number(t.extra, name) for t in transactions), np.float64, n)
                for name in self.number_fields
            },
        )

    @property
    def extra_counts(self) -> tuple[str, ...]:
        """The names of what is counted beside the bins: first sights of keys, and fields that were missing."""
        absent = [*self.number_fields, *(e.field for e in self.entities if e.field not in _ALWAYS_THERE)]
        return (*(f"new.{e.name}" for e in self.entities), *dict.fromkeys(f"missing.{name}" for name in absent))

    def missing(self, transactions: Sequence[Transaction], columns: Columns) -> dict[str, IntArray]:
        """Which transactions lack a field the list reads, as `missing.<field>`; only fields that can be absent."""
        found = {}
        for name in self.number_fields:
            absent = [at for at, t in enumerate(transactions) if not t.extra or t.extra.get(name) is None]
            found[f"missing.{name}"] = np.array(absent, np.int64)
        for entity in self.entities:
            if entity.field not in _ALWAYS_THERE:
                absent = [at for at, key in enumerate(columns.keys[entity.name]) if key is None]
                found[f"missing.{entity.field}"] = np.array(absent, np.int64)
        return found

    def observe(
        self,
        entity: Entity,
        states: States,
        key: IntArray,
        columns: Columns,
        frauds: IntArray | None = None,
    ) -> Observed:
        """Add a batch to one entity's rows. `key` (n,) indexes `states`; -1 marks a transaction without this key."""
        if bool((key >= 0).all()):
            return observe(states, key, columns.times_ms, columns.amounts_minor, frauds)
        known = np.flatnonzero(key >= 0)
        part = observe(
            states,
            key[known],
            columns.times_ms[known],
            columns.amounts_minor[known],
            None if frauds is None else frauds[known],
        )
        whole = Observed(np.zeros((len(entity.layout.reads), len(key)), np.int64), np.full(len(key), -1, np.int64))
        whole.sums[:, known] = part.sums
        whole.idle_ms[known] = part.idle_ms
        return whole

    def matrix(self, columns: Columns, observed: Mapping[str, Observed]) -> npt.NDArray[np.float32]:
        """The (n, features) float32 matrix a model scores, C-contiguous, in the order of `names`."""
        values: dict[str, FloatArray] = {}
        sums = {name: seen.sums.astype(np.float64) for name, seen in observed.items()}
        matrix = np.empty((len(columns), len(self.names)), np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for at, (name, feature) in enumerate(self.spec.features.items()):
                if feature.aggregate in _COLUMNS:
                    of = sums[feature.entity]
                    value = _aggregate(feature.aggregate, [of[place] for place in self._places[name]])
                else:
                    value = self._value(feature, columns, observed, values)
                values[name] = value
                matrix[:, at] = value
        return matrix

    def _compile(self, name: str, source: str) -> Entity:
        wanted: dict[tuple[str, str, bool], None] = {}
        keeps_last = False
        for feature in self.spec.features.values():
            if feature.entity == name:
                keeps_last |= feature.aggregate == specs.SECONDS_SINCE_LAST
                columns = _COLUMNS.get(feature.aggregate, ())
                wanted.update({(feature.window, column, feature.before): None for column in columns})
        hops: dict[int, list[tuple[str, str, bool]]] = {}
        for window, column, before in wanted:
            hops.setdefault(self.spec.windows[window].hop_ms, []).append((window, column, before))
        rings: list[Ring] = []
        reads: list[Read] = []
        self._reads[name] = {}
        for number, (hop_ms, looks) in enumerate(sorted(hops.items())):
            for window, column, before in looks:
                start, stop = self.spec.windows[window].tiles_back
                self._reads[name][window, column, before] = len(reads)
                reads.append(Read(number, column, start, stop, before))
            depth = max(read.stop for read in reads if read.ring == number)
            # Tiles for those that come late; at most as many again, or short hops would pay for a long lateness.
            depth += min(-(-self.spec.calendar.lateness_ms // hop_ms), depth)
            kept = {column for _, column, _ in looks}
            rings.append(Ring(hop_ms, depth, tuple(column for column in _STORAGE_ORDER if column in kept)))
        owned = source == specs.TOPIC_KEY_FIELD and not any(FRAUDS in ring.columns for ring in rings)
        row_bytes = Layout.bytes_needed(rings, keeps_last=keeps_last)
        if row_bytes > ROW_BYTES_MAX:
            raise SettingsError(
                f"entity {name}: its windows need {row_bytes} bytes a key, above the limit of {ROW_BYTES_MAX}; "
                "use longer hops for the longer windows"
            )
        if any(FRAUDS in ring.columns for ring in rings) and source not in specs.FRAUD_FIELDS:
            raise SettingsError(f"entity {name}: fraud windows work only on {' and '.join(specs.FRAUD_FIELDS)}")
        if not owned and (keeps_last or any(MAXIMUM in ring.columns for ring in rings)):
            raise SettingsError(
                f"entity {name}: max and {specs.SECONDS_SINCE_LAST} work only for an entity on "
                f"{specs.TOPIC_KEY_FIELD} without fraud windows; other keys are written by many workers at once"
            )
        return Entity(name, source, owned, Layout(rings, reads, keeps_last=keeps_last))

    def _value(
        self,
        feature: specs.Feature,
        columns: Columns,
        observed: Mapping[str, Observed],
        values: Mapping[str, FloatArray],
    ) -> FloatArray:
        if feature.field:
            return columns.amounts if feature.field == "amount" else columns.numbers[feature.field]
        if feature.calendar:
            return _calendar(feature.calendar, columns.times_ms + self.spec.calendar.utc_offset_ms)
        if feature.ratio:
            over, under = (values[name] for name in feature.ratio)
            return _bounded(np.where(under != 0, over / under, 0.0))
        if feature.deviation:
            value, mean, std = (values[name] for name in feature.deviation)
            return _bounded(np.where(std > 0, (value - mean) / std, 0.0))
        seen = observed[feature.entity]
        assert feature.aggregate == specs.SECONDS_SINCE_LAST
        cap_ms = specs.IDLE_CAP_MS
        idle_ms = np.where(seen.idle_ms < 0, cap_ms, np.minimum(seen.idle_ms, cap_ms))
        return idle_ms / 1000.0


def keys_of(transactions: Sequence[Transaction], source: str) -> list[str | None]:
    """`key_of` for many."""
    if source == "card_id":
        return [transaction.card_id for transaction in transactions]
    if source == "terminal_id":
        return [transaction.terminal_id for transaction in transactions]
    return [key_of(transaction, source) for transaction in transactions]


def key_of(transaction: Transaction, source: str) -> str | None:
    """The value of an entity's field in a transaction, as text; None if it is absent, null, empty or not a scalar."""
    if source == "card_id":
        return transaction.card_id
    if source == "terminal_id":
        return transaction.terminal_id
    value = transaction.extra.get(source) if transaction.extra else None
    if value is None and source == "currency":
        value = transaction.currency
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    # A longer value would make a Redis key of attacker's length; ids are limited to the same by the codec.
    return text if 0 < len(text) <= specs.KEY_LENGTH_MAX else None


def _number(extra: Mapping[str, object] | None, name: str) -> float:
    value = extra.get(name) if extra else None
    if isinstance(value, bool | int | float) and abs(value) < FLOAT32_MAX:
        return float(value)
    return 0.0


def _bounded(values: FloatArray) -> FloatArray:
    """Finite as float32: a sender's tiny divisor must not put an infinity before a model."""
    return np.minimum(np.maximum(values, -FLOAT32_MAX), FLOAT32_MAX)


def _calendar(kind: str, local_ms: IntArray) -> FloatArray:
    hour = (local_ms // 3_600_000) % 24
    if kind == "hour":
        return hour.astype(np.float64)
    if kind == "night":
        return (hour <= 6).astype(np.float64)  # 00:00 to 06:59
    weekday = (local_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    return (weekday >= 5).astype(np.float64)


def _aggregate(kind: str, sums: list[FloatArray]) -> FloatArray:
    if kind in ("sum", "max"):
        return sums[0] / 100.0
    if kind in ("count", "frauds"):
        return sums[0]
    count = sums[0]
    if kind in ("mean", "fraud_share"):
        scale = 100.0 if kind == "mean" else 1.0
        return np.where(count > 0, sums[1] / count / scale, 0.0)
    # Population standard deviation; the difference of squares may fall just below zero by rounding.
    mean = sums[1] / count
    variance = np.maximum(sums[2] / count - mean * mean, 0.0)
    return np.where(count > 0, np.sqrt(variance) / 100.0, 0.0)

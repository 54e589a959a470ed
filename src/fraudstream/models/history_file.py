"""Labelled history: a Parquet or CSV file of transactions with their verdicts, read chunk by chunk in event-time order.

Memory does not grow with the file: a chunk is in memory at a time. The exception is a file that is not in event-time
order; it is sorted in memory, with a note.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from fraudstream.codec.amounts import minor_units
from fraudstream.codec.limits import Limits
from fraudstream.core.features import FeatureSet
from fraudstream.core.windows import BoolArray, FloatArray, IntArray
from fraudstream.errors import SettingsError

# Large enough that numpy's cost per call vanishes, small enough that a card occurs a few times only: keys that repeat in
# a chunk are taken in rounds.
CHUNK_ROWS: Final = 16_384
CSV_BLOCK_BYTES: Final = 8 << 20  # about 100,000 rows parsed at a time

ID, TIME, AMOUNT, FRAUD = "transaction_id", "event_time", "amount", "is_fraud"
_KEYS: Final = ("card_id", "terminal_id")
_TRUE: Final = pa.array(["1", "true", "t", "yes"])
_FALSE: Final = pa.array(["0", "false", "f", "no"])
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Chunk:
    """`n` consecutive transactions. `keys` are Arrow text arrays by field, null where there is none."""

    ids: pa.Array
    times_ms: IntArray
    amounts: FloatArray
    amounts_minor: IntArray
    frauds: BoolArray
    keys: dict[str, pa.Array]
    numbers: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.times_ms)

    def part(self, start: int, stop: int) -> "Chunk":
        """Rows `start .. stop-1`."""
        if (start, stop) == (0, len(self)):
            return self
        cut = slice(start, stop)
        return Chunk(
            self.ids[cut],
            self.times_ms[cut],
            self.amounts[cut],
            self.amounts_minor[cut],
            self.frauds[cut],
            {name: values[cut] for name, values in self.keys.items()},
            {name: values[cut] for name, values in self.numbers.items()},
        )


class History:
    """A file of transactions with the columns transaction_id, event_time, card_id, terminal_id, amount, is_fraud.

    Parameters
    ----------
    path
        `.parquet` or `.csv`. `event_time`: timestamps (without a zone: taken as UTC), RFC 3339 text, or integer
        milliseconds. `is_fraud`: true or false, 1 or 0.
    features
        Its extra fields are read too.
    chunk_rows
        Transactions per chunk; the features do not depend on it.
    labelled
        Whether `is_fraud` must be there; without it every transaction counts as legitimate.

    Attributes
    ----------
    rows, first_ms, last_ms
        Number of transactions; event times of the first and the last.
    notes
        What the reader should know: sorted in memory, times without a zone.

    Raises
    ------
    SettingsError
        For a file that cannot be read, lacks a column, or holds a value the live system would refuse.
    """

    def __init__(
        self, path: Path, features: FeatureSet, *, labelled: bool = True, chunk_rows: int = CHUNK_ROWS
    ) -> None:
        self._chunk_rows = chunk_rows
        self.path = path
        self.notes: tuple[str, ...] = ()
        self._sorted: pa.Table | None = None
        key_fields = [entity.field for entity in features.entities]
        self._key_fields: tuple[str, ...] = tuple(dict.fromkeys((*_KEYS, *key_fields)))
        self._number_fields = tuple(dict.fromkeys(features.number_fields))
        present = self._column_names()
        self._has_frauds = FRAUD in present
        needed = [ID, TIME, *self._key_fields, AMOUNT, *self._number_fields]
        self._columns: list[str] = list(dict.fromkeys([*needed, *([FRAUD] if labelled or self._has_frauds else [])]))
        missing = [name for name in self._columns if name not in present]
        if missing:
            raise SettingsError(
                f"{path}: no column {', '.join(missing)}; the file has {', '.join(present) or 'no columns at all'}"
            )
        self.rows, self.first_ms, self.last_ms, in_order = self._scan_times()
        if not self.rows:
            raise SettingsError(f"{path}: no transactions in it")
        if not in_order:
            self._sort()

    def chunks(self, until_ms: int | None = None) -> Iterator[Chunk]:
        """All transactions in event-time order (ties in file order), those at `until_ms` and later left out."""
        before: set[str] = set()
        for batch in (
            self._batches(self._columns) if self._sorted is None else self._sorted.to_batches(self._chunk_rows)
        ):
            for start in range(0, len(batch), self._chunk_rows):
                chunk = self._chunk(batch.slice(start, self._chunk_rows))
                stop = len(chunk) if until_ms is None else int(np.searchsorted(chunk.times_ms, until_ms))
                if stop:
                    before = self._unique(chunk, before)
                    yield chunk.part(0, stop)
                if stop < len(chunk):
                    return

    def _column_names(self) -> list[str]:
        try:
            if self._is_csv():
                return list(pyarrow.csv.open_csv(self.path).schema.names)
            return list(pq.read_schema(self.path).names)
        except FileNotFoundError as error:
            raise SettingsError(f"{self.path}: no such file") from error
        except (OSError, pa.ArrowException) as error:
            raise SettingsError(f"{self.path}: cannot be read as {self._kind()}: {_one_line(error)}") from error

    def _is_csv(self) -> bool:
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        return ".csv" in suffixes

    def _kind(self) -> str:
        return "CSV" if self._is_csv() else "Parquet"

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            if not self._is_csv():
                with pq.ParquetFile(self.path) as file:
                    yield from file.iter_batches(CHUNK_ROWS, columns=list(columns))
                return
            numeric = {AMOUNT, *self._number_fields}
            convert = pyarrow.csv.ConvertOptions(
                include_columns=list(columns),
                column_types={name: pa.float64() if name in numeric else pa.string() for name in columns},
                strings_can_be_null=True,
            )
            read = pyarrow.csv.ReadOptions(block_size=CSV_BLOCK_BYTES)
            yield from pyarrow.csv.open_csv(self.path, read_options=read, convert_options=convert)
        except (OSError, pa.ArrowException) as error:
            raise SettingsError(f"{self.path}: cannot be read as {self._kind()}: {_one_line(error)}") from error

    def _scan_times(self) -> tuple[int, int, int, bool]:
        rows, first, last, newest, in_order = 0, 0, 0, -(2**62), True
        for batch in self._batches([TIME]):
            times = self._times(batch.column(0))
            if not len(times):
                continue
            in_order &= bool(times[0] >= newest and (times[1:] >= times[:-1]).all())
            low, newest = int(times.min()), max(newest, int(times.max()))
            first, last = (low, newest) if not rows else (min(first, low), newest)
            rows += len(times)
        return rows, first, last, in_order

    def _sort(self) -> None:
        table = pa.Table.from_batches(list(self._batches(self._columns)))
        times = np.concatenate([self._times(part) for part in table.column(TIME).chunks])
        self._sorted = table.take(pa.array(np.argsort(times, kind="stable")))
        self._note(f"{self.path.name} is not in event-time order: sorted in memory")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes = (*self.notes, text)

    def _wrong(self, column: str, what: str) -> SettingsError:
        return SettingsError(f"{self.path}: column {column}: {what}")

    def _chunk(self, batch: pa.RecordBatch) -> Chunk:
        amounts = self._amounts(batch.column(AMOUNT))
        return Chunk(
            ids=self._ids(batch.column(ID)),
            times_ms=self._times(batch.column(TIME)),
            amounts=amounts,
            amounts_minor=_minor(amounts),
            frauds=self._frauds(batch.column(FRAUD)) if FRAUD in self._columns else np.zeros(len(batch), np.bool_),
            keys={name: self._texts(batch, name) for name in self._key_fields},
            numbers={name: self._numbers(batch, name) for name in self._number_fields},
        )

    def _ids(self, values: pa.Array) -> pa.Array:
        if values.null_count:
            raise self._wrong(ID, f"{values.null_count} empty values")
        return values.cast(pa.large_string())

    def _unique(self, chunk: Chunk, before: set[str]) -> set[str]:
        """Refuse an id that occurs again in this or the last chunk: the live system decides such a record once."""
        ids = chunk.ids.to_pylist()
        seen = set(ids)
        if len(seen) < len(ids) or not before.isdisjoint(seen):
            again = next(iter(before & seen), None) or next(name for name in seen if ids.count(name) > 1)
            raise self._wrong(ID, f"{again!r} occurs twice; remove the repeated row")
        return seen

    def _times(self, values: pa.Array) -> IntArray:
        if values.null_count:
            raise self._wrong(TIME, f"{values.null_count} empty values")
        if pa.types.is_integer(values.type):
            return np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = self._parsed_times(values)
        if not pa.types.is_timestamp(values.type):
            raise self._wrong(TIME, f"of type {values.type}; timestamps, RFC 3339 text or milliseconds are needed")
        if values.type.tz is None:
            self._note(f"{self.path.name}: {TIME} has no time zone, taken as UTC")
        in_ms = values.cast(pa.timestamp("ms", values.type.tz), safe=False)
        return np.asarray(in_ms.cast(pa.int64()).to_numpy(zero_copy_only=False))

    def _parsed_times(self, texts: pa.Array) -> pa.Array:
        first = texts[0].as_py() if len(texts) else ""
        try:
            if first.isdigit():
                return texts.cast(pa.int64()).cast(pa.timestamp("ms", "UTC"))
            zoned = first.endswith(("Z", "z")) or first[-6:-5] in ("+", "-") or first[-5:-4] == "+"
            return texts.cast(pa.timestamp("us", "UTC" if zoned else None))
        except pa.ArrowException as error:
            raise self._wrong(TIME, _one_line(error)) from error

    def _amounts(self, values: pa.Array) -> FloatArray:
        if values.null_count:
            raise self._wrong(AMOUNT, f"{values.null_count} empty values")
        try:
            amounts: FloatArray = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
        except pa.ArrowException as error:
            raise self._wrong(AMOUNT, _one_line(error)) from error
        bad = np.flatnonzero(~((amounts >= 0) & (amounts <= Limits().amount_max)))
        if len(bad):
            raise self._wrong(AMOUNT, f"{amounts[bad[0]]} is not between 0 and {Limits().amount_max:g}")
        return amounts

    def _frauds(self, values: pa.Array) -> BoolArray:
        if values.null_count:
            raise self._wrong(FRAUD, f"{values.null_count} empty values")
        if pa.types.is_boolean(values.type):
            return np.asarray(values.to_numpy(zero_copy_only=False))
        texts = pc.utf8_lower(values.cast(pa.string()))
        yes = np.asarray(pc.is_in(texts, _TRUE).to_numpy(zero_copy_only=False))
        known = yes | np.asarray(pc.is_in(texts, _FALSE).to_numpy(zero_copy_only=False))
        if not known.all():
            raise self._wrong(FRAUD, f"{values[int(np.argmin(known))].as_py()!r} is neither true nor false")
        return yes

    def _texts(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        values = batch.column(name)
        if name in _KEYS and values.null_count:
            raise self._wrong(name, f"{values.null_count} empty values")
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            return values.cast(pa.large_string())
        # As in a live transaction: a key is text or a whole number; anything else is no key.
        return pa.nulls(len(values), pa.large_string())

    def _numbers(self, batch: pa.RecordBatch, name: str) -> FloatArray:
        values = batch.column(name)
        try:
            numbers = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
        except pa.ArrowException as error:
            raise self._wrong(name, f"is not a number: {_one_line(error)}") from error
        # As in a live transaction: what is absent or not a usable number counts as 0.
        return np.where(np.abs(numbers) < _FLOAT32_MAX, numbers, 0.0)


def _minor(amounts: FloatArray) -> IntArray:
    """`codec.amounts.minor_units` of every amount: the product where it is plainly right, the decimal text otherwise."""
    product = amounts * 100.0
    nearest = np.rint(product)
    minor: IntArray = nearest.astype(np.int64)
    for at in np.flatnonzero(np.abs(product - nearest) >= 0.45).tolist():
        minor[at] = minor_units(float(amounts[at]))
    return minor


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:300]

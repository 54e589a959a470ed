"""A file of transactions, read a stretch at a time: Parquet by row groups, CSV by blocks."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from msgspec import Struct
from numpy.typing import NDArray

from fraudstream_producers.columns import LABELS, TRANSACTIONS, epoch_ms, timestamps
from fraudstream_producers.errors import UsageError
from fraudstream_producers.interleave import EVER_MS, Chunk
from fraudstream_producers.world import Ints

# Rows read at a time: some 5 MB as columns.
_CHUNK_ROWS = 32_768
_CSV_BLOCK_BYTES = 4 * 1024 * 1024
_REQUIRED = tuple(name for name in TRANSACTIONS.names if name != "is_fraud")


class FileSource(Struct, frozen=True, kw_only=True):
    """Which transactions of a file, and when their labels are known."""

    path: Path
    from_ms: int | None = None
    until_ms: int | None = None  # not included
    limit: int | None = None
    extra_columns: tuple[str, ...] = ()
    label_delay_ms: int | None = None  # None: no labels

    def chunks(self) -> Iterator[Chunk]:
        """The transactions in the order of the file, each chunk with its labels.

        Raises
        ------
        UsageError
            The file cannot be read, lacks a column, or is not in event-time order.
        """
        for table in self._tables():
            labels = LABELS.empty_table() if self.label_delay_ms is None else _labels(table, self.label_delay_ms)
            yield Chunk(table, labels, int(epoch_ms(table["event_time"])[-1]))

    def label_chunks(self) -> Iterator[Chunk]:
        """All labels and no transaction, for sending them first. Unpaced."""
        for table in self._tables():
            yield Chunk(table.slice(0, 0), _labels(table, self.label_delay_ms or 0), EVER_MS, paced=False)

    def transaction_chunks(self) -> Iterator[Chunk]:
        """All transactions and no label."""
        return msgspec.structs.replace(self, label_delay_ms=None).chunks()

    def has_truth(self) -> bool:
        """Whether the file says which transactions are frauds."""
        return "is_fraud" in self._column_names()

    def total(self) -> int | None:
        """How many transactions there will be, where that is cheap to know (Parquet); checks their order as well."""
        if _is_csv(self.path):
            return self.limit
        rows = 0
        previous_ms = -EVER_MS
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            self._check_columns(file.schema_arrow.names)
            for batch in file.iter_batches(_CHUNK_ROWS, columns=["event_time"]):
                event_ms = _event_ms(pa.table([batch.column(0)], names=["event_time"]), self.path)
                previous_ms = _check_order(event_ms, previous_ms, self.path)
                rows += int(self._wanted(event_ms).sum())
        return rows if self.limit is None else min(rows, self.limit)

    def _tables(self) -> Iterator[pa.Table]:
        """Non-empty tables with the columns asked for, event_time as UTC milliseconds, filtered and in order."""
        left = EVER_MS if self.limit is None else self.limit
        previous_ms = -EVER_MS
        with _reading(self.path):
            for raw in self._raw_tables():
                if left <= 0:
                    return
                event_ms = _event_ms(raw, self.path)
                previous_ms = _check_order(event_ms, previous_ms, self.path)
                table = _typed(raw, event_ms).filter(pa.array(self._wanted(event_ms))).slice(0, left)
                left -= len(table)
                if len(table):
                    yield table
                if self.until_ms is not None and previous_ms >= self.until_ms:
                    return

    def _raw_tables(self) -> Iterator[pa.Table]:
        names = self._column_names()
        self._check_columns(names)
        columns = [*_REQUIRED, *(["is_fraud"] if "is_fraud" in names else []), *self.extra_columns]
        if _is_csv(self.path):
            yield from _csv_tables(self.path, columns)
            return
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_CHUNK_ROWS, columns=columns):
                if len(batch):
                    yield pa.Table.from_batches([batch])

    def _column_names(self) -> Sequence[str]:
        with _reading(self.path):
            if not _is_csv(self.path):
                names: list[str] = pq.read_schema(self.path).names
                return names
            with pa.csv.open_csv(self.path) as reader:
                columns: list[str] = reader.schema.names
                return columns

    def _check_columns(self, names: Sequence[str]) -> None:
        missing = [name for name in (*_REQUIRED, *self.extra_columns) if name not in names]
        if missing:
            raise UsageError(f"{self.path} has no column {', '.join(missing)} (it has {', '.join(names)})")

    def _wanted(self, event_ms: Ints) -> NDArray[np.bool_]:
        low = -EVER_MS if self.from_ms is None else self.from_ms
        high = EVER_MS if self.until_ms is None else self.until_ms
        wanted: NDArray[np.bool_] = (event_ms >= low) & (event_ms < high)
        return wanted


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into one line about it."""
    try:
        yield
    except (OSError, pa.ArrowException) as problem:
        raise UsageError(f"cannot read {path}: {problem}") from problem


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() in {".csv", ".txt"} or path.name.lower().endswith(".csv.gz")


def _csv_tables(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Blocks of a CSV file with a header; ids and times as text, so that leading zeros and every time format survive."""
    text = ("transaction_id", "event_time", "card_id", "terminal_id")
    types = {name: pa.string() for name in text} | {"amount": pa.float64(), "is_fraud": pa.bool_()}
    convert = pa.csv.ConvertOptions(include_columns=columns, column_types=types)
    read = pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    with pa.csv.open_csv(path, read_options=read, convert_options=convert) as reader:
        for batch in reader:
            if len(batch):
                yield pa.Table.from_batches([batch])


def _event_ms(table: pa.Table, path: Path) -> Ints:
    """The column event_time in ms since the epoch; text and timestamps without a zone are UTC, integers are ms."""
    column = table["event_time"]
    if column.null_count:
        raise UsageError(f"{path} has transactions without event_time")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _from_text(column)
    elif pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False)
    event_ms: Ints = column.cast(pa.int64()).to_numpy()
    return event_ms


def _from_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    first = column[0].as_py()
    if first.lstrip("-").isdigit() and len(first) > 4:
        return column.cast(pa.int64())
    has_zone = re.search(r"(Z|[+-]\d\d:?\d\d)$", first, re.IGNORECASE) and ":" in first
    return column.cast(pa.timestamp("us", tz="UTC" if has_zone else None))


def _check_order(event_ms: Ints, previous_ms: int, path: Path) -> int:
    """The last event time, after making sure that none is earlier than the one before."""
    if (np.diff(event_ms, prepend=previous_ms) < 0).any():
        raise UsageError(f"{path} is not in event-time order; sort it by event_time first")
    return int(event_ms[-1])


def _typed(raw: pa.Table, event_ms: Ints) -> pa.Table:
    """The table with the column types of the contract; further columns keep theirs."""
    columns = {}
    for name in raw.column_names:
        if name == "event_time":
            columns[name] = timestamps(event_ms)
        elif name in TRANSACTIONS.names:
            columns[name] = raw[name].cast(TRANSACTIONS.field(name).type)
        else:
            columns[name] = raw[name]
    return pa.table(columns)


def _labels(table: pa.Table, delay_ms: int) -> pa.Table:
    """A label for each transaction whose truth is known, `delay_ms` after it."""
    known = table.filter(pc.is_valid(table["is_fraud"]))
    count = len(known)
    columns = {
        "transaction_id": known["transaction_id"],
        "card_id": known["card_id"],
        "is_fraud": known["is_fraud"],
        "label_time": timestamps(epoch_ms(known["event_time"]) + delay_ms),
        "source": pa.array(["chargeback"] * count, pa.string()),
        "reason": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=LABELS)

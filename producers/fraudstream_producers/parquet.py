"""A simulation as Parquet files: one of transactions, one of their labels."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from fraudstream_producers.columns import LABELS, TRANSACTIONS
from fraudstream_producers.errors import UsageError
from fraudstream_producers.simulation import Simulation

# Rows of a row group: a reader holds one at a time, so it bounds memory (some 20 MB), and it is large enough to
# compress well.
_ROW_GROUP_ROWS = 262_144


def write_simulation(
    simulation: Simulation,
    days: range,
    transactions_path: Path,
    labels_path: Path | None,
    *,
    label_delay_scale: float = 1.0,
    on_day: Callable[[int, pa.Table], None] = lambda _rows, _table: None,
) -> tuple[int, int, int]:
    """Write the days; numbers of transactions, of frauds among them, and of labels.

    `on_day` hears the number of transactions so far and the day's table; what it raises ends the writing. A file
    appears under its name only when it is complete.

    Raises
    ------
    UsageError
        A file cannot be written.
    """
    transactions = frauds = labels = 0
    try:
        with contextlib.ExitStack() as stack:
            to_transactions = stack.enter_context(_Writer(transactions_path, TRANSACTIONS))
            to_labels = stack.enter_context(_Writer(labels_path, LABELS)) if labels_path else None
            for number in days:
                day = simulation.day(number)
                to_transactions.write(day.transactions)
                transactions += len(day.transactions)
                frauds += int((day.pattern > 0).sum())
                if to_labels:
                    table = day.labels(label_delay_scale)
                    to_labels.write(table)
                    labels += len(table)
                on_day(transactions, day.transactions)
    except OSError as problem:
        raise UsageError(f"cannot write: {problem}") from problem
    return transactions, frauds, labels


class _Writer:
    """A Parquet file that grows by row groups and takes its name at the end."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write_group()
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows += len(table)
        if self._rows >= _ROW_GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self._rows)
        self._waiting, self._rows = [], 0

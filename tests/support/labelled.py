"""The simulated, labelled history of the integration tests (see the fixture `history`) as records of `transactions`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HISTORY_ENDS_MS = 1_739_577_600_000  # 2025-02-15


def last_rows(history: Path, count: int) -> pa.Table:
    """The last `count` transactions of the history, with their labels."""
    table = pq.read_table(history)
    assert table.num_rows > count
    return table.slice(table.num_rows - count)


def records_of(rows: Iterable[dict[str, Any]]) -> list[tuple[bytes, bytes]]:
    """(key, value) of each transaction; what is known of its label stays behind."""
    records = []
    for row in rows:
        told = {name: value for name, value in row.items() if name != "is_fraud"}
        told["event_time"] = int(row["event_time"].timestamp() * 1000)
        records.append((row["card_id"].encode(), json.dumps(told).encode()))
    return records


def last_records(history: Path, count: int) -> list[tuple[bytes, bytes]]:
    """The last `count` transactions of the history as records."""
    return records_of(last_rows(history, count).to_pylist())

"""What the tests of outages share: records, the worker's own word on how it is, and that nothing was lost or repeated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.support.kafka import consume, produce
from tests.support.system import System
from tests.support.transport import committed

HISTORY_ENDS_MS = 1_739_577_600_000  # 2025-02-15, see the fixture `history`

Made = Callable[..., System]
CreateTopics = Callable[[list[str], int], None]


def rows(running: System) -> dict[bytes, bytes]:
    """The windows of all cards and terminals."""
    prefix = f"{running.prefix}:{{0}}:row:".encode()
    keys = list(running.client.scan_iter(prefix + b"*", count=1000))
    return {key.removeprefix(prefix): value for key, value in zip(keys, running.client.mget(keys), strict=True)}


def status(running: System) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((running.directory / "health.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {"ready": False, "troubles": {}}
    return found


def troubles(running: System) -> str:
    return "; ".join(status(running)["troubles"].values())


def send(running: System, records: list[tuple[bytes, bytes]]) -> None:
    produce(running.bootstrap_servers, running.topics.transactions, records, timestamp_ms=HISTORY_ENDS_MS)


def last_records(history: Path, count: int) -> list[tuple[bytes, bytes]]:
    """The last `count` transactions of the history as records."""
    table = pq.read_table(history)
    records = []
    for row in table.slice(table.num_rows - count).to_pylist():
        del row["is_fraud"]
        row["event_time"] = int(row["event_time"].timestamp() * 1000)
        records.append((row["card_id"].encode(), json.dumps(row).encode()))
    return records


def assert_decided_once(running: System, records: list[tuple[bytes, bytes]]) -> None:
    """One decision for each; where one was published twice, it is the same to the byte."""
    counts = running.counts()
    assert counts["decided"] == len(records)
    assert "duplicates" not in counts
    topic = running.topics.decisions
    wanted = {json.loads(value)["transaction_id"] for _, value in records}
    values: dict[str, set[bytes]] = {}
    count = len(records)
    while len(values) < len(wanted):  # repeated ones stand among them
        values.clear()
        for message in consume(running.bootstrap_servers, topic, count):
            value = message.value() or b""
            values.setdefault(json.loads(value)["transaction_id"], set()).add(value)
        count += len(wanted) - len(values)
    assert values.keys() == wanted
    assert [name for name, different in values.items() if len(different) > 1] == []


def committed_records(running: System) -> int:
    """How many records of transactions the scoring group has acknowledged."""
    group = f"{running.env['FRAUDSTREAM_KAFKA__GROUP']}-score"
    return sum(committed(running.bootstrap_servers, running.topics.transactions, group, 2).values())

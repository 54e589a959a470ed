"""What the tests of outages share: records, the worker's own word on how it is, and that nothing was lost or repeated."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.kafka import consume, produce
from tests.support.labelled import HISTORY_ENDS_MS
from tests.support.system import System
from tests.support.transport import committed

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

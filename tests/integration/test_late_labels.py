"""A label that comes 100 days late, through a real Kafka, a real Redis and an index on a real disk."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.documented_keys import undocumented
from tests.support.kafka import produce
from tests.support.labelled import HISTORY_ENDS_MS, last_records
from tests.support.servers import Kafka
from tests.support.system import System, read_all, run_ok, system
from tests.support.waiting import wait_until

LATE_MS = HISTORY_ENDS_MS + 100 * 86_400_000
COUNT = 400


@pytest.fixture
def running(kafka: Kafka, redis_url: str, registry: Path, tmp_path: Path) -> Iterator[System]:
    """A system with topics of four partitions and no worker yet."""
    with system(kafka.bootstrap_servers, redis_url, registry, tmp_path) as made:
        made.create_topics(4)
        yield made


def test_labels_100_days_late_are_joined_with_the_features_of_then(
    running: System, history: Path, tmp_path: Path
) -> None:
    """Redis has dropped the decisions: the index has them. Killed, and its index lost, the worker counts nothing twice."""
    records = last_records(history, COUNT)
    running.start_worker()
    topic = running.topics.transactions
    produce(running.bootstrap_servers, topic, records, timestamp_ms=HISTORY_ENDS_MS)
    running.wait_accounted(COUNT, 60)
    decisions = {d["transaction_id"]: d for d in read_all(running.bootstrap_servers, running.topics.decisions, COUNT)}
    assert running.workers[0].stop() == 0
    _drop_decisions(running)
    rows = _rows(running)

    index = tmp_path / "late-labels"
    late = {"FRAUDSTREAM_LATE_LABELS__PATH": str(index), "FRAUDSTREAM_ROLES": "label"}
    first = running.start_worker(**late)
    produce(running.bootstrap_servers, running.topics.labels, _labels(list(decisions), "chargeback"))
    _wait_for(running, late=COUNT)
    examples = read_all(running.bootstrap_servers, running.topics.examples, COUNT)
    assert {e["transaction_id"]: e["features"] for e in examples} == {
        name: decision["features"] for name, decision in decisions.items()
    }
    first.kill()
    shutil.rmtree(index)

    second = running.start_worker(**late)
    produce(running.bootstrap_servers, running.topics.labels, _labels(list(decisions), "analyst"))
    _wait_for(running, duplicate=COUNT)
    assert second.stop() == 0
    assert _rows(running) == rows  # what is older than every window adds to none
    assert undocumented(running.client, running.prefix) == []
    outcomes = json.loads(run_ok("fraudstream", "labels", "--json", env=running.env))
    assert {way: n for way, n in outcomes.items() if n} == {"told": 2 * COUNT, "late": COUNT, "duplicate": COUNT}


def test_a_second_worker_in_the_same_directory_does_not_start(running: System, tmp_path: Path) -> None:
    """RocksDB lets one process in; the other says so in one line and ends with exit code 2."""
    late = {"FRAUDSTREAM_LATE_LABELS__PATH": str(tmp_path / "index"), "FRAUDSTREAM_ROLES": "label"}
    running.start_worker(**late)
    running.wait_ready()
    second = running.start_worker(**late)
    assert second.process.wait(30) == 2
    assert "give each worker a directory of its own" in second.log()


def _labels(names: list[str], source: str) -> list[tuple[bytes, bytes]]:
    """The card is not known any more: keyed by transaction."""
    told = {"is_fraud": True, "label_time": LATE_MS, "source": source}
    return [(name.encode(), json.dumps({"transaction_id": name, **told}).encode()) for name in names]


def _drop_decisions(running: System) -> None:
    """What the time to live does after the retention."""
    names = list(running.client.scan_iter(f"{running.prefix}:{{0}}:decisions:*", count=1_000))
    assert running.client.delete(*names) == len(names) > 0


def _rows(running: System) -> dict[bytes, bytes | None]:
    names = sorted(running.client.scan_iter(f"{running.prefix}:{{0}}:row:*", count=1_000))
    return dict(zip(names, running.client.mget(names), strict=True))


def _wait_for(running: System, **ways: int) -> None:
    wanted = {f"labels.{way}": n for way, n in ways.items()}

    def there() -> bool:
        worker = running.workers[-1]
        assert worker.process.poll() is None, worker.log()[-3000:]
        counts = running.counts()
        return all(counts.get(name, 0) >= n for name, n in wanted.items())

    try:
        wait_until(there, 60, f"labels end as {wanted}")
    except AssertionError as error:
        raise AssertionError(f"{error}; counted {running.counts()}; {running.workers[-1].log()[-3000:]}") from None

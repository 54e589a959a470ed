"""Labels in, corrected scores out: the online model through whole workers, a real Kafka and a real Redis."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.kafka import produce
from tests.support.labelled import HISTORY_ENDS_MS, last_rows, records_of
from tests.support.servers import Kafka
from tests.support.system import System, read_all, read_until, run_command, run_ok, system
from tests.support.waiting import wait_until

LEARNED = 1_500
PICK_UP_S_MAX = 2.0


@pytest.fixture
def running(kafka: Kafka, redis_url: str, registry: Path, tmp_path: Path) -> Iterator[System]:
    """A system that blends, and begins early."""
    settings = {"FRAUDSTREAM_LEARN__POLICY": "blend", "FRAUDSTREAM_LEARN__WARM_UP": "500"}
    with system(kafka.bootstrap_servers, redis_url, registry, tmp_path, **settings) as made:
        made.create_topics(2)
        yield made


def test_workers_learn_from_labels_and_score_with_what_was_learned(running: System, history: Path) -> None:
    """Labels become examples, examples a model, within 2 s part of each decision; over kill -9 each is learned once."""
    rows = last_rows(history, LEARNED + 200).to_pylist()
    running.start_worker()
    _send(running, rows[:LEARNED])
    running.wait_accounted(LEARNED, 60)
    before = read_all(running.bootstrap_servers, running.topics.decisions, LEARNED)
    assert {d["online_score"] for d in before} == {None}
    _label(running, rows[: LEARNED // 2])
    _wait_learned(running, LEARNED // 4)
    running.workers[0].kill()
    running.start_worker()
    _label(running, rows[LEARNED // 2 : LEARNED])
    _wait_learned(running, LEARNED)
    time.sleep(PICK_UP_S_MAX)
    _send(running, rows[LEARNED:])
    running.wait_accounted(len(rows), 60)

    later = {row["transaction_id"] for row in rows[LEARNED:]}
    decisions = read_until(running.bootstrap_servers, running.topics.decisions, later)
    asked = [decisions[name] for name in later if decisions[name]["online_score"] is not None]
    assert len(asked) == 200
    share = _shown(running)["serving"]["share"]
    for decision in asked:
        champion, online = decision["champion_score"], decision["online_score"]
        assert decision["score"] == pytest.approx(share * online + (1 - share) * champion, rel=1e-6)
    assert any(d["online_score"] != d["champion_score"] for d in asked)
    counts = _shown(running)["counts"]
    assert counts["learned"] == LEARNED
    assert counts["tested"] == LEARNED - 500


def test_what_was_learned_can_be_dropped(running: System, history: Path) -> None:
    """`learner reset` begins anew while the worker runs; with --rebuild it comes to the same weights as before."""
    rows = last_rows(history, 800).to_pylist()
    assert run_command("fraudstream", "learner", "show", env=running.env).returncode == 1
    running.start_worker()
    _send(running, rows)
    running.wait_accounted(len(rows), 60)
    _label(running, rows)
    _wait_learned(running, len(rows))
    learned = _shown(running)
    assert "begins anew at offset 0" in run_ok("fraudstream", "learner", "reset", "--rebuild", env=running.env)
    _label(running, rows[:1])  # repeated: no example; the learner is woken by the next one
    _send(running, [{**rows[0], "transaction_id": "one more"}])
    running.wait_accounted(len(rows) + 1, 60)
    _label(running, [{**rows[0], "transaction_id": "one more"}])
    _wait_learned(running, len(rows) + 1)
    again = _shown(running)
    assert again["version"] != learned["version"]
    assert again["counts"]["learned"] == len(rows) + 1


def _send(running: System, rows: list[dict[str, Any]]) -> None:
    produce(running.bootstrap_servers, running.topics.transactions, records_of(rows), timestamp_ms=HISTORY_ENDS_MS)


def _label(running: System, rows: list[dict[str, Any]]) -> None:
    labels = [
        (
            row["transaction_id"].encode(),
            json.dumps(
                {
                    "transaction_id": row["transaction_id"],
                    "is_fraud": bool(row["is_fraud"]),
                    "label_time": HISTORY_ENDS_MS,
                    "source": "chargeback",
                }
            ).encode(),
        )
        for row in rows
    ]
    produce(running.bootstrap_servers, running.topics.labels, labels)


def _shown(running: System) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_ok("fraudstream", "learner", "show", "--json", env=running.env))
    return found


def _wait_learned(running: System, count: int) -> None:
    # A worker that was killed between a join and its publication leaves the example to others after 45 s.
    def there() -> bool:
        state = running.client.hget(f"{running.prefix}:{{0}}:learner:state", "state")
        return state is not None and json.loads(state)["counts"].get("learned", 0) >= count

    try:
        wait_until(there, 100, f"{count} examples are learned")
    except AssertionError as error:
        logs = "\n".join(worker.log()[-2500:] for worker in running.workers)
        raise AssertionError(f"{error}; {running.counts()}; logs:\n{logs}") from None

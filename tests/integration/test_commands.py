"""The commands that look into a system, against a real Kafka and a real Redis."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis
from tests.support.kafka import produce
from tests.support.labelled import HISTORY_ENDS_MS, last_rows, records_of
from tests.support.servers import Kafka
from tests.support.system import System, run_command, run_ok, system
from tests.support.waiting import wait_until


@pytest.fixture
def running(kafka: Kafka, redis_url: str, registry: Path, tmp_path: Path) -> Iterator[System]:
    """A system without topics."""
    with system(kafka.bootstrap_servers, redis_url, registry, tmp_path) as made:
        yield made


def test_topics_are_created_once_and_checked(running: System) -> None:
    """Check names what is missing (exit code 2); create makes it, and a second time nothing; one learner's topic has
    one partition.
    """
    before = run_command("fraudstream", "topics", "check", env=running.env)
    assert before.returncode == 2
    assert "fraudstream topics create" in before.stderr
    first = run_ok("fraudstream", "topics", "create", "--partitions", "3", env=running.env)
    again = run_ok("fraudstream", "topics", "create", "--partitions", "5", env=running.env)
    assert (first.count(": created"), again.count(": exists")) == (8, 8)
    told = run_ok("fraudstream", "topics", "check", env=running.env).splitlines()
    assert f"{running.topics.transactions}: 3 partitions" in told
    assert f"{running.topics.examples}: 1 partitions" in told


def test_the_doctor_tells_all_that_is_wrong(running: System) -> None:
    """One line for each part, exit code 2 while one is wrong; no password of the URL is shown."""
    wrong = {
        "FRAUDSTREAM_REDIS__URL": "redis://:hunt/er2@127.0.0.1:1/0", "FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"
    }  # fmt: skip
    ill = run_command("fraudstream", "doctor", env={**running.env, **wrong})
    assert ill.returncode == 2
    assert [line.split(":")[0].split() for line in ill.stdout.splitlines()[2:]] == [
        ["redis", "WRONG"],
        ["broker", "WRONG"],
    ]
    assert "hunt" not in ill.stdout + ill.stderr
    running.create_topics(1)
    well = run_ok("fraudstream", "doctor", env=running.env)
    assert well.count(" ok") == 4
    asked = run_command("fraudstream", "doctor", "--worker", env=running.env)
    assert (asked.returncode, "no status" in asked.stdout) == (1, True)


def test_a_decision_is_found_by_its_id_and_a_warm_up_gives_the_rows_of_the_worker(
    running: System, history: Path, tmp_path: Path
) -> None:
    """Rows that a warm-up loads equal, byte for byte, those a worker writes for the same records."""
    file, records = _few(history, tmp_path)
    running.create_topics(1)
    running.start_worker()
    produce(running.bootstrap_servers, running.topics.transactions, records, timestamp_ms=HISTORY_ENDS_MS)
    running.wait_accounted(len(records), 60)
    name = json.loads(records[0][1])["transaction_id"]
    found = json.loads(run_ok("fraudstream", "decision", name, env=running.env))
    assert found["transaction_id"] == name
    absent = run_command("fraudstream", "decision", "nobody", env=running.env)
    assert (absent.returncode, absent.stderr) == (1, "fraudstream: no stored decision for nobody\n")
    asked = wait_until(
        lambda: (done := run_command("fraudstream", "doctor", "--worker", env=running.env)).returncode == 0 and done,
        30,
        "the doctor finds the worker ready",
    )
    assert asked.stdout.startswith("ready, up for")

    cold = {**running.env, "FRAUDSTREAM_REDIS__PREFIX": running.prefix + "cold"}
    run_ok("fraudstream", "warm-up", "--transactions", str(file), "--until", "2025-02-16", env=cold)
    rows = _rows(running.client, running.prefix)
    assert rows
    assert _rows(running.client, running.prefix + "cold") == rows


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("decision", "x"), "FRAUDSTREAM_KAFKA__GROUPP"),
        (("topics", "check"), "FRAUDSTREAM_KAFKA__GROUPP"),
        (("worker", "--check"), "FRAUDSTREAM_KAFKA__GROUPP"),
    ],
)
def test_every_command_fails_with_one_line(words: tuple[str, ...], told: str) -> None:
    """A misspelt variable: exit code 2, one line on stderr, nothing else."""
    done = run_command("fraudstream", *words, env={"FRAUDSTREAM_KAFKA__GROUPP": "x"})
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr


def _few(history: Path, directory: Path) -> tuple[Path, list[tuple[bytes, bytes]]]:
    """The last transactions of the history without its frauds, as a file and as records."""
    table = last_rows(history, 500)
    table = table.filter([not fraud for fraud in table["is_fraud"].to_pylist()])
    file = directory / "few.parquet"
    pq.write_table(table, file)
    return file, records_of(table.to_pylist())


def _rows(client: redis.Redis, prefix: str) -> dict[bytes, bytes | None]:
    names = list(client.scan_iter(f"{prefix}:{{0}}:row:*", count=1_000))
    start = len(prefix)
    return {name[start:]: value for name, value in zip(names, client.mget(names), strict=True)}

"""Simulator and replayer as processes against a real broker: every record of the file arrives, once, where it belongs."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import Message
from tests.support import consume, create_topic
from tests.support.servers import Kafka

from fraudstream.embedded import start_kafka
from fraudstream_producers.settings import Settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.world import WorldSettings

TopicFactory = Callable[[str, int], str]
PARTITIONS = 4
SIZE = ("--cards", "300", "--terminals", "500", "--seed", "5")
SIMULATION = Simulation(Settings(seed=5, world=WorldSettings(cards=300, terminals=500)))
DAY_MS = 86_400_000


@dataclasses.dataclass(frozen=True)
class Contract:
    """A broker with two topics of one test."""

    bootstrap_servers: str
    transactions: str
    labels: str

    def command(self, command: str, *arguments: str) -> list[str]:
        topics = ("--transactions-topic", self.transactions, "--labels-topic", self.labels)
        module = f"fraudstream_producers.{command}"
        return [sys.executable, "-m", module, *arguments, "-b", self.bootstrap_servers, *topics, "--json"]

    def run(self, command: str, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        ended = subprocess.run(
            self.command(command, *arguments), capture_output=True, text=True, timeout=90, check=False
        )
        assert ended.returncode == exit_code, ended.stderr
        summary: dict[str, Any] = json.loads(ended.stdout)
        return summary


@pytest.fixture
def contract(kafka: Kafka, kafka_topic_factory: TopicFactory) -> Contract:
    topics = (kafka_topic_factory(name, PARTITIONS) for name in ("transactions", "labels"))
    return Contract(kafka.bootstrap_servers, *topics)


@pytest.fixture(scope="module")
def days() -> pa.Table:
    return pa.concat_tables([SIMULATION.day(day).transactions for day in range(10)])


@pytest.fixture(scope="module")
def file(days: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("producers") / "transactions.parquet"
    pq.write_table(days, path, row_group_size=1_000)
    return path


def document(message: Message) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(message.value() or b"")
    return decoded


def expected_partition(key: bytes) -> int:
    """The partition that Kafka's own clients choose; the function is another implementation's than the producers'."""
    partition: int = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
    return partition


def test_a_replay_brings_every_transaction_of_the_file(contract: Contract, file: Path, days: pa.Table) -> None:
    """Count, values, key, partition and timestamp of each record are those of the file; each card's are in order."""
    summary = contract.run("replay", str(file), "--no-labels")
    messages = consume(contract.bootstrap_servers, contract.transactions, len(days))
    sent = {document(message)["transaction_id"]: (document(message), message) for message in messages}
    assert (summary["produced"], summary["labels"], summary["failed"]) == (len(days), 0, 0)
    assert len(sent) == len(days)
    for row in days.to_pylist():
        value, message = sent[row["transaction_id"]]
        assert list(value) == ["transaction_id", "event_time", "card_id", "terminal_id", "amount"]
        assert (value["card_id"], value["terminal_id"], value["amount"]) == (
            row["card_id"],
            row["terminal_id"],
            row["amount"],
        )
        assert message.key() == row["card_id"].encode()
        assert message.partition() == expected_partition(row["card_id"].encode())
        assert message.timestamp()[1] == round(row["event_time"].timestamp() * 1000)
    by_partition = defaultdict(list)
    for message in sorted(messages, key=lambda m: (m.partition(), m.offset())):
        by_partition[message.partition()].append(document(message)["event_time"])
    assert all(times == sorted(times) for times in by_partition.values())


def test_labels_follow_their_transactions_after_the_delay(contract: Contract, file: Path, days: pa.Table) -> None:
    """Labels that fall due before the end arrive with the file's truth, in the partition of their card."""
    summary = contract.run("replay", str(file), "--label-delay", "4d", "--limit", str(len(days) - 100))
    rows = days.slice(0, len(days) - 100).to_pylist()
    end = rows[-1]["event_time"].timestamp()
    due = {row["transaction_id"]: row for row in rows if row["event_time"].timestamp() + 4 * 86_400 <= end}
    assert summary["labels"] == len(due)
    labels = consume(contract.bootstrap_servers, contract.labels, len(due))
    assert {document(label)["transaction_id"] for label in labels} == set(due)
    for label in labels:
        row = due[document(label)["transaction_id"]]
        assert document(label)["is_fraud"] == row["is_fraud"]
        assert document(label)["source"] == "chargeback"
        assert label.timestamp()[1] == round(row["event_time"].timestamp() * 1000) + 4 * DAY_MS
        assert label.key() == row["card_id"].encode()
        assert label.partition() == expected_partition(row["card_id"].encode())
    assert len(consume(contract.bootstrap_servers, contract.transactions, len(rows))) == len(rows)


@pytest.mark.parametrize("option", ["--labels-first", "--drain-labels"])
def test_all_labels_can_be_sent(contract: Contract, file: Path, days: pa.Table, option: str) -> None:
    """First or drained at the end: one label for each transaction."""
    summary = contract.run("replay", str(file), option)
    assert (summary["produced"], summary["labels"]) == (len(days), len(days))
    labels = consume(contract.bootstrap_servers, contract.labels, len(days))
    assert {document(label)["transaction_id"] for label in labels} == set(days["transaction_id"].to_pylist())


def test_dates_choose_what_is_replayed(contract: Contract, file: Path, days: pa.Table) -> None:
    """--from and --until cut at midnights, the first included and the last not."""
    summary = contract.run("replay", str(file), "--from", "2025-01-03", "--until", "2025-01-05", "--no-labels")
    wanted = [row["transaction_id"] for row in days.to_pylist() if row["event_time"].day in {3, 4}]
    messages = consume(contract.bootstrap_servers, contract.transactions, len(wanted))
    assert summary["produced"] == len(wanted)
    assert sorted(document(message)["transaction_id"] for message in messages) == wanted


def test_a_stream_goes_on_where_the_file_ended(contract: Contract, days: pa.Table) -> None:
    """Skipping the days of a file, a stream of the same seed brings the following days of that world."""
    summary = contract.run("simulate", *SIZE, "--skip-days", "7", "--days", "2", "--rate", "max", "--no-labels")
    wanted = pa.concat_tables([SIMULATION.day(day).transactions for day in (7, 8)])
    messages = consume(contract.bootstrap_servers, contract.transactions, len(wanted))
    assert summary["produced"] == len(wanted)
    read = {document(message)["transaction_id"]: document(message) for message in messages}
    ids = wanted["transaction_id"].to_pylist()
    assert set(ids) == set(read) <= set(days["transaction_id"].to_pylist())
    assert [read[name]["amount"] for name in ids] == wanted["amount"].to_pylist()


def test_faults_are_counted_as_they_arrive(contract: Contract) -> None:
    """On the topic are exactly the good, the malformed and the repeated records that the summary counts."""
    arguments = ("--count", "3000", "--rate", "max", "--malformed", "0.05", "--duplicates", "0.05", "--no-labels")
    summary = contract.run("simulate", *SIZE, *arguments)
    total = summary["produced"] + summary["malformed"] + summary["duplicates"]
    messages = consume(contract.bootstrap_servers, contract.transactions, total)
    good: Counter[str] = Counter()
    for message in messages:
        name = (message.value() or b"").partition(b'"transaction_id":"')[2].partition(b'"')[0].decode()
        good[name] += name.startswith("s5-") and not name.endswith("-bad")
    assert summary["produced"] == 3_000
    assert summary["malformed"] > 50
    assert len(+good) == 3_000
    assert good.total() == 3_000 + summary["duplicates"]


def test_a_rate_and_a_time_make_a_number(contract: Contract) -> None:
    """400 a second for 1.5 seconds are 600 transactions, in not less than that time; labels come by their delay."""
    arguments = ("--rate", "400", "--seconds", "1.5", "--label-delay-scale", "0.001", "--start", "now")
    summary = contract.run("simulate", *SIZE, *arguments, "--speed-up", "600")
    assert summary["produced"] == 600
    assert summary["seconds"] >= 599 / 400
    assert 0 < summary["labels"] < 600
    assert not summary["interrupted"]


def test_an_interrupt_flushes_and_reports(contract: Contract) -> None:
    """After SIGINT an endless stream ends with exit code 0, and what it counts is what the topic holds."""
    process = subprocess.Popen(
        contract.command("simulate", *SIZE, "--rate", "2000", "--no-labels"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        consume(contract.bootstrap_servers, contract.transactions, 500, timeout_s=60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["interrupted"]
    assert summary["produced"] >= 500
    assert len(consume(contract.bootstrap_servers, contract.transactions, summary["produced"])) == summary["produced"]


def test_refused_records_are_counted_and_shown(contract: Contract) -> None:
    """Records that cannot be delivered make exit code 1, a count and the first reason; the others arrive."""
    arguments = (
        "--count",
        "2000",
        "--rate",
        "max",
        "--malformed",
        "0.2",
        "--no-labels",
        "-X",
        "message.max.bytes=20000",
    )
    summary = contract.run("simulate", *SIZE, *arguments, exit_code=1)
    assert summary["failed"] > 0
    assert "large" in summary["first_error"].lower()
    assert summary["produced"] == 2_000
    total = summary["produced"] + summary["malformed"]
    assert len(consume(contract.bootstrap_servers, contract.transactions, total)) == total


def test_a_broker_that_dies_is_counted_not_waited_for(tmp_path: Path) -> None:
    """What is not acknowledged within the delivery timeout counts as failed: exit code 1, and every record accounted."""
    with start_kafka(tmp_path, prefer="tansu") as mortal:
        for topic in ("transactions", "labels"):
            create_topic(mortal.bootstrap_servers, topic, PARTITIONS)
        contract = Contract(mortal.bootstrap_servers, "transactions", "labels")
        arguments = ("--rate", "500", "--seconds", "4", "--no-labels", "-X", "delivery.timeout.ms=1500")
        process = subprocess.Popen(
            contract.command("simulate", *SIZE, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            consume(contract.bootstrap_servers, contract.transactions, 200, timeout_s=60)
            mortal.kill()
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    summary = json.loads(out)
    assert process.returncode == 1
    assert summary["produced"] >= 200
    assert summary["failed"] > 0
    assert summary["produced"] + summary["failed"] == 2_000
    assert "records were not delivered" in err


def test_a_full_queue_loses_nothing(contract: Contract, file: Path, days: pa.Table) -> None:
    """With a client queue of 50 records the replay waits for room, again and again, and every record arrives."""
    settings = ("-X", "queue.buffering.max.messages=50", "-X", "linger.ms=1")
    summary = contract.run("replay", str(file), "--no-labels", *settings)
    messages = consume(contract.bootstrap_servers, contract.transactions, len(days))
    assert (summary["produced"], summary["failed"]) == (len(days), 0)
    assert len({document(message)["transaction_id"] for message in messages}) == len(days)


def test_a_missing_topic_is_said_before_anything_is_sent(contract: Contract, file: Path) -> None:
    """A topic that does not exist ends the command with exit code 2 and its name."""
    elsewhere = dataclasses.replace(contract, labels="labels-that-nobody-made")
    ended = subprocess.run(
        elsewhere.command("replay", str(file)), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"error: topic labels-that-nobody-made does not exist at {contract.bootstrap_servers}; create it first"
    ]


def test_a_broker_that_does_not_answer_is_one_line(file: Path) -> None:
    """Nobody listens: exit code 2, one line that names the address and the reason."""
    nowhere = Contract("127.0.0.1:1", "transactions", "labels")
    ended = subprocess.run(
        nowhere.command("replay", str(file), "--broker-wait", "1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: no Kafka broker answers at 127.0.0.1:1: ")
    assert "refused" in line
    assert ended.stdout == ""

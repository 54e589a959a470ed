"""The worker as its users run it: a process between a real Kafka and a real Redis."""

import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from tests.support.documented_keys import undocumented
from tests.support.kafka import consume, produce
from tests.support.labelled import HISTORY_ENDS_MS, last_records
from tests.support.servers import Kafka
from tests.support.system import System, read_all, run_command, run_ok, system
from tests.support.waiting import wait_until

from fraudstream.adapters.redis_store import RedisStore
from fraudstream.codec import decode_example, encode_alert, read_dead_letter
from fraudstream.core.features import FeatureSet
from fraudstream.core.windows import States
from fraudstream.events import Decision
from fraudstream.models.champion import OnnxModel
from fraudstream.models.registry import Registry
from fraudstream.services import startup
from fraudstream.settings import RedisSettings

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "schemas"


@pytest.fixture
def running(kafka: Kafka, redis_url: str, registry: Path, tmp_path: Path) -> Iterator[System]:
    """A system with topics of four partitions and no worker yet."""
    with system(kafka.bootstrap_servers, redis_url, registry, tmp_path) as made:
        made.create_topics(4)
        yield made


def test_every_record_is_decided_refused_or_a_duplicate(running: System, history: Path) -> None:
    """Good, bad and repeated records: each is accounted for, alerts fit their schema, dead letters keep their bytes."""
    good = last_records(history, 3_000)
    bad = [(b"c1", b"not json"), (b"c1", b'{"transaction_id": "x"}'), (b"", good[0][1]), (b"c1", b"\xff\xfe")]
    again = good[100:200]
    running.start_worker()
    _send(running, [*good, *bad, *again])
    running.wait_accounted(len(good) + len(bad) + len(again), 60)

    counts = running.counts()
    assert (counts["decided"], counts["duplicates"]) == (len(good), len(again))
    decisions = read_all(running.bootstrap_servers, running.topics.decisions, len(good))
    assert {d["transaction_id"] for d in decisions} == {json.loads(value)["transaction_id"] for _, value in good}
    alerts = read_all(running.bootstrap_servers, running.topics.alerts, sum(d["action"] != "allow" for d in decisions))
    schema = json.loads((SCHEMAS / "alert.schema.json").read_text("utf-8"))
    for alert in alerts:
        jsonschema.validate(alert, schema)
    assert alerts, "the model alerted nothing: the test says nothing about alerts"
    letters = consume(running.bootstrap_servers, running.topics.transactions_dead_letter, len(bad))
    assert sorted(m.value() or b"" for m in letters) == sorted(value for _, value in bad)
    reasons = Counter(letter.reason for m in letters if (letter := read_dead_letter(m.headers())))  # type: ignore[arg-type] # confluent types header values loosely
    assert reasons == {"invalid_json": 1, "field_missing": 1, "key_missing": 1, "invalid_utf8": 1}


def test_a_killed_worker_loses_and_repeats_nothing(running: System, history: Path) -> None:
    """After kill -9 at any moment: one stored decision each, no alert missing, a repeated alert is the same to the byte."""
    records = last_records(history, 20_000)
    first = running.start_worker(FRAUDSTREAM_BATCH_RECORDS_MAX="256")
    _send(running, records)
    running.wait_accounted(3_000, 60)
    first.kill()
    second = running.start_worker(FRAUDSTREAM_BATCH_RECORDS_MAX="256")
    running.wait_accounted(len(records) // 2, 60)
    second.kill()
    running.start_worker()
    running.wait_accounted(len(records), 60)

    counts = running.counts()
    assert counts["decided"] == len(records)
    assert "duplicates" not in counts
    stored = _stored(running, [json.loads(value)["transaction_id"] for _, value in records])
    expected = {d.transaction_id: encode_alert(d) for d in stored if d is not None and d.action != "allow"}
    assert len(stored) == len(records)
    assert None not in stored
    published: dict[str, set[bytes]] = {}
    for message in consume(running.bootstrap_servers, running.topics.alerts, len(expected)):
        value = message.value() or b""
        published.setdefault(json.loads(value)["transaction_id"], set()).add(value)
    assert all(len(values) == 1 for values in published.values())


def test_two_workers_share_the_partitions(running: System, history: Path) -> None:
    """A worker that joins and one that leaves during the flow: every transaction is decided once."""
    records = last_records(history, 20_000)
    running.start_worker(FRAUDSTREAM_BATCH_RECORDS_MAX="128")
    _send(running, records[:10_000])
    running.wait_accounted(2_000, 60)
    running.start_worker(FRAUDSTREAM_BATCH_RECORDS_MAX="128")
    _send(running, records[10_000:])
    running.wait_accounted(12_000, 60)
    assert running.workers[0].stop() == 0
    running.wait_accounted(len(records), 60)
    assert running.counts()["decided"] == len(records)


def test_fuzzed_records_are_all_accounted_for(running: System, history: Path) -> None:
    """100,000 records, most of them with mutated bytes: each ends as decision, dead letter or duplicate."""
    rng = random.Random(20_180_701)
    good = last_records(history, 20_000)
    records = [_mutated(rng, *rng.choice(good)) if rng.random() < 0.8 else rng.choice(good) for _ in range(100_000)]
    running.start_worker()
    _send(running, records)
    running.wait_accounted(len(records), 120)
    assert running.accounted() == len(records)
    counts = running.counts()
    assert counts["decided"] > 1_000
    assert len([name for name in counts if name.startswith("rejected.")]) >= 8


def test_labels_join_their_decisions_once(running: System, history: Path) -> None:
    """A label before its transaction, after it, and twice: counted once in the terminal's frauds, one example each."""
    records = last_records(history, 200)
    ids = [json.loads(value)["transaction_id"] for _, value in records]
    labels = [
        (
            name.encode(),
            json.dumps({"transaction_id": name, "is_fraud": True, "label_time": 1, "source": "analyst"}).encode(),
        )
        for name in ids
    ]
    running.start_worker()
    produce(running.bootstrap_servers, running.topics.labels, [*labels[:50], *labels[:10]])
    running.wait_ready()
    _send(running, records)
    running.wait_accounted(len(records), 60)
    produce(running.bootstrap_servers, running.topics.labels, [*labels[50:], *labels[100:120]])
    expected = Counter(json.loads(value)["terminal_id"] for _, value in records)

    wait_until(lambda: _frauds(running, expected) == expected, 60, "every terminal has its frauds")
    assert undocumented(running.client, running.prefix) == []
    examples = [
        decode_example(m.value() or b"") for m in consume(running.bootstrap_servers, running.topics.examples, 200)
    ]
    assert sorted(example.transaction_id for example in examples) == sorted(ids)
    by_id = {d.transaction_id: d for d in _stored(running, ids) if d is not None}
    assert all(example.features == by_id[example.transaction_id].features for example in examples)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "Kafka at 127.0.0.1:1 does not answer"),
        ({"FRAUDSTREAM_REDIS__URL": "redis://127.0.0.1:1"}, "Redis"),
        ({"FRAUDSTREAM_MODEL__NAME": "absent"}, "absent"),
        ({"FRAUDSTREAM_BATCH_RECORDS_MAX": "0"}, "FRAUDSTREAM_BATCH_RECORDS_MAX"),
        ({"FRAUDSTREAM_REDIS_URL": "redis://x"}, "FRAUDSTREAM_REDIS_URL"),
        ({"FRAUDSTREAM_TOPICS__ALERTS": "no-such-topic"}, "fraudstream topics create"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_line_and_exit_code_2(
    running: System, wrong: dict[str, str], told: str
) -> None:
    """A bad setting, an absent broker, Redis, model or topic ends the start with exit code 2 and one clear line."""
    done = run_command("fraudstream", "worker", env={**running.env, **wrong}, timeout_s=60)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("fraudstream: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in done.stderr


def test_a_tampered_model_does_not_start(running: System, registry: Path, tmp_path: Path) -> None:
    """One flipped byte in a model file: exit code 2 and a line that names the file."""
    copied = tmp_path / "registry"
    subprocess.run(["cp", "-r", str(registry), str(copied)], check=True)
    model = next(copied.rglob("model.onnx"))
    model.chmod(0o644)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    done = run_command("fraudstream", "worker", env={**running.env, "FRAUDSTREAM_MODEL__REGISTRY": str(copied)})
    assert done.returncode == 2
    assert "model.onnx" in done.stderr


def test_the_configuration_is_printed_without_secrets() -> None:
    """--print-config masks the Redis URL and the broker's password."""
    env = {"FRAUDSTREAM_REDIS__URL": "redis://:hunter2@h:1", "FRAUDSTREAM_KAFKA__SASL_PASSWORD": "hunter3"}
    told = run_ok("fraudstream", "worker", "--print-config", env=env)
    assert json.loads(told)["redis"]["url"] == "**********"
    assert "hunter" not in told


def _send(running: System, records: list[tuple[bytes, bytes]]) -> None:
    """Produce transactions as if they happened when the history ends."""
    topic = running.topics.transactions
    produce(running.bootstrap_servers, topic, records, timestamp_ms=HISTORY_ENDS_MS, timeout_s=120)


def _mutated(rng: random.Random, key: bytes, value: bytes) -> tuple[bytes, bytes]:
    data = bytearray(value)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(5):
            case 0 if data:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 6))
            case 3 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 4:
                del data[at + 1 :]
    return (key if rng.random() < 0.95 else rng.randbytes(3)), bytes(data)


def _open(running: System) -> tuple[FeatureSet, OnnxModel]:
    artefact = Registry(Path(running.env["FRAUDSTREAM_MODEL__REGISTRY"])).load("fraud", "champion")
    features = artefact.feature_set()
    return features, OnnxModel(artefact, features)


def _store(running: System) -> RedisStore:
    features, _ = _open(running)
    return RedisStore(running.redis_url, features, startup.store_settings(RedisSettings(prefix=running.prefix)))


def _stored(running: System, ids: list[str]) -> list[Decision | None]:
    store = _store(running)
    found = []
    for start in range(0, len(ids), 1_000):
        found += store.gather_decisions(ids[start : start + 1_000])
    store.close()
    return found


def _frauds(running: System, terminals: Counter[str]) -> Counter[str]:
    features, _ = _open(running)
    entity = next(e for e in features.entities if e.name == "terminal")
    store = _store(running)
    names = list(terminals)
    states = States.from_rows(entity.layout, store.rows({"terminal": names})["terminal"])
    store.close()
    return Counter(dict(zip(names, states.columns[-1]["frauds"].sum(axis=1).tolist(), strict=True)))

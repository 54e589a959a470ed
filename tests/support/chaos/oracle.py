"""What must be true after a chaos run: the same, key for key in Redis, as after one sequential pass over the same logs.

The pass reads the logs back from the broker, slice after slice, partition after partition, and writes under a prefix of
its own. Only what tells the way and not the end may differ: fences, how many labels were ever parked, and when.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import redis
from confluent_kafka import Consumer, KafkaError, TopicPartition
from msgspec import Struct
from msgspec.structs import replace

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.codec import ModelIdentity, encode_alert, encode_decision, read_dead_letter, unpack_decision
from fraudstream.core.census import Monitor
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Outgoing
from fraudstream.events import Decision, Label
from fraudstream.models.champion import OnnxModel
from fraudstream.models.registry import Registry
from fraudstream.services import startup
from fraudstream.services.labelling import Labeller
from fraudstream.services.scoring import Ending, Scorer
from fraudstream.settings import RedisSettings
from tests.support.chaos.upstream import Sent, Upstream
from tests.support.system import System

BATCH_RECORDS_MAX: Final = 1024
KEYS_PER_CALL: Final = 2_000
# Notes of examples that nobody is known to have published yet.
DUE: Final = b"examples:due"
# What differs between two right runs: how often partitions were taken, what has waited when, what is under way,
# when drift was looked for, and the number that a model was given.
OF_THE_WAY: Final = (b":fence", b"labels:parked:version", DUE, b"drift", b"drift:lease", b"models", b"models:last")
DIFFERENCES_SHOWN: Final = 5

Places = set[tuple[int, int]]  # partition, offset


class Read(Struct, frozen=True, gc=False):
    """A record of a log, as the services take it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any = ()


@dataclass
class Report:
    """What a round came to."""

    transactions: int = 0
    records: int = 0
    alerts: int = 0
    alerts_repeated: int = 0
    decisions_repeated: int = 0
    examples: int = 0
    dead_letters: int = 0
    keys_compared: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)


def check(running: System, upstream: Upstream, broker_kind: str) -> Report:
    """Raise `AssertionError` with what is wrong."""
    idle_s = 0.0 if broker_kind == "apache" else 3.0  # tansu's ends of logs are wrong
    topics = running.topics
    logs = {topic: _read(running, topic, idle_s) for topic in (topics.transactions, topics.labels)}
    passed = MemoryPublisher()
    prefix = f"{running.prefix}-oracle"
    artefact = Registry(Path(running.env["FRAUDSTREAM_MODEL__REGISTRY"])).load("fraud", "champion")
    features = artefact.feature_set()
    model = OnnxModel(artefact, features)
    _sequential(running, prefix, features, model, logs, passed)
    found, wanted = (_everything(running.client, one) for one in (running.prefix, prefix))
    for state in (found, wanted):
        _without_order_of_labels(state[b"counters"])
    firsts = [_without_firsts(of, model.monitor, features) for of in (found, wanted)]
    assert firsts[0] == firsts[1], f"first sights: counted {firsts[0]}, in a sequential pass {firsts[1]}"
    decisions = check_state(found, wanted)
    written = Counter((record.key, record.value) for record in logs[topics.transactions])
    check_sums(upstream, running.counts(), len(decisions), written)
    report = Report(len(decisions), len(logs[topics.transactions]), keys_compared=len(found), counts=running.counts())
    alerts = {name: encode_alert(decision) for name, decision in decisions.items() if decision.action != "allow"}
    assert alerts, "the model alerted nothing: the run says nothing about alerts"
    report.alerts = len(alerts)
    report.alerts_repeated = check_published("alerts", _read(running, topics.alerts, idle_s), alerts)
    answers = {name: encode_decision(decision) for name, decision in decisions.items()}
    report.decisions_repeated = check_published("decisions", _read(running, topics.decisions, idle_s), answers)
    report.examples = _check_examples(_read(running, topics.examples, idle_s), found)
    for topic in (topics.transactions_dead_letter, topics.labels_dead_letter):
        report.dead_letters += _check_letters(topic, _read(running, topic, idle_s), passed.messages)
    return report


def _sequential(  # noqa: PLR0917 - what a worker is made of
    running: System,
    prefix: str,
    features: FeatureSet,
    model: OnnxModel,
    logs: dict[str, list[Read]],
    publisher: MemoryPublisher,
) -> None:
    """One pass, as one worker that nothing happens to would make it."""
    store = RedisStore(running.redis_url, features, startup.store_settings(RedisSettings(prefix=prefix)), timeout_s=60)
    shared: Any = {"clock_ms": startup.now_ms, "topics": running.topics}
    scorer = Scorer(features, model, store, publisher, publish_decisions=False, **shared)
    labeller = Labeller(features, store, publisher, **shared)
    slices: dict[int, dict[tuple[str, int], list[Read]]] = defaultdict(lambda: defaultdict(list))
    for topic, records in logs.items():
        for record in records:
            slices[record.timestamp][topic, record.partition].append(record)
    for _, parts in sorted(slices.items()):
        for (topic, partition), records in sorted(parts.items(), key=lambda item: item[0][0] == running.topics.labels):
            for start in range(0, len(records), BATCH_RECORDS_MAX):
                batch = records[start : start + BATCH_RECORDS_MAX]
                if topic == running.topics.labels:
                    labeller.process(batch)
                    continue
                if partition not in scorer.partitions:
                    scorer.take(partition)
                assert scorer.process(partition, batch).ending is Ending.DONE
    store.close()


def _read(running: System, topic: str, idle_s: float) -> list[Read]:
    """All of a topic, in the order of each partition: to its end, or until nothing comes for `idle_s`."""
    consumer = Consumer(
        {
            "bootstrap.servers": running.bootstrap_servers,
            "group.id": "tests.chaos",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": not idle_s,
            "log_level": 0,
        }
    )
    try:
        partitions = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: list[Read] = []
        deadline = time.monotonic() + 60
        came_at_s = time.monotonic()
        while partitions and not (idle_s and time.monotonic() - came_at_s > idle_s):
            assert time.monotonic() < deadline, f"{topic} was not read to its end within 60 s"
            for message in consumer.consume(10_000, timeout=0.2):
                error = message.error()
                if error is None:
                    place = message.partition(), message.offset(), message.timestamp()[1]
                    found.append(Read(topic, *place, message.key(), message.value(), tuple(message.headers() or ())))
                    came_at_s = time.monotonic()
                elif error.code() == KafkaError._PARTITION_EOF:
                    partitions.discard(message.partition())
        return found
    finally:
        consumer.close()


def _everything(client: redis.Redis, prefix: str) -> dict[bytes, Any]:
    """Every key of a system, without its prefix, and what it holds."""
    head = f"{prefix}:{{0}}:".encode()
    keys = sorted(client.scan_iter(head.replace(b"{", b"\\{") + b"*", count=5_000))
    found: dict[bytes, Any] = {}
    for start in range(0, len(keys), KEYS_PER_CALL):
        some = keys[start : start + KEYS_PER_CALL]
        pipe = client.pipeline(transaction=False)
        for key in some:
            pipe.type(key)
        kinds = pipe.execute()
        for key, kind in zip(some, kinds, strict=True):
            match kind:
                case b"zset":
                    pipe.zrange(key, 0, -1)
                case b"set":
                    pipe.smembers(key)
                case _:
                    (pipe.hgetall if kind == b"hash" else pipe.get)(key)
        # Of sorted sets the members only: they are sorted by when.
        values = (set(value) if isinstance(value, list) else value for value in pipe.execute())
        found.update(zip((key.removeprefix(head) for key in some), values, strict=True))
    return found


def _without_firsts(state: dict[bytes, Any], monitor: Monitor, features: FeatureSet) -> Counter[str]:
    """Take the first sights of shared keys out of the censuses, and add them up.

    Which partition's transaction was the first at a terminal is the way, that there was one is the end.
    """
    names = [f"new.{entity.name}" for entity in features.entities if not entity.owned]
    totals: Counter[str] = Counter()
    for key in [key for key in state if key.startswith(b"census:")]:
        row = bytearray(state[key])
        for name in names:
            at = 8 * (1 + monitor.sums.index(name))  # behind the newest event time
            totals[f"{name} by {key.split(b':')[-1][:1]!r}"] += int.from_bytes(row[at : at + 8], "little")
            row[at : at + 8] = bytes(8)
        state[key] = bytes(row)
    return totals


def _without_order_of_labels(counters: dict[bytes, bytes]) -> None:
    """Whether a label or its transaction is read first is the way: a label that came first waits, and joins all the same."""
    joined, parked, early = (int(counters.pop(b"labels." + name, 0)) for name in (b"joined", b"parked", b"early"))
    counters[b"labels that joined or waited"] = b"%d" % (joined + parked)
    counters[b"labels that wait still"] = b"%d" % (parked - early)


def check_state(found: dict[bytes, Any], wanted: dict[bytes, Any]) -> dict[str, Decision]:
    """Hold the keys against each other; the stored decisions by their transactions."""
    decisions: dict[str, Decision] = {}
    numbers, numbers_passed = (_models(of) for of in (found, wanted))
    assert set(numbers.values()) == set(numbers_passed.values()), (
        f"models {numbers}, in a sequential pass {numbers_passed}"
    )
    for key in [key for key in found if key.startswith(b"decisions:") and isinstance(found[key], dict)]:
        stored, expected = found[key], wanted.get(key, {})
        for name, packed in list(stored.items()):
            if name.startswith(b"\0"):  # a verdict
                continue
            decision = unpack_decision(name.decode(), packed, numbers.__getitem__)
            assert decision.transaction_id not in decisions, f"{name!r} has two stored decisions"
            decisions[decision.transaction_id] = decision
            stored[name] = _timeless(decision)
            if name in expected:
                expected[name] = _timeless(unpack_decision(name.decode(), expected[name], numbers_passed.__getitem__))
    kept = [{key: value for key, value in of.items() if not key.endswith(OF_THE_WAY)} for of in (found, wanted)]
    differing = [key for key in {**kept[0], **kept[1]} if kept[0].get(key) != kept[1].get(key)]
    told = [f"{key!r}: {_difference(found.get(key), wanted.get(key))}" for key in differing[:DIFFERENCES_SHOWN]]
    assert not differing, f"{len(differing)} keys differ from those of a sequential pass: " + "; ".join(told)
    return decisions


def _models(state: dict[bytes, Any]) -> dict[int, ModelIdentity]:
    """The models that decided, by the numbers that packed decisions have for them."""
    return {int(number): ModelIdentity(**json.loads(told)) for told, number in state[b"models"].items()}


def _timeless(decision: Decision) -> Decision:
    return replace(decision, decided_at_ms=0)


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        return ", ".join(f"{name!r} {_difference(found.get(name), wanted.get(name))}" for name in names[:3])
    if isinstance(found, Decision) and isinstance(wanted, Decision):
        fields = [name for name in Decision.__struct_fields__ if getattr(found, name) != getattr(wanted, name)]
        return ", ".join(f"{name} {_difference(getattr(found, name), getattr(wanted, name))}" for name in fields)
    return f"found {found!r}, expected {wanted!r}"


def check_sums(upstream: Upstream, counts: dict[str, int], stored: int, written: Counter[Sent]) -> None:
    """What was sent, and so `written` to the log, is what was counted: this needs no second pass to be believed.

    A broker that was killed may take a batch of upstream's producer, idempotent as it is, a second time: each of its records
    is a further duplicate then, or refused once more.
    """
    sent = Counter(one for part in upstream.slices for one in part.transactions)
    missing, again = sent - written, written - sent
    assert not missing, f"{missing.total()} records that upstream sent are not in the log"
    assert again.keys() <= sent.keys(), "the log has records that upstream never sent"
    refused = sum(n for one, n in again.items() if one in upstream.poison)
    sums = upstream.sums
    rejected = sum(n for name, n in counts.items() if name.startswith("rejected."))
    found = stored, counts.get("decided", 0), counts.get("duplicates", 0), rejected
    repeated = sums.retries + again.total() - refused
    expected = sums.transactions, sums.transactions, repeated, sums.poison + refused
    assert found == expected, f"stored, decided, duplicates, rejected: found {found}, sent {expected}"


def check_published(what: str, records: list[Read], wanted: dict[str, bytes]) -> int:
    """Each is there, and each repetition is the same to the byte; how many repetitions there are."""
    values: dict[str, set[bytes]] = defaultdict(set)
    for record in records:
        value = record.value or b"null"
        values[json.loads(value)["transaction_id"]].add(value)
    missing, more = wanted.keys() - values.keys(), values.keys() - wanted.keys()
    assert not missing, f"{len(missing)} {what} are missing, among them {sorted(missing)[:3]}"
    assert not more, f"{len(more)} {what} that no stored decision explains, among them {sorted(more)[:3]}"
    other = {name for name, found in values.items() if found != {wanted[name]}}
    told = [f"{name}: {values[name]}, stored {wanted[name]!r}" for name in sorted(other)[:2]]
    assert not other, f"{len(other)} {what} were repeated otherwise: " + "; ".join(told)
    return len(records) - len(values)


def _check_examples(records: list[Read], found: dict[bytes, Any]) -> int:
    """Each joined label has its example, or a note in Redis that it is due; how many were published."""
    values: dict[str, set[bytes]] = defaultdict(set)
    for record in records:
        value = record.value or b"null"
        values[json.loads(value)["transaction_id"]].add(value)
    due = {msgspec.msgpack.decode(note, type=Label).transaction_id for note in found.get(DUE, ())}
    slots = (held for key, held in found.items() if key.startswith(b"decisions:") and isinstance(held, dict))
    joined = {name[1:].decode() for held in slots for name in held if name.startswith(b"\0")}
    missing, more = joined - values.keys() - due, values.keys() - joined
    assert not missing, f"{len(missing)} joined labels have neither example nor note, among them {sorted(missing)[:3]}"
    assert not more, f"{len(more)} examples of labels that were never joined, among them {sorted(more)[:3]}"
    other = [name for name, told in values.items() if len(told) > 1]
    assert not other, f"{len(other)} examples were repeated otherwise, among them {values[other[0]]}"
    return len(values)


def _check_letters(topic: str, records: list[Read], passed: list[Outgoing]) -> int:
    """Each refused record has its letter, with the bytes it came with and the reason; how many there are."""
    found = {_letter(record.headers, record.key, record.value) for record in records}
    wanted = {_letter(message.headers, message.key, message.value) for message in passed if message.topic == topic}
    difference = Counter(letter[2] for letter in found ^ wanted)
    assert found == wanted, f"letters of {topic} differ, by reason: {dict(difference)}"
    return len(wanted)


def _letter(headers: Any, key: bytes | None, value: bytes | None) -> tuple[Any, ...]:
    letter = read_dead_letter(headers)
    assert letter is not None
    return letter.partition, letter.offset, letter.reason, key, value


def told(report: Report) -> Iterator[str]:
    """The report in lines."""
    yield (
        f"{report.records:,} records: {report.transactions:,} transactions, each with one stored decision; "
        f"{report.keys_compared:,} keys equal to those of a sequential pass"
    )
    yield (
        f"{report.alerts:,} alerts, {report.alerts_repeated:,} times repeated; decisions {report.decisions_repeated:,} "
        f"times; {report.examples:,} examples, {report.dead_letters:,} dead letters"
    )
    yield "faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(report.faults.items()))

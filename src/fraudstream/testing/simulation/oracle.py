"""What must be true once a run is healed and drained: the same as after one sequential pass, and nothing is missing."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from fraudstream.adapters.memory import MemoryPublisher, MemoryStore
from fraudstream.adapters.redis_keys import EXAMPLE_CLAIM_MS
from fraudstream.codec import decode_example, encode_alert, encode_decision, read_dead_letter
from fraudstream.core.census import CENSUS, Monitor
from fraudstream.core.outcomes import label_outcomes
from fraudstream.core.ports import Outgoing
from fraudstream.events import Decision
from fraudstream.services.labelling import Labeller
from fraudstream.services.scoring import Scorer
from fraudstream.testing.driver import FakeRecord
from fraudstream.testing.simulation.logs import TERMINALS, Logs, Position
from fraudstream.testing.simulation.promises import promise
from fraudstream.topics import TOPICS

if TYPE_CHECKING:
    from fraudstream.testing.simulation.run import Parts, Simulation


def check(run: Simulation) -> None:
    """Raise `PromiseBroken` with what is wrong."""
    logs, store, broker = run.logs, run.store, run.broker
    ends = {tp: len(log) for tp, log in logs.all().items() if log}
    promise({tp: broker.committed.get(tp) for tp in ends} == ends, "committed offsets are not the ends of the logs")
    decisions = dict(zip(logs.copies, store.gather_decisions(list(logs.copies)), strict=True))
    for name, decision in decisions.items():
        promise(decision is not None, f"{name} was never decided")
        assert decision is not None
        copies = logs.copies[name]
        fair = copies if name in logs.crossed else copies[:1]
        promise((decision.partition, decision.offset) in fair, f"{name} was decided for another record than its first")
    _publish_due(run)
    known = {name: decision for name, decision in decisions.items() if decision is not None}
    _check_counts(logs, dict(store.counts()))
    _check_published(known, logs, broker.messages, rewound=run.rewound > 0)
    _check_examples(known, _verdicts(store), broker.messages, rewound=run.rewound > 0)
    _check_state(run.parts, store, known, sequential(run.parts, logs, known))


def _check_counts(logs: Logs, counts: dict[str, int]) -> None:
    rejected = sum(n for name, n in counts.items() if name.startswith("rejected."))
    expected = len(logs.copies), logs.size - len(logs.copies) - len(logs.poison), len(logs.poison)
    found = counts.get("decided", 0), counts.get("duplicates", 0), rejected
    promise(found == expected, f"decided, duplicates, rejected: counted {found}, sent {expected}")
    labels = sum(len(log) for tp, log in logs.all().items() if tp.topic == TOPICS.labels)
    outcomes = label_outcomes(counts)
    told = outcomes["told"], outcomes["rejected"]
    promise(told == (labels, len(logs.poison_labels)), f"labels, rejected ones: counted {told}, sent {labels}")


def _check_published(known: dict[str, Decision], logs: Logs, messages: list[Outgoing], *, rewound: bool) -> None:
    said: dict[str, dict[str, set[bytes]]] = {TOPICS.alerts: defaultdict(set), TOPICS.decisions: defaultdict(set)}
    letters: dict[str, set[Position]] = {TOPICS.transactions_dead_letter: set(), TOPICS.labels_dead_letter: set()}
    for message in messages:
        if message.topic in said:
            value = _content(message.value, rewound=rewound)
            told = json.loads(value)
            if told.get("degraded"):
                _check_provisional(told, known)
            else:
                said[message.topic][told["transaction_id"]].add(value)
        elif message.topic != TOPICS.examples:
            letter = read_dead_letter(message.headers)
            assert letter is not None
            letters[message.topic].add((letter.partition, letter.offset))
    alerts = {name: {_content(encode_alert(d), rewound=rewound)} for name, d in known.items() if d.action != "allow"}
    answers = {name: {_content(encode_decision(d), rewound=rewound)} for name, d in known.items()}
    for what, topic, wanted in (("alerts", TOPICS.alerts, alerts), ("published decisions", TOPICS.decisions, answers)):
        _assert_same(what, dict(said[topic]), wanted)
    promise(letters[TOPICS.transactions_dead_letter] == logs.poison, "dead letters are not the poison")
    promise(letters[TOPICS.labels_dead_letter] == logs.poison_labels, "labels' dead letters are not their poison")


def _publish_due(run: Simulation) -> None:
    """A label worker of later on finds what the dead left behind."""
    run.now_ms += EXAMPLE_CLAIM_MS
    Labeller(run.parts.features, run.store, run.broker, clock_ms=lambda: run.now_ms).publish_due()


def _check_examples(
    known: dict[str, Decision], verdicts: dict[str, bool], messages: list[Outgoing], *, rewound: bool
) -> None:
    """Every verdict has its example, with the decision's features; a repetition is one to the byte."""
    published: dict[str, set[bytes]] = defaultdict(set)
    for message in messages:
        if message.topic == TOPICS.examples and message.value is not None:
            published[decode_example(message.value).transaction_id].add(message.value)
    missing = verdicts.keys() - published.keys()
    promise(not missing, f"verdicts without an example: {sorted(missing)}")
    for name, values in published.items():
        told = [decode_example(value) for value in values]
        promise({example.features for example in told} == {known[name].features}, f"{name}: other features")
        if rewound:  # a verdict may be lost, and another one joined in its place
            promise(
                name not in verdicts or verdicts[name] in {example.is_fraud for example in told},
                f"{name}: another verdict",
            )
        else:
            promise([example.is_fraud for example in told] == [verdicts[name]], f"{name}: {len(told)} examples differ")


def _check_provisional(told: dict[str, Any], known: dict[str, Decision]) -> None:
    """A guess is of a transaction that was decided in the end, and cannot be taken for what was."""
    name = told["transaction_id"]
    promise(name in known, f"{name} was answered provisionally, and never decided")
    promise(told.get("alert_id") in {None, f"alert:{name}:provisional"}, f"{name}: a guess has a final alert's id")


def _content(value: bytes | None, *, rewound: bool) -> bytes:
    """What a repetition has to repeat: every byte, unless the store lost the answer and it was decided anew."""
    assert value is not None
    if not rewound:
        return value
    told = json.loads(value)
    return json.dumps({**told, "decided_at": "", "model": ""}).encode()


def sequential(parts: Parts, logs: Logs, known: dict[str, Decision]) -> MemoryStore:
    """One pass with one worker over the same logs. Of crossed copies, the one that was decided comes first."""
    features, publisher, now_ms = parts.features, MemoryPublisher(), 0
    store = MemoryStore(features, clock_ms=lambda: 0)
    scorer = Scorer(features, parts.model(features, 0), store, publisher, clock_ms=lambda: now_ms)
    labeller = Labeller(features, store, publisher, clock_ms=lambda: now_ms)
    done: set[Position] = set()
    for number, stage in enumerate(logs.stages):
        waits = _waits(logs, known)
        todo = {tp: records for tp, records in stage.items() if tp.topic == TOPICS.transactions and records}
        if number == 0:
            for partition in range(3):
                scorer.take(partition)
        while todo:
            ready = {tp: _until_blocked(records, waits, done) for tp, records in todo.items()}
            promise(any(ready.values()), "no order of the records explains which of the crossed copies were decided")
            for tp, count in ready.items():
                if count:
                    scorer.process(tp.partition, todo[tp][:count])
                    done.update((tp.partition, record.offset) for record in todo[tp][:count])
                    todo[tp] = todo[tp][count:]
            todo = {tp: records for tp, records in todo.items() if records}
        for tp, records in stage.items():
            if tp.topic == TOPICS.labels and records:
                labeller.process(records)
    return store


def _waits(logs: Logs, known: dict[str, Decision]) -> dict[Position, Position]:
    """Crossed copies that lost, and the copy each has to wait for."""
    winners = {name: (known[name].partition, known[name].offset) for name in logs.crossed}
    return {copy: winners[name] for name in logs.crossed for copy in logs.copies[name] if copy[0] != winners[name][0]}


def _until_blocked(records: list[FakeRecord], waits: dict[Position, Position], done: set[Position]) -> int:
    for count, record in enumerate(records):
        wanted = waits.get((record.partition, record.offset))
        if wanted is not None and wanted not in done:
            return count
    return len(records)


def _check_state(parts: Parts, store: MemoryStore, known: dict[str, Decision], expected: MemoryStore) -> None:
    names = list(known)
    decided = {name: _timeless(decision) for name, decision in known.items()}
    passed = dict(zip(names, expected.gather_decisions(names), strict=True))
    _assert_same("stored decisions", decided, {name: d and _timeless(d) for name, d in passed.items()})
    cards = list({decision.card_id: None for decision in known.values()})
    known_keys = {"card_id": cards, "terminal_id": TERMINALS}
    keys = {entity.name: known_keys[entity.field] for entity in parts.features.entities}
    rows, rows_passed = store.rows(keys), expected.rows(keys)
    for entity, wanted in keys.items():
        by_key = (dict(zip(wanted, found[entity], strict=True)) for found in (rows, rows_passed))
        _assert_same(f"rows of {entity}", *by_key)
    monitor = parts.model(parts.features, 0).monitor
    if monitor is not None:
        firsts = [f"new.{entity.name}" for entity in parts.features.entities if not entity.owned]
        _assert_same("censuses", *(_censuses(monitor, firsts, one) for one in (store, expected)))
    _assert_same("counters", _orderless(store), _orderless(expected))
    _assert_same("verdicts", _verdicts(store), _verdicts(expected))
    parked, parked_passed = ({name: label.is_fraud for name, label in s._parked.items()} for s in (store, expected))
    _assert_same("parked labels", parked, parked_passed)


def _orderless(store: MemoryStore) -> dict[str, int]:
    """The counters. Whether a label came before its transaction is a matter of turns: only that it counted once is not."""
    counts = dict(store.counts())
    outcomes = label_outcomes(counts)
    promise(outcomes["waiting"] == len(store._parked), "counted as waiting and parked differ")
    for way in ("joined", "parked", "early"):
        counts.pop(f"labels.{way}", None)
    return counts | {"labels joined or parked": outcomes["joined"] + outcomes["parked"]}


def _timeless(decision: Decision) -> Decision:
    """All that cannot differ between two runs: not when, and not by which of equal models."""
    return replace(decision, decided_at_ms=0, model_version="")


def _censuses(monitor: Monitor, firsts: list[str], store: MemoryStore) -> dict[str, Any]:
    """What was counted, by name. Which partition met a terminal first (`firsts`) is chance: of that, only the sum has to agree."""
    found = {key: monitor.read([row]) for (entity, key), row in store._rows.items() if entity == CENSUS}
    first_sights = sum(counts.sums[name] for counts in found.values() for name in firsts)
    return {"first sights of terminals": first_sights} | {
        name: (
            counts.newest_ms,
            dict(counts.sums) | dict.fromkeys(firsts, 0),
            {f: b.tolist() for f, b in counts.bins.items()},
        )
        for name, counts in found.items()
    }


def _verdicts(store: MemoryStore) -> dict[str, bool]:
    return {name: verdict for g in store._generations.values() for name, verdict in g.verdicts.items()}


def _assert_same(what: str, found: Any, expected: Any) -> None:
    differing = {
        key: (found.get(key), expected.get(key)) for key in {**expected, **found} if found.get(key) != expected.get(key)
    }
    promise(not differing, f"{what} differ: " + "; ".join(f"{k}: {_told(*pair)}" for k, pair in differing.items()))


def _told(found: Any, expected: Any) -> str:
    """Two values in words; of two decisions, the fields in which they differ."""
    if isinstance(found, Decision) and isinstance(expected, Decision):
        fields = {f: (getattr(found, f), getattr(expected, f)) for f in Decision.__struct_fields__}
        return ", ".join(f"{f} {_told(*pair)}" for f, pair in fields.items() if pair[0] != pair[1])
    return f"found {found!r}, expected {expected!r}"

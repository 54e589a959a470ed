"""What goes on the wire: the contract's JSON, in order, with the truth on the labels topic alone."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import fraudstream_producers
from fraudstream.codec import Limits, decode_label, decode_transaction
from fraudstream.events import Label, Rejected, Transaction
from fraudstream_producers.batches import BATCH_RECORDS_MAX, Batch, Pace, batches
from fraudstream_producers.columns import LABELS, epoch_ms
from fraudstream_producers.contract import Encoder, TimeFormat
from fraudstream_producers.interleave import DUPLICATE_LAG_MAX, Faults, Kind, interleave
from fraudstream_producers.live import EventClock, Span, chunks
from fraudstream_producers.malformed import FAULTS, spoil
from fraudstream_producers.settings import Settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.world import WorldSettings

DAY_MS = 86_400_000
SIMULATION = Simulation(Settings(world=WorldSettings(cards=300, terminals=500)))


def stream(span: Span, faults: Faults | None = None, **options: bool) -> list[Batch]:
    plans = interleave(chunks(SIMULATION, span), faults or Faults(), **options)
    return list(batches(plans, Encoder(), Pace()))


def records(made: list[Batch]) -> Iterator[tuple[Kind, bytes | None, bytes | None, int, int]]:
    for batch in made:
        for row in zip(batch.kind, batch.key, batch.value, batch.timestamp_ms, batch.time_ms.tolist(), strict=True):
            yield (Kind(row[0]), *row[1:])


def as_record(key: bytes | None, value: bytes | None, timestamp_ms: int) -> SimpleNamespace:
    return SimpleNamespace(topic="t", partition=0, offset=0, timestamp=timestamp_ms, key=key, value=value, headers=[])


@pytest.mark.parametrize("time_format", ["rfc3339", "ms"])
def test_the_system_reads_what_is_sent(time_format: TimeFormat) -> None:
    """Every transaction and label of a stream is accepted by the system's own decoder, with its values unchanged."""
    plans = interleave(chunks(SIMULATION, Span(days=2, label_delay_scale=0.01)), Faults())
    made = list(batches(plans, Encoder(time_format), Pace()))
    wanted = pa.concat_tables([SIMULATION.day(day).transactions for day in (0, 1)]).to_pylist()
    read = []
    for kind, key, value, timestamp_ms, time_ms in records(made):
        record = as_record(key, value, timestamp_ms)
        if kind == Kind.LABEL:
            label = decode_label(record, Limits())
            assert isinstance(label, Label)
            assert label.label_time_ms == time_ms == timestamp_ms
        else:
            transaction = decode_transaction(record, Limits())
            assert isinstance(transaction, Transaction)
            assert transaction.event_time_ms == time_ms == timestamp_ms
            read.append((transaction.transaction_id, transaction.card_id, transaction.terminal_id, transaction.amount))
    assert read == [(w["transaction_id"], w["card_id"], w["terminal_id"], w["amount"]) for w in wanted]


def test_no_truth_in_transactions() -> None:
    """A transaction has exactly the five fields of the contract, also when made from a table with is_fraud."""
    made = [value for kind, _, value, *_ in records(stream(Span(days=1))) if kind == Kind.TRANSACTION]
    assert {tuple(json.loads(value or b"")) for value in made} == {
        ("transaction_id", "event_time", "card_id", "terminal_id", "amount")
    }


def test_the_key_is_the_card_for_transactions_and_labels() -> None:
    """Transactions and labels of a card have the same key, so the same partition."""
    card = {}
    kinds = set()
    for kind, key, value, *_ in records(stream(Span(days=3, label_delay_scale=0.01))):
        kinds.add(kind)
        name = json.loads(value or b"")["transaction_id"]
        assert card.setdefault(name, key) == key, kind
        if kind == Kind.TRANSACTION:
            assert key == json.loads(value or b"")["card_id"].encode()
    assert kinds == {Kind.TRANSACTION, Kind.LABEL}


def test_labels_are_sent_in_order_when_event_time_reaches_them() -> None:
    """Transactions and labels together never go back in time; each label due by the end was sent, and none other."""
    made = stream(Span(days=6, label_delay_scale=0.2))
    times = np.concatenate([batch.time_ms for batch in made])
    assert (np.diff(times) >= 0).all()
    sent = [json.loads(value or b"")["transaction_id"] for kind, _, value, *_ in records(made) if kind == Kind.LABEL]
    labels = pa.concat_tables([SIMULATION.day(day).labels(0.2) for day in range(6)])
    due = epoch_ms(labels["label_time"]) < SIMULATION.day_start_ms(6)
    assert sorted(sent) == sorted(labels.filter(pa.array(due))["transaction_id"].to_pylist())
    assert 0 < len(sent) < len(labels)


def test_draining_sends_every_label_once() -> None:
    """With drain each transaction has exactly one label, the late ones after the last transaction and unpaced."""
    plans = list(interleave(chunks(SIMULATION, Span(days=3)), Faults(), drain=True))
    assert [plan.paced for plan in plans] == [True, True, True, False]
    made = list(records(list(batches(plans, Encoder(), Pace(rate=1.0)))))
    names = {
        kind: [json.loads(value or b"")["transaction_id"] for k, _, value, *_ in made if k == kind] for kind in Kind
    }
    assert sorted(names[Kind.LABEL]) == sorted(names[Kind.TRANSACTION])
    assert len(set(names[Kind.LABEL])) == len(names[Kind.LABEL])


def test_without_labels_there_is_none() -> None:
    """labels=False leaves transactions only."""
    assert {kind for kind, *_ in records(stream(Span(days=2, labels=False, label_delay_scale=0.01)))} == {
        Kind.TRANSACTION
    }


def test_a_stream_goes_on_where_another_ended() -> None:
    """Days 0 to 4, and days 0 to 2 followed by a stream from day 3 with the earlier labels, are the same records."""
    whole = list(records(stream(Span(days=5, label_delay_scale=0.1))))
    first = list(records(stream(Span(days=3, label_delay_scale=0.1))))
    second = list(records(stream(Span(first_day=3, days=2, label_delay_scale=0.1, earlier_labels=True))))
    assert [row[2] for row in first + second] == [row[2] for row in whole]


def test_a_count_ends_the_stream_exactly() -> None:
    """A stream of 1,000 transactions has 1,000, the first ones of the endless stream, over several days."""
    made = [value for kind, _, value, *_ in records(stream(Span(count=1_000))) if kind == Kind.TRANSACTION]
    longer = [value for kind, _, value, *_ in records(stream(Span(days=3))) if kind == Kind.TRANSACTION]
    assert len(made) == 1_000
    assert made == longer[:1_000]


def test_event_times_can_be_counted_out() -> None:
    """With an event clock transaction n happens at start + n * step, across days, and labels keep their delays."""
    clock = EventClock(1_700_000_000_000, 2.5)
    made = list(records(stream(Span(count=1_500, event_clock=clock), drain=True)))
    times = [time_ms for kind, *_, time_ms in made if kind == Kind.TRANSACTION]
    assert times == [1_700_000_000_000 + int(n * 2.5) for n in range(1_500)]
    natural = {row["transaction_id"]: row for day in range(4) for row in SIMULATION.day(day).labels().to_pylist()}
    events = {row["transaction_id"]: row for day in range(4) for row in SIMULATION.day(day).transactions.to_pylist()}
    sent = [json.loads(value or b"")["transaction_id"] for kind, _, value, *_ in made if kind == Kind.TRANSACTION]
    for kind, _, value, _, time_ms in made:
        if kind == Kind.LABEL:
            name = json.loads(value or b"")["transaction_id"]
            delay = natural[name]["label_time"] - events[name]["event_time"]
            assert time_ms - times[sent.index(name)] == round(delay.total_seconds() * 1000)


def test_what_should_have_happened_before_a_moment_is_left_out() -> None:
    """from_ms cuts the first day only; the days after it are whole."""
    noon_ms = SIMULATION.day_start_ms(0) + DAY_MS // 2
    times = [time_ms for *_, time_ms in records(stream(Span(days=2, from_ms=noon_ms, labels=False)))]
    later = epoch_ms(SIMULATION.day(0).transactions["event_time"]) >= noon_ms
    assert times[0] >= noon_ms
    assert len(times) == later.sum() + len(SIMULATION.day(1).transactions)


def test_faults_come_on_top_and_change_nothing_else() -> None:
    """With bad and repeated records the good ones are the same, in the same order."""
    clean = list(records(stream(Span(days=3, label_delay_scale=0.1))))
    faulty = list(records(stream(Span(days=3, label_delay_scale=0.1), Faults(malformed=0.1, duplicates=0.1, seed=1))))
    good = [row for row in faulty if row[0] in {Kind.TRANSACTION, Kind.LABEL}]
    assert good == clean
    transactions = sum(kind == Kind.TRANSACTION for kind, *_ in good)
    for extra in (Kind.MALFORMED, Kind.DUPLICATE):
        assert sum(kind == extra for kind, *_ in faulty) / transactions == pytest.approx(0.1, rel=0.25)


def test_a_duplicate_repeats_a_recent_record_byte_for_byte() -> None:
    """Each duplicate equals, key and timestamp included, a good record at most 20 transactions before it."""
    made = list(records(stream(Span(days=2, labels=False), Faults(duplicates=0.2, seed=2))))
    assert any(kind == Kind.DUPLICATE for kind, *_ in made)
    recent: list[tuple[bytes | None, bytes | None, int]] = []
    for kind, key, value, timestamp_ms, _ in made:
        if kind == Kind.DUPLICATE:
            assert (key, value, timestamp_ms) in recent
        else:
            recent = [*recent[-DUPLICATE_LAG_MAX:], (key, value, timestamp_ms)]


def test_malformed_records_are_never_taken_for_transactions() -> None:
    """The system's decoder refuses every malformed record of a stream, and all kinds of faults occur."""
    made = records(stream(Span(days=3, labels=False), Faults(malformed=0.2, seed=3)))
    reasons = set()
    for kind, key, value, timestamp_ms, _ in made:
        if kind == Kind.MALFORMED:
            answer = decode_transaction(as_record(key, value, timestamp_ms), Limits())
            assert isinstance(answer, Rejected)
            reasons.add(str(answer.reason))
    assert reasons == set(FAULTS)


@pytest.mark.parametrize(("variant", "reason"), list(enumerate(FAULTS)))
def test_each_fault_is_refused_for_its_own_reason(variant: int, reason: str) -> None:
    """The fault is what it is called, for times as text and as number, and its id is not that of the good record."""
    for event_time in ('"2025-01-01T00:02:08.112Z"', "1735689728112"):
        good = f'{{"transaction_id":"s7-1","event_time":{event_time},"card_id":"c1","terminal_id":"t1","amount":1.5}}'
        key, value = spoil(variant, good.encode())
        answer = decode_transaction(as_record(key, value, 1_735_689_728_112), Limits())
        assert isinstance(answer, Rejected)
        assert str(answer.reason) == reason
        assert b'"s7-1"' not in (value or b"")


def test_batches_are_bounded() -> None:
    """No batch holds more records than its limit, however large a chunk is."""
    made = stream(Span(days=10, label_delay_scale=0.01, count=6_000))
    assert max(map(len, made)) <= BATCH_RECORDS_MAX
    assert sum(map(len, made)) > 6_000


def test_no_timestamp_lies_in_the_future() -> None:
    """A record of tomorrow is stamped with the time of sending, as brokers ask; `now` leaves it to the client."""
    tomorrow = EventClock(SIMULATION.day_start_ms(365_000), 1.0)
    plans = list(interleave(chunks(SIMULATION, Span(count=10, labels=False, event_clock=tomorrow)), Faults()))
    (batch,) = batches(plans, Encoder(), Pace())
    assert max(batch.timestamp_ms) < tomorrow.start_ms
    (batch,) = batches(plans, Encoder(), Pace(), "now")
    assert batch.timestamp_ms == [0] * 10


def test_nulls_of_a_file_stay_nulls() -> None:
    """A row without card has no key and a null in its JSON: refusing it is the reader's business."""
    table = pa.table(
        {
            "transaction_id": ["a"],
            "event_time": pa.array([0], pa.timestamp("ms", tz="UTC")),
            "card_id": pa.array([None], pa.string()),
            "terminal_id": ["t"],
            "amount": [1.0],
        }
    )
    keys, values = Encoder("ms").transactions(table)
    assert keys == [None]
    assert json.loads(values[0])["card_id"] is None


def test_a_labels_json_has_the_fields_of_the_contract() -> None:
    """Reason is there for a fraud and absent, not null, for the others."""
    rows = pa.table(
        {
            "transaction_id": ["a", "b"],
            "card_id": ["c", "d"],
            "is_fraud": [True, False],
            "label_time": pa.array([0, 1], pa.timestamp("ms", tz="UTC")),
            "source": ["analyst", "chargeback"],
            "reason": ["leaked_card", None],
        },
        schema=LABELS,
    )
    _, values = Encoder().labels(rows)
    assert [json.loads(value) for value in values] == [
        {
            "transaction_id": "a",
            "is_fraud": True,
            "label_time": "1970-01-01T00:00:00.000Z",
            "source": "analyst",
            "reason": "leaked_card",
        },
        {"transaction_id": "b", "is_fraud": False, "label_time": "1970-01-01T00:00:00.001Z", "source": "chargeback"},
    ]


def test_the_producers_import_nothing_of_the_system() -> None:
    """They stand for somebody else's code: no module of theirs imports fraudstream."""
    folder = Path(fraudstream_producers.__file__).parent
    paths = list(folder.rglob("*.py"))
    assert len(paths) > 1
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "fraudstream"], path

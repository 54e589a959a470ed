"""The codec against anything: it never raises, and it equals a slow reading of its rules by parsers of another make."""

import json
import random
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fraudstream.codec import Limits, decode_label, decode_transaction
from fraudstream.codec.amounts import minor_units
from fraudstream.codec.decode import decode_transaction_plain
from fraudstream.codec.schemas import render_schemas
from fraudstream.codec.times import TIME_MS_MAX, read_time, write_time
from fraudstream.events import Reason, Record, Rejected
from tests.support import codec_reference as reference
from tests.support.codec_records import LABEL, RECORD_TIME_MS, TOKENS, TRANSACTION, PlainRecord, mutate

LIMITS = Limits()
SMALL_LIMITS = Limits(payload_bytes_max=400, id_length_max=15, amount_max=500.0, nesting_depth_max=3, text_length_max=8)
SCHEMAS = render_schemas()
TRANSACTION_SCHEMA = jsonschema.Draft202012Validator(SCHEMAS["transaction.schema.json"])
LABEL_SCHEMA = jsonschema.Draft202012Validator(SCHEMAS["label.schema.json"])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
times = st.one_of(
    st.datetimes(timezones=st.just(None) | st.timezones()).map(lambda moment: moment.isoformat()),
    st.integers(RECORD_TIME_MS - 40 * 86_400_000, RECORD_TIME_MS + 2 * 86_400_000).map(write_time),
    st.integers(RECORD_TIME_MS - 40 * 86_400_000, RECORD_TIME_MS + 2 * 86_400_000),
    st.integers(-(2**70), 2**70),
    st.floats(0, 1e13),
)
ids = st.text(min_size=1, max_size=16) | st.sampled_from(
    ["card-001234", "", "x" * 128, "x" * 129, "ü", "a b", "a\x85b"]
)


@st.composite
def documents(draw: st.DrawFn, ordinary: dict[str, Any]) -> dict[str, Any]:
    """The ordinary event with some fields changed, likely or not, some left out, some added."""
    likely = {
        "transaction_id": ids,
        "card_id": ids,
        "terminal_id": ids,
        "event_time": times,
        "label_time": times,
        "amount": st.floats() | st.decimals(0, 2_000_000, places=2).map(float) | st.integers(-1, 2_000_000),
        "currency": st.none() | st.sampled_from(["EUR", "USD", "eur", "E1R", "EURO", ""]),
        "reason": st.none() | st.text(max_size=12),
        "source": st.sampled_from(["chargeback", "analyst", "bank"]),
        "is_fraud": st.booleans(),
    }
    document = dict(ordinary)
    for name in draw(st.lists(st.sampled_from(sorted(ordinary)), max_size=3)):
        document[name] = draw(likely[name] | json_values)
    for name in draw(st.lists(st.sampled_from(sorted(ordinary)), max_size=1)):
        document.pop(name, None)
    return document | draw(st.dictionaries(st.text(max_size=6), json_values, max_size=2))


def records(ordinary: dict[str, Any]) -> st.SearchStrategy[PlainRecord]:
    """Records with the document's own card as key, mostly, and the ordinary time, mostly."""
    written = st.builds(
        lambda document, ascii_only, indent: (
            document.get("card_id"),
            json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode(errors="surrogatepass"),
        ),
        documents(ordinary),
        st.booleans(),
        st.sampled_from([None, 1]),
    )
    mutated = st.builds(lambda pair, chance: (pair[0], mutate(pair[1], chance)), written, st.randoms())
    anything = st.binary(max_size=60).map(lambda value: ("card-001234", value))
    tokens = st.lists(st.sampled_from(TOKENS), max_size=12).map(lambda parts: ("card-001234", b"".join(parts)))
    timestamps = st.just(RECORD_TIME_MS) | st.sampled_from([-1, 0, 2**62])

    def build(pair: tuple[Any, bytes], timestamp: int, other_key: bytes | None, *, own_key: bool) -> PlainRecord:
        card_id, value = pair
        key = card_id.encode(errors="surrogatepass") if own_key and isinstance(card_id, str) else other_key
        return PlainRecord(value, key=key, timestamp=timestamp)

    keys = st.none() | st.binary(max_size=3)
    own = st.sampled_from([True, True, True, False])
    return st.builds(build, written | mutated | mutated | anything | tokens, timestamps, keys, own_key=own)


def outcome(result: Any) -> Any:
    """What two ways of reading have to agree on; repr, because it tells 1 from 1.0 from True, and 0.0 from -0.0."""
    return result.reason if isinstance(result, Rejected) else repr(result)


def check_transaction(record: Record, limits: Limits) -> bool:
    """Compare all three readings, and what is accepted with the schema. True when it was accepted."""
    result = decode_transaction(record, limits)
    assert result == decode_transaction_plain(record, limits)
    assert outcome(result) == outcome(decode_transaction_plain(record, limits))
    expected = reference.transaction(record, limits)
    assert outcome(result) == (expected if isinstance(expected, Reason) else repr(expected)), record
    if isinstance(result, Rejected):
        assert 0 < len(result.message) <= 200
        return False
    assert record.value is not None
    TRANSACTION_SCHEMA.validate(json.loads(record.value))
    return True


def check_label(record: Record, limits: Limits) -> bool:
    """Compare both readings, and what is accepted with the schema. True when it was accepted."""
    result = decode_label(record, limits)
    expected = reference.label(record, limits)
    assert outcome(result) == (expected if isinstance(expected, Reason) else repr(expected)), record
    if isinstance(result, Rejected):
        return False
    assert record.value is not None
    LABEL_SCHEMA.validate(json.loads(record.value))
    return True


@settings(max_examples=800, deadline=None)
@given(records(TRANSACTION), st.sampled_from([LIMITS, SMALL_LIMITS]))
def test_any_record_is_the_transaction_or_the_reason_of_the_reference(record: PlainRecord, limits: Limits) -> None:
    """For any bytes, key and timestamp: no exception, and fast, plain and reference reading agree on the answer."""
    check_transaction(record, limits)


@settings(max_examples=500, deadline=None)
@given(records(LABEL), st.sampled_from([LIMITS, SMALL_LIMITS]))
def test_any_record_is_the_label_or_the_reason_of_the_reference(record: PlainRecord, limits: Limits) -> None:
    """For any bytes, key and timestamp: no exception, and the label or reason of the reference."""
    check_label(record, limits)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_records_agree_with_the_reference(seed: int) -> None:
    """Thousands of small accidents to valid records: all readings agree, and neither outcome is rare."""
    accepted, refused = fuzz(seed, 1500)
    assert accepted > 300
    assert refused > 300


def fuzz(seed: int, count: int) -> tuple[int, int]:
    """Check `count` mutated transactions and labels each; how many were accepted and refused."""
    chance = random.Random(seed)
    extras: dict[str, Any] = {"mcc": 5411, "merchant": "Café „Zum \\ Eck“", "device": {"os": "x", "v": [1, 2.5, None]}}
    accepted = 0
    for _ in range(count):
        document = TRANSACTION | (extras if chance.random() < 0.5 else {})
        document["amount"] = chance.randrange(600_000) / 1000
        if chance.random() < 0.3:
            document["event_time"] = RECORD_TIME_MS
        text = json.dumps(document, ensure_ascii=chance.random() < 0.5).encode()
        limits = chance.choice((LIMITS, SMALL_LIMITS))
        accepted += check_transaction(PlainRecord(mutate(text, chance)), limits)
        accepted += check_label(PlainRecord(mutate(json.dumps(LABEL).encode(), chance)), limits)
    return accepted, 2 * count - accepted


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 100_000_000))
@example(28)
@example(100_000_000)
def test_cents_are_exact(cents: int) -> None:
    """Every amount with two decimals, up to the limit, is its number of cents."""
    assert minor_units(float(f"{cents // 100}.{cents % 100:02d}")) == cents


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 10**10), st.integers(3, 6))
@example(285, 3)
@example(1005, 3)
@example(2675, 3)
@example(12345, 3)
def test_finer_amounts_round_half_even_as_written(digits: int, places: int) -> None:
    """Amounts with more decimals round as decimal arithmetic rounds the written number: half to even."""
    written = Decimal(digits).scaleb(-places)
    expected = int((written * 100).quantize(Decimal(1), ROUND_HALF_EVEN))
    assert minor_units(float(written)) == expected


@settings(max_examples=500, deadline=None)
@given(st.floats(0, 3e7))
def test_any_double_rounds_as_its_shortest_text(amount: float) -> None:
    """Any amount at all is rounded like its shortest decimal text."""
    assert minor_units(amount) == reference.minor_units(amount)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, TIME_MS_MAX))
@example(0)
@example(TIME_MS_MAX)
def test_times_come_back(time_ms: int) -> None:
    """Every millisecond of 1970 to 9999 survives being written and read."""
    assert read_time(write_time(time_ms)) == time_ms


@settings(max_examples=500, deadline=None)
@given(
    st.from_regex(
        r"\A[0-9]{4}-[01][0-9]-[0-3][0-9][Tt _]?[0-2][0-9]:[0-6][0-9]:[0-6][0-9]([.,][0-9]{0,9})?([Zz]|[+-][0-2][0-9]:?[0-6][0-9])?\Z"
    )
    | st.text(max_size=30)
)
@example("2018-07-01T00:00:12.9999995Z")
@example("9999-12-31T23:59:59.9999995Z")
@example("0001-01-01T00:00:00+23:59")
@example("2016-12-31T23:59:60Z")
def test_times_are_read_as_the_rule_says(text: str) -> None:
    """Texts that are or nearly are RFC 3339 give the milliseconds of the rule, or None."""
    assert read_time(text) == reference.time_ms(text)

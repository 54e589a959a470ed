"""Decisions of any content: they come back from JSON and from storage, and validate against the published schemas."""

import json
from typing import Any

import jsonschema
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudstream.codec import (
    ModelIdentity,
    UnreadableDecision,
    UnreadableExample,
    UnreadableModelEvent,
    decode_decision,
    decode_example,
    decode_model_event,
    encode_alert,
    encode_decision,
    encode_example,
    encode_model_event,
    pack_decision,
    unpack_decision,
)
from fraudstream.codec.schemas import render_schemas
from fraudstream.codec.times import TIME_MS_MAX
from fraudstream.events import Contribution, Decision, Example, ModelEvent, ModelEventKind
from tests.support.codec_reference import Number, Reader

SCHEMAS = {
    name: jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for name, schema in render_schemas().items()
}

texts = st.text(max_size=20)
probabilities = st.floats(0, 1)
scores = probabilities | st.floats(0, 1, width=32) | st.just(-0.0) | st.just(0.5)
times_ms = st.integers(0, TIME_MS_MAX)
decisions = st.builds(
    Decision,
    transaction_id=texts,
    card_id=texts,
    terminal_id=texts,
    event_time_ms=times_ms,
    decided_at_ms=times_ms,
    amount=st.floats(0, 3e7) | st.integers(0, 10**9).map(lambda cents: cents / 100),
    action=st.sampled_from(["allow", "review", "block"]),
    score=scores,
    champion_score=scores,
    threshold=probabilities | st.integers(0, 10**6).map(lambda millionths: millionths / 10**6),
    model_name=texts,
    model_version=texts,
    features_digest=texts,
    features=st.lists(st.binary(min_size=4, max_size=4), max_size=5).map(b"".join),
    reasons=st.lists(
        st.builds(Contribution, texts, texts, st.floats(allow_nan=False, allow_infinity=False)), max_size=4
    ).map(tuple),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    online_score=st.none() | scores,
    degraded=st.booleans(),
)


def same(one: Decision, other: Decision) -> bool:
    """Equal to the last bit: repr tells 0.0 from -0.0 and 1 from 1.0."""
    return one == other and repr(one) == repr(other)


def number_free(value: Any) -> Any:
    """A value as the reference parser reads it, with numbers as doubles and objects as dictionaries."""
    if isinstance(value, tuple):
        return {key: number_free(content) for key, content in value}
    if isinstance(value, list):
        return [number_free(content) for content in value]
    return float(value) if isinstance(value, Number) else value


@settings(max_examples=400)
@given(decisions)
def test_decision_comes_back_from_json(decision: Decision) -> None:
    """Encoding loses nothing, is valid under the schema, and any JSON parser reads the same."""
    value = encode_decision(decision)
    assert same(decode_decision(value), decision)
    SCHEMAS["decision.schema.json"].validate(json.loads(value))
    assert number_free(Reader(value.decode()).document()) == json.loads(value, parse_int=float)


@settings(max_examples=300)
@given(decisions.filter(lambda decision: decision.action != "allow"))
def test_alert_is_valid(decision: Decision) -> None:
    """Every alert validates against the published schema, twice the same bytes."""
    value = encode_alert(decision)
    SCHEMAS["alert.schema.json"].validate(json.loads(value))
    assert encode_alert(msgspec.structs.replace(decision)) == value


@settings(max_examples=400)
@given(decisions, st.integers(0, 2**40))
def test_decision_comes_back_from_storage(decision: Decision, model_ref: int) -> None:
    """Packing loses nothing, so what is published from storage is the same to the byte."""
    model = ModelIdentity(decision.model_name, decision.model_version, decision.features_digest)
    packed = pack_decision(decision, model_ref)
    stored = unpack_decision(decision.transaction_id, packed, {model_ref: model}.__getitem__)
    assert same(stored, decision)
    assert encode_decision(stored) == encode_decision(decision)
    assert pack_decision(stored, model_ref) == packed


@settings(max_examples=300)
@given(decisions, st.booleans(), times_ms, st.sampled_from(["chargeback", "analyst"]))
def test_example_comes_back_from_json(decision: Decision, is_fraud: bool, label_time_ms: int, source: Any) -> None:
    """An example loses nothing on its topic and validates."""
    fields = {name: getattr(decision, name, None) for name in Example.__struct_fields__}
    example = Example(**fields | {"is_fraud": is_fraud, "label_time_ms": label_time_ms, "source": source})
    value = encode_example(example)
    assert decode_example(value) == example
    assert repr(decode_example(value)) == repr(example)
    SCHEMAS["example.schema.json"].validate(json.loads(value))


model_events = st.builds(
    ModelEvent,
    event_id=texts,
    kind=st.sampled_from(ModelEventKind),
    state=st.sampled_from(["began", "ended", "happened"]),
    time_ms=times_ms,
    subject=texts,
    message=texts,
    model_name=texts,
    model_version=texts,
    values=st.dictionaries(
        texts, texts | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    ),
)


@settings(max_examples=300)
@given(model_events)
def test_model_event_comes_back_from_json(event: ModelEvent) -> None:
    """A model event loses nothing on its topic and validates."""
    value = encode_model_event(event)
    assert decode_model_event(value) == event
    SCHEMAS["model-event.schema.json"].validate(json.loads(value))


@settings(max_examples=400)
@given(st.binary(max_size=80) | st.builds(lambda tail: b"\x9b" + tail, st.binary(max_size=60)))
def test_any_bytes_are_a_decision_or_say_they_are_none(value: bytes) -> None:
    """Readers of our own topics and store get what they expect or the error that says it is none, nothing else."""
    readers = decode_decision, decode_example, decode_model_event
    for read in (*readers, lambda packed: unpack_decision("t", packed, {}.__getitem__)):
        try:
            read(value)
        except (UnreadableDecision, UnreadableExample, UnreadableModelEvent):
            continue

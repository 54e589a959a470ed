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
    decode_decision,
    encode_alert,
    encode_decision,
    pack_decision,
    unpack_decision,
)
from fraudstream.codec.schemas import render_schemas
from fraudstream.codec.times import TIME_MS_MAX
from fraudstream.events import Contribution, Decision
from tests.support.codec_reference import Number, Reader

SCHEMAS = {
    name: jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for name, schema in render_schemas().items()
}

texts = st.text(max_size=20)
probabilities = st.floats(0, 1)
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
    score=probabilities,
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


@settings(max_examples=400, deadline=None)
@given(decisions)
def test_decision_comes_back_from_json(decision: Decision) -> None:
    """Encoding loses nothing, is valid under the schema, and any JSON parser reads the same."""
    value = encode_decision(decision)
    assert same(decode_decision(value), decision)
    SCHEMAS["decision.schema.json"].validate(json.loads(value))
    assert number_free(Reader(value.decode()).document()) == json.loads(value, parse_int=float)


@settings(max_examples=300, deadline=None)
@given(decisions.filter(lambda decision: decision.action != "allow"))
def test_alert_is_valid(decision: Decision) -> None:
    """Every alert validates against the published schema, twice the same bytes."""
    value = encode_alert(decision)
    SCHEMAS["alert.schema.json"].validate(json.loads(value))
    assert encode_alert(msgspec.structs.replace(decision)) == value


@settings(max_examples=400, deadline=None)
@given(decisions, st.integers(0, 2**40))
def test_decision_comes_back_from_storage(decision: Decision, model_ref: int) -> None:
    """Packing loses nothing, so what is published from storage is the same to the byte."""
    model = ModelIdentity(decision.model_name, decision.model_version, decision.features_digest)
    packed = pack_decision(decision, model_ref)
    stored = unpack_decision(decision.transaction_id, packed, {model_ref: model}.__getitem__)
    assert same(stored, decision)
    assert encode_decision(stored) == encode_decision(decision)
    assert pack_decision(stored, model_ref) == packed


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80) | st.builds(lambda tail: b"\x9b\x01" + tail, st.binary(max_size=60)))
def test_any_bytes_are_a_decision_or_say_they_are_none(value: bytes) -> None:
    """Readers of our own topics and store get a decision or `UnreadableDecision`, nothing else."""
    for read in (decode_decision, lambda packed: unpack_decision("t", packed, {}.__getitem__)):
        try:
            read(value)
        except UnreadableDecision:
            continue

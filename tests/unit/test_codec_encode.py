"""Decisions to bytes, in JSON and packed, and the headers of dead letters."""

import base64
import json
import math
import struct

import msgspec
import numpy as np
import pytest
from tests.support.codec_records import PlainRecord

from fraudstream.codec import (
    DeadLetter,
    ModelIdentity,
    UnreadableDecision,
    alert_id,
    dead_letter_headers,
    decode_decision,
    encode_alert,
    encode_decision,
    original_headers,
    pack_decision,
    read_dead_letter,
    unpack_decision,
)
from fraudstream.events import Contribution, Decision, Reason, Rejected

MODEL = ModelIdentity("champion", "2018-06-25.1", "5f" * 32)
MODELS = {7: MODEL}
REASONS = (
    Contribution("amount_to_mean_30d", "amount 5.3 times the card's mean of 30 days", 1.75),
    Contribution("night", "at night (3 h) – „rare“", 0.25),
)
ALLOW = Decision(
    transaction_id="tx-00000000000000042",
    card_id="card-0001234",
    terminal_id="term-0004321",
    event_time_ms=1_530_403_212_000,
    decided_at_ms=1_530_403_212_007,
    amount=123.45,
    action="allow",
    score=0.01234567890123456,
    champion_score=0.01234567890123456,
    threshold=0.5,
    model_name=MODEL.name,
    model_version=MODEL.version,
    features_digest=MODEL.features_digest,
    features=struct.pack("<40f", *range(40)),
    reasons=(),
    partition=3,
    offset=123_456,
)
BLENDED = msgspec.structs.replace(
    ALLOW, score=float(np.float32(0.01)), champion_score=float(np.float32(0.02)), online_score=float(np.float32(0.005))
)
BLOCK = msgspec.structs.replace(ALLOW, action="block", score=0.97, threshold=0.9, reasons=REASONS)


def test_alert_on_the_wire() -> None:
    """An alert has the documented fields in their order, times in RFC 3339 with milliseconds, and nothing else."""
    fields = json.loads(encode_alert(BLOCK))
    assert list(fields.items()) == [
        ("alert_id", "alert:tx-00000000000000042"),
        ("transaction_id", "tx-00000000000000042"),
        ("card_id", "card-0001234"),
        ("terminal_id", "term-0004321"),
        ("amount", 123.45),
        ("action", "block"),
        ("score", 0.97),
        ("threshold", 0.9),
        ("reasons", [msgspec.to_builtins(reason) for reason in REASONS]),
        ("model", {"name": "champion", "version": "2018-06-25.1"}),
        ("event_time", "2018-07-01T00:00:12.000Z"),
        ("decided_at", "2018-07-01T00:00:12.007Z"),
    ]
    assert fields["alert_id"] == alert_id(BLOCK.transaction_id)


def test_decision_on_the_wire() -> None:
    """A decision has the alert's fields, less its id, and its features, their digest and its source."""
    fields = json.loads(encode_decision(BLOCK))
    alert = json.loads(encode_alert(BLOCK))
    del alert["alert_id"]
    assert list(fields) == [*alert, "features", "features_digest", "source", "champion_score", "online_score"]
    assert (fields["champion_score"], fields["online_score"]) == (BLOCK.champion_score, None)
    assert fields == fields | alert
    assert struct.unpack("<40f", base64.b64decode(fields["features"])) == tuple(range(40))
    assert fields["features_digest"] == "5f" * 32
    assert fields["source"] == {"partition": 3, "offset": 123_456}


def test_decision_without_state_says_so_on_the_wire() -> None:
    """Only a degraded decision has the field, as true."""
    degraded = msgspec.structs.replace(BLENDED, degraded=True)
    assert json.loads(encode_decision(degraded)) == json.loads(encode_decision(BLENDED)) | {"degraded": True}
    assert "degraded" not in json.loads(encode_decision(BLENDED))


def test_allowed_transaction_has_no_alert() -> None:
    """Asking for the alert of an allow is a bug of the caller, and said so."""
    with pytest.raises(ValueError, match="no alert"):
        encode_alert(ALLOW)


@pytest.mark.parametrize("decision", [ALLOW, BLOCK, BLENDED])
def test_stored_decision_is_published_again_the_same(decision: Decision) -> None:
    """What was packed and unpacked, after the model has changed, gives the same bytes on both topics."""
    models = MODELS | {8: ModelIdentity("champion", "2018-07-02.1", "60" * 32)}
    stored = unpack_decision(decision.transaction_id, pack_decision(decision, 7), models.__getitem__)
    assert stored == decision
    assert encode_decision(stored) == encode_decision(decision)
    if decision.action != "allow":
        assert encode_alert(stored) == encode_alert(decision)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"action": "review", "score": 0.123456789, "champion_score": 0.123456789, "amount": 41_999_999.99},
        {"threshold": 0.123456789012345},  # neither a decimal of six places
        {"threshold": 0.123457, "decided_at_ms": 1_795_000_000_000},  # a replay of 2018 in 2026
        {"offset": 2**32 - 1, "partition": 127},
    ],
)
def test_stored_decision_is_small(changes: dict[str, float]) -> None:
    """With 40 features, ids of 12 characters and its own id of 20, a decision takes at most 250 bytes."""
    decision = msgspec.structs.replace(ALLOW, **changes)
    packed = pack_decision(decision, 41)
    assert len(decision.transaction_id) == 20
    assert len(packed) + 20 <= 250
    assert unpack_decision(decision.transaction_id, packed, {41: MODEL}.__getitem__) == decision


def test_an_online_model_costs_a_stored_decision_eight_bytes() -> None:
    """Models answer in float32: the champion's own score and the online model's take four bytes each."""
    alone = msgspec.structs.replace(BLENDED, champion_score=BLENDED.score, online_score=None)
    assert len(pack_decision(BLENDED, 7)) == len(pack_decision(alone, 7)) + 8
    assert len(pack_decision(msgspec.structs.replace(alone, degraded=True), 7)) == len(pack_decision(alone, 7))


def test_long_lived_table_of_models_costs_two_bytes() -> None:
    """Model references beyond 42 take three bytes instead of one, up to 21,844 versions."""
    assert len(pack_decision(ALLOW, 21_844)) == len(pack_decision(ALLOW, 41)) + 2


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x9b",
        b"\x9b\x01",
        b"\x9b\x03" + pack_decision(ALLOW, 7)[2:],
        b"\x9b\x00" + pack_decision(ALLOW, 7)[2:],
        pack_decision(ALLOW, 7)[:-1],
        pack_decision(ALLOW, 7) + b"\x00",
        pack_decision(ALLOW, 8),  # a model that is not in the table
        encode_decision(ALLOW),
        msgspec.msgpack.encode([1, 21, "c", "t", 0, 0, 0, 0, 0, b"short", []]),
        msgspec.msgpack.encode([1, -1, "c", "t", 0, 0, 0, 0, 0, bytes(14), []]),
        msgspec.msgpack.encode([2, 21, "c", "t", 0, 0, 0, 0, 0, b"short", []]),
        msgspec.msgpack.encode([2, 21, "c", "t", 0, 0, 0, 0, 0, b"\0\0\0\0\0\0\x40" + bytes(28), []]),  # a later flag
    ],
)
def test_what_is_no_packed_decision_says_so(packed: bytes) -> None:
    """Foreign, cut or future bytes in the store are an error of ours that names itself."""
    with pytest.raises(UnreadableDecision):
        unpack_decision("tx", packed, MODELS.__getitem__)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"{}",
        b"[" * 100_000,
        encode_alert(BLOCK),
        encode_decision(ALLOW).replace(b"allow", b"admit"),
        encode_decision(ALLOW).replace(b"2018-07-01T", b"2018-07-00T"),
        encode_decision(ALLOW).replace(b"0.5", b"null"),
    ],
)
def test_what_is_no_decision_says_so(value: bytes) -> None:
    """Foreign bytes on the decisions topic are an error of ours that names itself."""
    with pytest.raises(UnreadableDecision):
        decode_decision(value)


def test_reader_ignores_fields_of_a_later_version() -> None:
    """A decision with a further field is read."""
    assert decode_decision(encode_decision(BLOCK).replace(b"{", b'{"new": [1], ', 1)) == BLOCK


def test_numbers_survive_the_wire_to_the_last_bit() -> None:
    """Scores, amounts and contributions come back as the same doubles."""
    odd = (5e-324, 0.1 + 0.2, 1 / 3, math.nextafter(1, 0), 1.0)
    for number in odd:
        contribution = Contribution("c", "t", -number * 1e300)
        decision = msgspec.structs.replace(
            BLOCK,
            score=number,
            champion_score=number / 3,
            online_score=number,
            threshold=number,
            amount=number,
            reasons=(contribution,),
        )
        assert decode_decision(encode_decision(decision)) == decision
        assert unpack_decision(decision.transaction_id, pack_decision(decision, 7), MODELS.__getitem__) == decision


RECORD = PlainRecord(b"\xff", key=b"\x00", headers=(("trace", b"\x01"), ("trace", b"\x02"), ("none", None)))
REJECTED = Rejected(Reason.INVALID_UTF8, "not UTF-8 from byte 0")


def test_dead_letter_says_what_and_where() -> None:
    """Original headers come first and unchanged; ours name reason, words, place and times."""
    assert dead_letter_headers(RECORD, REJECTED, 1_530_403_215_000) == [
        ("trace", b"\x01"),
        ("trace", b"\x02"),
        ("none", None),
        ("fraudstream-reason", b"invalid_utf8"),
        ("fraudstream-message", b"not UTF-8 from byte 0"),
        ("fraudstream-topic", b"transactions"),
        ("fraudstream-partition", b"3"),
        ("fraudstream-offset", b"41"),
        ("fraudstream-timestamp", b"1530403212345"),
        ("fraudstream-time", b"2018-07-01T00:00:15.000Z"),
    ]


def test_dead_letter_is_read_and_replayed() -> None:
    """A reader gets the facts back, and a replay gets the record's own headers back."""
    headers = dead_letter_headers(RECORD, REJECTED, 1_530_403_215_000)
    assert read_dead_letter(headers) == DeadLetter(
        reason="invalid_utf8",
        message="not UTF-8 from byte 0",
        topic="transactions",
        partition=3,
        offset=41,
        timestamp_ms=1_530_403_212_345,
        time="2018-07-01T00:00:15.000Z",
    )
    assert original_headers(headers) == list(RECORD.headers)


def test_dead_letter_that_is_refused_again_has_one_set_of_headers() -> None:
    """A replayed dead letter that is refused again names its newest refusal only."""
    headers = dead_letter_headers(RECORD, REJECTED, 1_530_403_215_000)
    again = PlainRecord(b"\xff", headers=headers, offset=99, timestamp=-1)
    twice = dead_letter_headers(again, REJECTED, 1_530_403_216_000)
    assert len(twice) == len(headers)
    assert dict(twice)["fraudstream-offset"] == b"99"
    assert dict(twice)["fraudstream-timestamp"] == b"-1"


@pytest.mark.parametrize(
    "headers",
    [None, (), (("fraudstream-reason", b"x"),), tuple((f"fraudstream-{n}", b"\xff") for n in ("offset", "time"))],
)
def test_other_headers_are_no_dead_letter(headers: object) -> None:
    """A record that is no dead letter of ours, or has broken headers, reads as None."""
    assert read_dead_letter(headers) is None  # type: ignore[arg-type]

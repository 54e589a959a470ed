"""Records to transactions and labels: one or more examples of each reason, and of what is taken."""

import json
from typing import Any

import pytest
from tests.support.codec_records import (
    LABEL,
    RECORD_TIME_MS,
    TRANSACTION,
    PlainRecord,
    label_record,
    record_of,
    transaction_record,
)

from fraudstream.codec import Limits, decode_label, decode_transaction
from fraudstream.errors import SettingsError
from fraudstream.events import Label, Reason, Rejected, Transaction

LIMITS = Limits()
DAY_MS = 86_400_000
ORDINARY = json.dumps(TRANSACTION)


def raw(old: str, new: str, ordinary: str = ORDINARY) -> PlainRecord:
    """The ordinary transaction with a part of its text replaced."""
    assert old in ordinary
    return PlainRecord(ordinary.replace(old, new).encode())


def nested(depth: int) -> PlainRecord:
    """A valid transaction whose objects and arrays are `depth` deep."""
    return raw("{", '{"x": ' + "[" * (depth - 1) + "]" * (depth - 1) + ", ")


REFUSED_TRANSACTIONS: list[tuple[Reason, PlainRecord]] = [
    (Reason.TOMBSTONE, PlainRecord(None)),
    (Reason.TOMBSTONE, PlainRecord(None, key=None)),
    (Reason.KEY_MISSING, PlainRecord(ORDINARY.encode(), key=None)),
    (Reason.KEY_MISSING, PlainRecord(ORDINARY.encode(), key=b"")),
    (Reason.KEY_MISSING, PlainRecord(b"not JSON", key=None)),
    (Reason.PAYLOAD_TOO_LARGE, transaction_record(note="x" * 65_536)),
    (Reason.PAYLOAD_TOO_LARGE, PlainRecord(b"\xff" * 65_537)),
    (Reason.INVALID_UTF8, PlainRecord(b"\xff\xfe")),
    (Reason.INVALID_UTF8, PlainRecord(ORDINARY.encode().replace(b"EUR", b"E\xfcR"))),
    (Reason.INVALID_UTF8, PlainRecord(ORDINARY.encode().replace(b"{", b'{"note": "caf\xe9", '))),
    (Reason.INVALID_UTF8, PlainRecord(b'"\xed\xa0\x80"')),
    (Reason.NESTED_TOO_DEEP, nested(17)),
    (Reason.NESTED_TOO_DEEP, PlainRecord(b"[" * 65_536)),
    (Reason.NESTED_TOO_DEEP, PlainRecord(b'{"a":' * 10_000)),
    (Reason.INVALID_JSON, PlainRecord(b"")),
    (Reason.INVALID_JSON, PlainRecord(b" ")),
    (Reason.INVALID_JSON, PlainRecord(b"\xef\xbb\xbf" + ORDINARY.encode())),
    (Reason.INVALID_JSON, PlainRecord(ORDINARY.encode()[:-1])),
    (Reason.INVALID_JSON, PlainRecord(ORDINARY.encode() + b"x")),
    (Reason.INVALID_JSON, raw('"EUR"', "'EUR'")),
    (Reason.INVALID_JSON, raw("12.34", "012.34")),
    (Reason.INVALID_JSON, raw("12.34", "+12.34")),
    (Reason.INVALID_JSON, raw("terminal-4321", "terminal\n4321")),
    (Reason.INVALID_JSON, raw("terminal-4321", "\\ud83d")),
    (Reason.INVALID_JSON, raw("{", '{"\\ude00": 1, ')),
    (Reason.INVALID_JSON, raw("{", '{"x": NaN, ')),
    (Reason.INVALID_JSON, raw("{", '{"x": {"amount": NaN}, ')),
    (Reason.INVALID_JSON, raw('"card-001234"', "NaN")),
    (Reason.INVALID_JSON, PlainRecord(b"Infinity")),
    (Reason.INVALID_JSON, PlainRecord(b"1" * 65_000 + b"x")),
    (Reason.DUPLICATE_KEY, raw("{", '{"amount": 1, ')),
    (Reason.DUPLICATE_KEY, raw("{", '{"card\\u005fid": "card-001234", ')),
    (Reason.DUPLICATE_KEY, raw("{", '{"x": 1, "x": 1, ')),
    (Reason.DUPLICATE_KEY, raw("{", '{"currency": null, ')),
    (Reason.DUPLICATE_KEY, raw("{", '{"x": [{"y": {"a": 1, "a": 1}}], ')),
    (Reason.DUPLICATE_KEY, PlainRecord(b'[{"a": 1, "a": 1}]')),
    (Reason.NOT_AN_OBJECT, PlainRecord(b"[]")),
    (Reason.NOT_AN_OBJECT, PlainRecord(b"null")),
    (Reason.NOT_AN_OBJECT, PlainRecord(b'"text"')),
    (Reason.NOT_AN_OBJECT, PlainRecord(b"9" * 65_000)),
    (Reason.FIELD_MISSING, PlainRecord(b"{}")),
    *[(Reason.FIELD_MISSING, transaction_record(**{name: ...})) for name in TRANSACTION if name != "currency"],
    *[(Reason.FIELD_TYPE, transaction_record(**{name: None})) for name in TRANSACTION if name != "currency"],
    *[(Reason.FIELD_TYPE, transaction_record(**{name: True})) for name in TRANSACTION],
    *[(Reason.FIELD_TYPE, transaction_record(**{name: [1]})) for name in TRANSACTION],
    *[(Reason.FIELD_TYPE, transaction_record(**{name: {"a": 1}})) for name in TRANSACTION],
    *[(Reason.FIELD_TYPE, transaction_record(**{name: 7})) for name in ("transaction_id", "card_id", "currency")],
    (Reason.FIELD_TYPE, transaction_record(amount="12.34")),
    *[(Reason.ID_EMPTY, transaction_record(**{name: ""})) for name in ("transaction_id", "card_id", "terminal_id")],
    *[(Reason.ID_TOO_LONG, transaction_record(**{n: "x" * 129})) for n in ("transaction_id", "card_id", "terminal_id")],
    (Reason.KEY_MISMATCH, record_of(TRANSACTION, key=b"card-001235")),
    (Reason.KEY_MISMATCH, record_of(TRANSACTION, key=b"\xff")),
    (Reason.KEY_MISMATCH, record_of(TRANSACTION, key=b'"card-001234"')),
    *[
        (Reason.AMOUNT_NOT_FINITE, raw("12.34", text))
        for text in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400)
    ],
    (Reason.AMOUNT_NEGATIVE, transaction_record(amount=-0.01)),
    (Reason.AMOUNT_NEGATIVE, transaction_record(amount=-1)),
    (Reason.AMOUNT_TOO_LARGE, transaction_record(amount=1_000_000.01)),
    (Reason.AMOUNT_TOO_LARGE, transaction_record(amount=10**300)),
    *[
        (Reason.EVENT_TIME_UNREADABLE, transaction_record(event_time=value))
        for value in (
            "",
            "yesterday",
            "2018-07-01",
            "2018-07-01T00:00:12",
            "2018-07-01T00:00Z",
            "2018-02-29T00:00:00Z",
            "2018-07-01T24:00:00Z",
            "2018-07-01T00:00:60Z",
            "2018-07-01T00:00:12+24:00",
            "1530403212345",
            RECORD_TIME_MS + 0.5,
        )
    ],
    (Reason.EVENT_TIME_UNREADABLE, raw('"2018-07-01T00:00:12.345Z"', "1e999")),
    (Reason.EVENT_TIME_OUT_OF_RANGE, transaction_record(event_time=RECORD_TIME_MS - 30 * DAY_MS - 1)),
    (Reason.EVENT_TIME_OUT_OF_RANGE, transaction_record(event_time=RECORD_TIME_MS + DAY_MS + 1)),
    (Reason.EVENT_TIME_OUT_OF_RANGE, transaction_record(event_time=RECORD_TIME_MS // 1000)),  # seconds
    (Reason.EVENT_TIME_OUT_OF_RANGE, transaction_record(event_time="1970-01-01T00:00:00Z")),
    (Reason.EVENT_TIME_OUT_OF_RANGE, record_of(TRANSACTION | {"event_time": -1}, timestamp=-1)),
    (Reason.EVENT_TIME_OUT_OF_RANGE, record_of(TRANSACTION | {"event_time": 10**200}, timestamp=-1)),
    (Reason.EVENT_TIME_OUT_OF_RANGE, record_of(TRANSACTION | {"event_time": "0001-01-01T00:00:00Z"}, timestamp=-1)),
    *[
        (Reason.FIELD_VALUE, transaction_record(transaction_id=text))
        for text in ("\x00", "a\nb", "a\x1fb", "a\x7f", "\x85")
    ],
    *[(Reason.FIELD_VALUE, transaction_record(currency=text)) for text in ("", "EU", "EURO", "eur", "E1R", "EÜR", "EUR\n")],
    (Reason.FIELD_VALUE, raw("{", '{"x": 1e999, ')),
    (Reason.FIELD_VALUE, raw("{", '{"x": {"y": [-1e999]}, ')),
    (Reason.FIELD_VALUE, raw("{", '{"x": ' + "9" * 400 + ", ")),
]  # fmt: skip

REFUSED_LABELS: list[tuple[Reason, PlainRecord]] = [
    (Reason.TOMBSTONE, PlainRecord(None)),
    (Reason.KEY_MISSING, record_of(LABEL, key=None)),
    (Reason.PAYLOAD_TOO_LARGE, label_record(note="x" * 65_536)),
    (Reason.INVALID_UTF8, PlainRecord(b"\xff")),
    (Reason.NESTED_TOO_DEEP, PlainRecord(b"[" * 17)),
    (Reason.INVALID_JSON, PlainRecord(b"{")),
    (Reason.INVALID_JSON, PlainRecord(b'{"amount": NaN, "amount": NaN}')),
    (Reason.DUPLICATE_KEY, PlainRecord(json.dumps(LABEL).replace("{", '{"is_fraud": false, ').encode())),
    (Reason.NOT_AN_OBJECT, PlainRecord(b"true")),
    *[(Reason.FIELD_MISSING, label_record(**{name: ...})) for name in LABEL if name != "reason"],
    *[(Reason.FIELD_TYPE, label_record(**{name: None})) for name in LABEL if name != "reason"],
    *[(Reason.FIELD_TYPE, label_record(**{name: []})) for name in LABEL],
    *[(Reason.FIELD_TYPE, label_record(is_fraud=value)) for value in (0, 1, "true", "")],
    *[(Reason.FIELD_TYPE, label_record(**{name: True})) for name in LABEL if name != "is_fraud"],
    (Reason.ID_EMPTY, label_record(transaction_id="")),
    (Reason.ID_TOO_LONG, label_record(transaction_id="x" * 129)),
    *[
        (Reason.LABEL_TIME_UNREADABLE, label_record(label_time=value))
        for value in ("soon", "2018-07-08T09:30:00", -1, 10**15, 10**400, 1.5, "1969-12-31T23:59:59Z")
    ],
    (Reason.FIELD_VALUE, label_record(source="bank")),
    (Reason.FIELD_VALUE, label_record(source="Analyst")),
    (Reason.FIELD_VALUE, label_record(transaction_id="a\x00b")),
    (Reason.FIELD_VALUE, label_record(reason="x" * 1025)),
]


@pytest.mark.parametrize(("reason", "record"), REFUSED_TRANSACTIONS)
def test_what_is_no_transaction_is_refused_with_its_reason(reason: Reason, record: PlainRecord) -> None:
    """Each fault has its reason code, and words that fit a header and repeat nothing of the payload's texts."""
    rejected = decode_transaction(record, LIMITS)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert 0 < len(rejected.message) <= 200
    assert "card-001234" not in rejected.message


@pytest.mark.parametrize(("reason", "record"), REFUSED_LABELS)
def test_what_is_no_label_is_refused_with_its_reason(reason: Reason, record: PlainRecord) -> None:
    """Each fault of a label has its reason code."""
    rejected = decode_label(record, LIMITS)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason


def test_every_reason_has_an_example() -> None:
    """No reason code exists that no record can get; one is not the codec's to give: it needs the stored decisions."""
    assert {reason for reason, _ in REFUSED_TRANSACTIONS + REFUSED_LABELS} == set(Reason) - {Reason.LABEL_ORPHAN}


def test_with_several_faults_the_first_reason_is_given() -> None:
    """The order of the checks is the order of the reasons, whatever the order of the fields."""
    faults: list[tuple[Reason, dict[str, Any]]] = [
        (Reason.FIELD_MISSING, {"terminal_id": ...}),
        (Reason.FIELD_TYPE, {"currency": 1}),
        (Reason.ID_EMPTY, {"terminal_id": ""}),
        (Reason.ID_TOO_LONG, {"transaction_id": "x" * 129}),
        (Reason.KEY_MISMATCH, {"card_id": "another"}),
        (Reason.AMOUNT_NEGATIVE, {"amount": -1}),
        (Reason.EVENT_TIME_UNREADABLE, {"event_time": "?"}),
        (Reason.FIELD_VALUE, {"currency": "euro"}),
    ]
    for first in range(len(faults)):
        fields = {name: value for _, fields in reversed(faults[first:]) for name, value in fields.items()}
        rejected = decode_transaction(transaction_record(**fields), LIMITS)
        assert isinstance(rejected, Rejected)
        assert rejected.reason == faults[first][0]
    order = list(Reason)
    assert [reason for reason, _ in faults] == sorted((reason for reason, _ in faults), key=order.index)


def test_ordinary_transaction() -> None:
    """All fields arrive, the amount also in hundredths, and nothing is extra."""
    assert decode_transaction(transaction_record(), LIMITS) == Transaction(
        "tx-000000123456", RECORD_TIME_MS, "card-001234", "terminal-4321", 12.34, 1234, "EUR", None
    )


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ({"currency": ...}, "currency", None),
        ({"currency": None}, "currency", None),
        ({"amount": 0}, "amount_minor", 0),
        ({"amount": -0.0}, "amount_minor", 0),
        ({"amount": 1_000_000}, "amount_minor", 100_000_000),
        ({"amount": 0.285}, "amount_minor", 28),
        ({"amount": 2.675}, "amount_minor", 268),
        ({"transaction_id": "x" * 128}, "transaction_id", "x" * 128),
        ({"transaction_id": "тест \u00a0"}, "transaction_id", "тест \u00a0"),
        ({"event_time": RECORD_TIME_MS - 30 * DAY_MS}, "event_time_ms", RECORD_TIME_MS - 30 * DAY_MS),
        ({"event_time": RECORD_TIME_MS + DAY_MS}, "event_time_ms", RECORD_TIME_MS + DAY_MS),
        ({"event_time": float(RECORD_TIME_MS)}, "event_time_ms", RECORD_TIME_MS),
        ({"event_time": "2018-07-01T02:00:12.345678+02:00"}, "event_time_ms", RECORD_TIME_MS),
        ({"event_time": "2018-06-30 19:00:12.345-05:00"}, "event_time_ms", RECORD_TIME_MS),
        ({"event_time": "2018-07-01T02:00:12.345+0200"}, "event_time_ms", RECORD_TIME_MS),
        ({"event_time": "2018-07-01T00:00:12.3449996Z"}, "event_time_ms", RECORD_TIME_MS),
    ],
)
def test_what_is_taken(fields: dict[str, Any], attribute: str, expected: Any) -> None:
    """Limits belong to the range, absent is null, and the common forms of a time are read."""
    transaction = decode_transaction(transaction_record(**fields), LIMITS)
    assert isinstance(transaction, Transaction)
    assert getattr(transaction, attribute) == expected


def test_negative_zero_is_zero() -> None:
    """No amount is -0.0: it would be written differently and mean the same."""
    transaction = decode_transaction(transaction_record(amount=-0.0), LIMITS)
    assert isinstance(transaction, Transaction)
    assert str(transaction.amount) == "0.0"


def test_further_fields_are_kept_as_they_are() -> None:
    """Unknown fields survive with their types: nested, Unicode, exact integers of any size, escapes."""
    extra = {"mcc": 5411, "merchant": 'Café "Zum \\ Eck" 😀', "device": {"os": None, "v": [1, 2.5, True]}, "n": 10**30}
    for ascii_only in (True, False):
        text = json.dumps(TRANSACTION | extra, ensure_ascii=ascii_only)
        transaction = decode_transaction(PlainRecord(text.encode()), LIMITS)
        assert isinstance(transaction, Transaction)
        assert transaction.extra == extra


def test_deepest_nesting_that_is_taken() -> None:
    """Sixteen levels are a transaction, seventeen are not."""
    assert isinstance(decode_transaction(nested(16), LIMITS), Transaction)
    assert isinstance(decode_transaction(nested(17), LIMITS), Rejected)


@pytest.mark.parametrize("timestamp", [-1, None])
def test_record_without_a_time_is_not_compared_with_it(timestamp: Any) -> None:
    """Where the record has no time of its own, any event_time of 1970 to 9999 is taken."""
    for event_time in (0, 253_402_300_799_999, "1999-01-01T00:00:00Z"):
        record = record_of(TRANSACTION | {"event_time": event_time}, timestamp=timestamp)
        assert isinstance(decode_transaction(record, LIMITS), Transaction)


def test_ordinary_label() -> None:
    """A label arrives whole; its further fields do not matter, nor does its key, nor how late it is."""
    label = Label("tx-000000123456", True, 1_531_035_000_000, "chargeback", "10.4")
    assert decode_label(label_record(), LIMITS) == label
    assert decode_label(record_of(LABEL | {"case": [1]}, key=b"", timestamp=0), LIMITS) == label
    verdict = decode_label(label_record(is_fraud=False, source="analyst", reason=None, label_time=0), LIMITS)
    assert verdict == Label("tx-000000123456", False, 0, "analyst", None)


def test_limits_can_be_set() -> None:
    """Each limit is the deployment's to choose."""
    wide = Limits(id_length_max=200, amount_max=5e6, nesting_depth_max=20, event_time_behind_ms_max=100 * DAY_MS)
    fields = {"transaction_id": "x" * 200, "amount": 4e6, "event_time": RECORD_TIME_MS - 99 * DAY_MS}
    assert isinstance(decode_transaction(transaction_record(**fields), wide), Transaction)
    narrow = Limits(payload_bytes_max=100)
    assert decode_transaction(transaction_record(), narrow) == Rejected(
        Reason.PAYLOAD_TOO_LARGE, f"{len(ORDINARY)} bytes; 100 are allowed"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("payload_bytes_max", 0),
        ("id_length_max", 0),
        ("amount_max", 1e9),
        ("amount_max", float("nan")),
        ("nesting_depth_max", 65),
    ],
)
def test_limits_that_would_break_a_promise_are_refused(name: str, value: float) -> None:
    """A limit outside its own range is a setting error that names it."""
    with pytest.raises(SettingsError, match=name):
        Limits(**{name: value})

"""Records for the codec's tests: an ordinary one that is accepted, and what can be done to it."""

import json
import random
from typing import Any

from msgspec import Struct

RECORD_TIME_MS = 1_530_403_212_345  # 2018-07-01T00:00:12.345Z

TRANSACTION: dict[str, Any] = {
    "transaction_id": "tx-000000123456",
    "event_time": "2018-07-01T00:00:12.345Z",
    "card_id": "card-001234",
    "terminal_id": "terminal-4321",
    "amount": 12.34,
    "currency": "EUR",
}
LABEL: dict[str, Any] = {
    "transaction_id": "tx-000000123456",
    "is_fraud": True,
    "label_time": "2018-07-08T09:30:00+02:00",
    "source": "chargeback",
    "reason": "10.4",
}


class PlainRecord(Struct, frozen=True):
    """A Kafka record without Kafka."""

    value: bytes | None
    key: bytes | None = b"card-001234"
    timestamp: int = RECORD_TIME_MS
    headers: Any = ()
    topic: str = "transactions"
    partition: int = 3
    offset: int = 41


def record_of(document: Any, **parts: Any) -> PlainRecord:
    """The record whose value is this document as JSON."""
    return PlainRecord(json.dumps(document).encode(), **parts)


def transaction_record(**fields: Any) -> PlainRecord:
    """The ordinary transaction with some fields changed; `...` leaves a field out."""
    return record_of({name: value for name, value in (TRANSACTION | fields).items() if value is not ...})


def label_record(**fields: Any) -> PlainRecord:
    """The ordinary label with some fields changed; `...` leaves a field out."""
    return record_of({name: value for name, value in (LABEL | fields).items() if value is not ...})


# What is likely to meet a rule of the codec, or a parser's special case.
TOKENS = (
    b'"', b"\\", b'\\"', b"\\\\", b"\\u0000", b"\\ud83d", b"\\ude00", b"\\u00e9", b"\\/", b"{", b"}", b"[", b"]", b":", b",",
    b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity", b"0", b"-0", b"-0.0", b"-1", b"1e999", b"1E5", b"1.0", b"01",
    b"1.", b".5", b"+1", b"0.285", b"1000000", b"1000000.01", b"1530403212345", b"1530403212345.0", b"18446744073709551616",
    b"9" * 310, b"1" + b"0" * 400, b'""', b'"EUR"', b'"eur"', b'"x"', b'"amount":1,', b'"amount":NaN,', b'"currency":null,',
    b'"extra":1,', b'"extra":{"a":1,"a":2},', b'"extra":{"a":[1,{"b":"c"}]},', b'"extra":NaN,', b'"extra":1e999,', b"{}", b"[]",
    b'"2018-07-01T00:00:12Z"', b'"2018-07-01 00:00:12.9999999+0200"', b'"2018-02-29T00:00:00Z"', b'"2018-07-01T00:00:12"',
    b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xef\xbb\xbf", b"\x00", b"\x1f", b"\x7f", b"\xc2\x85", b" ", b"\t",
    b"\r\n", b"[" * 20, b"]" * 20, b'{"a":' * 17,
)  # fmt: skip


def mutate(value: bytes, chance: random.Random) -> bytes:
    """The value after up to four small accidents: flipped bits, cut ends, inserted, removed, repeated or replaced parts."""
    for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 3, 4))):
        start = chance.randint(0, len(value))
        stop = min(len(value), start + chance.randint(0, 12))
        kind = chance.choice((0, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6))
        if kind == 0 and value:
            place = chance.randrange(len(value))
            value = value[:place] + bytes([value[place] ^ 1 << chance.randrange(8)]) + value[place + 1 :]
        elif kind == 1:
            value = value[:start] if chance.random() < 0.5 else value[start:]
        elif kind == 2:
            value = value[:start] + chance.choice(TOKENS) + value[start:]
        elif kind == 3:
            value = value[:start] + value[stop:]
        elif kind == 4:
            value = value[:stop] + value[start:]
        elif kind == 5:
            value = _replace_a_value(value, chance)
        else:
            value = _insert_a_field(value, chance)
    return value


# Mostly whole JSON values, so that what comes out is mostly JSON.
VALUES = tuple(token for token in TOKENS if token[:1] in b'"-0123456789ntfNI[{' and token[-1:] not in b",:[{\\")


def _replace_a_value(value: bytes, chance: random.Random) -> bytes:
    """Another token where a field's value is: number swaps, wrong types, odd texts."""
    fields = value.split(b": ") if b": " in value else value.split(b":")
    place = chance.randrange(len(fields))
    comma = fields[place].rfind(b",")
    end = fields[place][comma:] if comma >= 0 else b"}"
    fields[place] = chance.choice(VALUES) + end
    return b": ".join(fields)


def _insert_a_field(value: bytes, chance: random.Random) -> bytes:
    """A further field, or one more time a known one, in front."""
    name = chance.choice(("mcc", "card_id", "amount", "currency", "Café", "card\\u005fid", "event_time"))
    content = chance.choice(
        (b"1", b"null", b'"EUR"', b'"card-001234"', b'"a\\"b\\\\"', b"[1,[2,{}]]", b"12.5", b"-0.0")
    )
    return value.replace(b"{", b'{"' + name.encode() + b'":' + content + b",", 1)

"""The codec's rules once more: slow, plain, one character at a time, sharing no parser with the codec.

Meant to be read beside `docs/reference/events.md`; every rule is one line here.
"""

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from fraudstream.codec import Limits
from fraudstream.events import Label, Reason, Record, Transaction

_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))"
)
_CONTROL = frozenset(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))


class NotJson(Exception):  # noqa: N818 - a verdict, not an error
    pass


class Literal(str):
    """NaN, Infinity or -Infinity."""

    __slots__ = ()


class Number(str):
    """A number as it is written."""

    __slots__ = ()

    @property
    def double(self) -> float:
        return float(self)


class Reader:
    """A JSON parser. Objects are tuples of pairs, arrays are lists, numbers are `Number`."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.repeated = text, 0, False

    def document(self) -> Any:
        value = self.value()
        self.space()
        if self.place != len(self.text):
            raise NotJson
        return value

    def space(self) -> None:
        while self.text[self.place : self.place + 1] in (" ", "\t", "\n", "\r"):
            self.place += 1

    def take(self, expected: str) -> bool:
        if self.text.startswith(expected, self.place):
            self.place += len(expected)
            return True
        return False

    def value(self) -> Any:
        self.space()
        if self.take("{"):
            return self.pairs()
        if self.take("["):
            return self.items()
        if self.take('"'):
            return self.string()
        for text, value in (("null", None), ("true", True), ("false", False)):
            if self.take(text):
                return value
        for text in ("NaN", "Infinity", "-Infinity"):
            if self.take(text):
                return Literal(text)
        match = _NUMBER.match(self.text, self.place)
        if match is None:
            raise NotJson
        self.place = match.end()
        return Number(match[0])

    def pairs(self) -> tuple[tuple[str, Any], ...]:
        found: list[tuple[str, Any]] = []
        self.space()
        if self.take("}"):
            return ()
        while True:
            self.space()
            if not self.take('"'):
                raise NotJson
            key = self.string()
            self.space()
            if not self.take(":"):
                raise NotJson
            self.repeated |= key in dict(found)
            found.append((key, self.value()))
            self.space()
            if self.take("}"):
                return tuple(found)
            if not self.take(","):
                raise NotJson

    def items(self) -> list[Any]:
        found: list[Any] = []
        self.space()
        if self.take("]"):
            return found
        while True:
            found.append(self.value())
            self.space()
            if self.take("]"):
                return found
            if not self.take(","):
                raise NotJson

    def string(self) -> str:
        units: list[str] = []
        while True:
            character = self.text[self.place : self.place + 1]
            self.place += 1
            if character == "" or ord(character) < 0x20:
                raise NotJson
            if character == '"':
                return self.join(units)
            units.append(self.escape() if character == "\\" else character)

    def escape(self) -> str:
        character = self.text[self.place : self.place + 1]
        self.place += 1
        if character == "u":
            digits = self.text[self.place : self.place + 4]
            self.place += 4
            if not re.fullmatch("[0-9a-fA-F]{4}", digits):
                raise NotJson
            return chr(int(digits, 16))
        if character not in _ESCAPES:
            raise NotJson
        return _ESCAPES[character]

    @staticmethod
    def join(units: list[str]) -> str:
        """The text of UTF-16 units; half a surrogate pair is no text."""
        try:
            return "".join(units).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise NotJson from None


def read_object(value: bytes, limits: Limits) -> dict[str, Any] | Reason:
    if len(value) > limits.payload_bytes_max:
        return Reason.PAYLOAD_TOO_LARGE
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return Reason.INVALID_UTF8
    if deepest(text) > limits.nesting_depth_max:
        return Reason.NESTED_TOO_DEEP
    reader = Reader(text)
    try:
        document = reader.document()
    except NotJson:
        return Reason.INVALID_JSON
    # NaN is the amount's fault where it is the amount, and no JSON anywhere else.
    literals = sum(isinstance(leaf, Literal) for leaf in leaves(document))
    pairs = document if isinstance(document, tuple) else ()
    of_the_amount = len(dict(pairs)) == len(pairs) and isinstance(dict(pairs).get("amount"), Literal)
    if literals > of_the_amount:
        return Reason.INVALID_JSON
    if reader.repeated:
        return Reason.DUPLICATE_KEY
    return dict(document) if isinstance(document, tuple) else Reason.NOT_AN_OBJECT


def deepest(text: str) -> int:
    depth = most = 0
    inside = escaped = False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "{[":
            depth += 1
            most = max(most, depth)
        elif character in "}]":
            depth -= 1
    return most


def leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [leaf for _, content in value for leaf in leaves(content)]
    if isinstance(value, list):
        return [leaf for content in value for leaf in leaves(content)]
    return [value]


def plain(value: Any) -> Any:
    """As Python's own types, the way a transaction keeps it."""
    if isinstance(value, tuple):
        return {key: plain(content) for key, content in value}
    if isinstance(value, list):
        return [plain(content) for content in value]
    if isinstance(value, Number):
        return int(value) if re.fullmatch("-?[0-9]+", value) else float(value)
    return value


def is_text(value: Any) -> bool:
    return type(value) is str


def time_ms(value: str) -> int | None:
    """Nearest microsecond, a half upwards; then cut to the millisecond."""
    if isinstance(value, Number):
        if not math.isfinite(value.double):
            return None
        number = plain(value)
        return int(number) if number == int(number) else None
    match = _TIME.fullmatch(value)
    if match is None:
        return None
    *parts, fraction, zulu, sign, hours, minutes = match.groups()
    microseconds = int((fraction or "0")[:6].ljust(6, "0")) + ((fraction or "0")[6:7] >= "5")
    if not zulu and (int(hours) > 23 or int(minutes) > 59):
        return None
    offset = timedelta() if zulu else timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    try:
        moment = datetime(*map(int, parts), tzinfo=timezone(offset)) + timedelta(microseconds=microseconds)
    except (ValueError, OverflowError):
        return None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def minor_units(amount: float) -> int:
    return int((Decimal(repr(amount)) * 100).quantize(Decimal(1), ROUND_HALF_EVEN))


def transaction(record: Record, limits: Limits) -> Transaction | Reason:  # noqa: C901, PLR0912 - one rule per line
    if record.value is None:
        return Reason.TOMBSTONE
    if not record.key:
        return Reason.KEY_MISSING
    document = read_object(record.value, limits)
    if isinstance(document, Reason):
        return document
    required = ("transaction_id", "event_time", "card_id", "terminal_id", "amount")
    if not set(required) <= document.keys():
        return Reason.FIELD_MISSING
    ids = [document[name] for name in ("transaction_id", "card_id", "terminal_id")]
    event_time, amount, currency = document["event_time"], document["amount"], document.get("currency")
    if not all(map(is_text, ids)) or not (is_text(event_time) or isinstance(event_time, Number)):
        return Reason.FIELD_TYPE
    if not isinstance(amount, Number | Literal) or not (currency is None or is_text(currency)):
        return Reason.FIELD_TYPE
    if "" in ids:
        return Reason.ID_EMPTY
    if max(map(len, ids)) > limits.id_length_max:
        return Reason.ID_TOO_LONG
    if record.key != ids[1].encode():
        return Reason.KEY_MISMATCH
    double = float(amount)
    if not math.isfinite(double):
        return Reason.AMOUNT_NOT_FINITE
    if double < 0:
        return Reason.AMOUNT_NEGATIVE
    if double > limits.amount_max:
        return Reason.AMOUNT_TOO_LARGE
    event_time_ms = time_ms(event_time)
    if event_time_ms is None:
        return Reason.EVENT_TIME_UNREADABLE
    if not 0 <= event_time_ms < 253_402_300_800_000:
        return Reason.EVENT_TIME_OUT_OF_RANGE
    earliest = record.timestamp - limits.event_time_behind_ms_max
    latest = record.timestamp + limits.event_time_ahead_ms_max
    if record.timestamp >= 0 and not earliest <= event_time_ms <= latest:
        return Reason.EVENT_TIME_OUT_OF_RANGE
    if _CONTROL & set("".join(ids)) or not (currency is None or re.fullmatch("[A-Z]{3}", currency)):
        return Reason.FIELD_VALUE
    extra = {name: value for name, value in document.items() if name not in (*required, "currency")}
    if not all(math.isfinite(leaf.double) for leaf in leaves(tuple(extra.items())) if isinstance(leaf, Number)):
        return Reason.FIELD_VALUE
    kept = {name: plain(value) for name, value in extra.items()} or None
    double = abs(double)  # -0.0
    return Transaction(ids[0], event_time_ms, ids[1], ids[2], double, minor_units(double), currency, kept)


def label(record: Record, limits: Limits) -> Label | Reason:
    if record.value is None:
        return Reason.TOMBSTONE
    if record.key is None:
        return Reason.KEY_MISSING
    document = read_object(record.value, limits)
    if isinstance(document, Reason):
        return document
    if not {"transaction_id", "is_fraud", "label_time", "source"} <= document.keys():
        return Reason.FIELD_MISSING
    transaction_id, label_time, reason = document["transaction_id"], document["label_time"], document.get("reason")
    if not is_text(transaction_id) or not is_text(document["source"]) or type(document["is_fraud"]) is not bool:
        return Reason.FIELD_TYPE
    if not (is_text(label_time) or isinstance(label_time, Number)) or not (reason is None or is_text(reason)):
        return Reason.FIELD_TYPE
    if not transaction_id:
        return Reason.ID_EMPTY
    if len(transaction_id) > limits.id_length_max:
        return Reason.ID_TOO_LONG
    label_time_ms = time_ms(label_time)
    if label_time_ms is None or not 0 <= label_time_ms < 253_402_300_800_000:
        return Reason.LABEL_TIME_UNREADABLE
    if _CONTROL & set(transaction_id) or document["source"] not in ("chargeback", "analyst"):
        return Reason.FIELD_VALUE
    if reason is not None and len(reason) > limits.text_length_max:
        return Reason.FIELD_VALUE
    return Label(transaction_id, document["is_fraud"], label_time_ms, document["source"], reason)

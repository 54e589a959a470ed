"""Records to transactions and labels. A record that is neither is a value, `Rejected`; nothing here raises.

A transaction is read in one of two ways with the same answer. The fast way parses straight into a typed struct and then
has to prove what such a parser does not tell: that no key occurred twice and no field is left over. Every quotation mark
that is not escaped begins or ends a string, so counting them is exact: if there are twice as many as the strings that
the struct accounts for, there were no others. Whatever the fast way does not understand or would refuse goes to the
plain way, which checks in the order of `Reason` and finds the words. `tests/property/test_codec_fuzz.py` holds both
equal to a reference on any bytes.
"""

import math
import re
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET

from fraudstream.codec.amounts import minor_units
from fraudstream.codec.limits import Limits
from fraudstream.codec.parse import NOT_A_NUMBER, all_finite, read_object, to_double, type_name
from fraudstream.codec.times import TIME_MS_MAX, read_time, to_ms
from fraudstream.codec.wire import UNREAD, LabelWire, TransactionWire
from fraudstream.events import Label, Reason, Record, Rejected, Transaction

_TRANSACTION_IDS: Final = ("transaction_id", "card_id", "terminal_id")
_TRANSACTION_REQUIRED: Final = ("transaction_id", "event_time", "card_id", "terminal_id", "amount")
_TRANSACTION_FIELDS: Final = frozenset(TransactionWire.__struct_fields__)
_LABEL_REQUIRED: Final = ("transaction_id", "is_fraud", "label_time", "source")
_LABEL_SOURCES: Final = frozenset(("chargeback", "analyst"))
assert set(_LABEL_REQUIRED) < set(LabelWire.__struct_fields__)

_CONTROL_CHARACTER: Final = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_CURRENCY: Final = re.compile("[A-Z]{3}")

_read_wire: Final = msgspec.json.Decoder(TransactionWire).decode
_read_any: Final = msgspec.json.Decoder().decode

# Strings in a transaction whose event_time is a number: five keys, three ids.
_STRINGS_MIN: Final = 8
_INT64_MAX: Final = 2**63 - 1


def decode_transaction(record: Record, limits: Limits) -> Transaction | Rejected:
    """The transaction that a record of `transactions` carries, or why it carries none.

    Parameters
    ----------
    record
        As Kafka delivered it. A `timestamp` of -1 or None switches the check of `event_time` against it off.
    limits
        What a record may measure.

    Returns
    -------
    Transaction | Rejected
        Never raises. With several faults the reason is the first in the order of `Reason`.
    """
    transaction = _decode_fast(record, limits)
    return decode_transaction_plain(record, limits) if transaction is None else transaction


def _decode_fast(record: Record, limits: Limits) -> Transaction | None:
    """The transaction when the record is an ordinary valid one; None says nothing about it."""
    value = record.value
    key = record.key
    if not value or not key or len(value) > limits.payload_bytes_max:
        return None
    try:
        wire = _read_wire(value)
    except UNREAD:
        return None
    strings = _STRINGS_MIN
    event_time = wire.event_time
    if type(event_time) is int:
        event_time_ms: int = event_time
    else:
        event_time_ms = to_ms(event_time)  # type: ignore[arg-type]  # an int or a datetime, by the wire type
        strings += 1
    currency = wire.currency
    if currency is UNSET:
        currency = None
    elif currency is None:
        strings += 1
    else:
        strings += 2
    card_id = wire.card_id
    terminal_id = wire.terminal_id
    transaction_id = wire.transaction_id
    timestamp = record.timestamp
    if (
        key != card_id.encode()
        or not 0.0 <= wire.amount <= limits.amount_max
        or not 0 <= event_time_ms <= TIME_MS_MAX
        or not 0 < len(transaction_id) <= limits.id_length_max
        or not 0 < len(card_id) <= limits.id_length_max
        or not 0 < len(terminal_id) <= limits.id_length_max
        # Stricter than the rule, which forbids control characters only; the plain way decides on the others.
        or not (transaction_id + card_id + terminal_id).isprintable()
    ):
        return None
    if timestamp is not None and timestamp >= 0:  # type: ignore[redundant-expr]  # clients of very old brokers
        ahead = event_time_ms - timestamp
        if not -limits.event_time_behind_ms_max <= ahead <= limits.event_time_ahead_ms_max:
            return None
    if currency is not None and not _is_currency(currency):
        return None
    extra: dict[str, Any] | None = None
    further = _count_delimiters(value) - 2 * strings
    if further:
        extra = _extra_fast(value, further, limits)
        if extra is None:
            return None
    amount = wire.amount + 0.0  # -0.0 is 0.0
    return Transaction(
        transaction_id, event_time_ms, card_id, terminal_id, amount, minor_units(amount), currency, extra
    )


def _count_delimiters(value: bytes) -> int:
    """Quotation marks that begin or end a string, in valid JSON text (where a backslash is always inside a string)."""
    quotes = value.count(b'"')
    if b"\\" in value:
        quotes -= value.replace(b"\\\\", b"").count(b'\\"')
    return quotes


def _extra_fast(value: bytes, delimiters: int, limits: Limits) -> dict[str, Any] | None:
    """The fields that the schema does not name, whose strings have so many delimiters.

    None when a key may have occurred twice or a number may be out of range.
    """
    if value.count(b"{") + value.count(b"[") > limits.nesting_depth_max:
        return None  # an upper bound of the depth
    try:
        extra: dict[str, Any] = _read_any(value)
        for name in _TRANSACTION_FIELDS:
            extra.pop(name, None)
        strings = _count_strings(extra)
    except (*UNREAD, OverflowError):
        return None
    return extra if delimiters == 2 * strings else None


def _count_strings(value: Any) -> int:
    """How many strings, keys included, the text of a JSON value had. Recurses to the depth that its caller allows.

    Raises
    ------
    OverflowError
        At an integer beyond 64 bits.
    """
    kind = type(value)
    if kind is str:
        return 1
    if kind is dict:
        strings = len(value)
        for inner in value.values():
            strings += _count_strings(inner)
        return strings
    if kind is list:
        return sum(map(_count_strings, value))
    if kind is int and not -_INT64_MAX <= value <= _INT64_MAX:
        raise OverflowError
    return 0


def decode_transaction_plain(record: Record, limits: Limits) -> Transaction | Rejected:
    """The same answer as `decode_transaction`, by the rules one after the other."""
    if record.value is None:
        return Rejected(Reason.TOMBSTONE, "the record has no value")
    if not record.key:
        return Rejected(Reason.KEY_MISSING, "the record has no key; it has to be the card_id")
    document = read_object(record.value, limits)
    if isinstance(document, Rejected):
        return document
    fault = (
        _missing(document, _TRANSACTION_REQUIRED)
        or _mistyped(document, _TRANSACTION_IDS, str, "text")
        or _mistyped(document, ("event_time",), (str, int, float), "RFC 3339 text or integer milliseconds")
        or _mistyped(document, ("amount",), (int, float, type(NOT_A_NUMBER)), "a number")
        or _mistyped(document, ("currency",), (str, type(None)), "text")
        or _id_fault(document, _TRANSACTION_IDS, limits)
    )
    if fault is not None:
        return fault
    if record.key != document["card_id"].encode():
        return Rejected(Reason.KEY_MISMATCH, "the record's key is not the card_id: the card's order would be lost")
    amount = math.nan if document["amount"] is NOT_A_NUMBER else to_double(document["amount"]) + 0.0  # -0.0 is 0.0
    event_time_ms = _read_time(document["event_time"])
    if event_time_ms is None:
        unreadable = Rejected(Reason.EVENT_TIME_UNREADABLE, f"event_time is {_UNREADABLE_TIME}")
        return _amount_fault(amount, limits) or unreadable
    fault = (
        _amount_fault(amount, limits)
        or _event_time_fault(event_time_ms, record.timestamp, limits)
        or _control_character_fault(document, _TRANSACTION_IDS)
    )
    if fault is not None:
        return fault
    currency = document.get("currency")
    if currency is not None and not _is_currency(currency):
        return Rejected(Reason.FIELD_VALUE, "currency is not three capital letters")
    extra = {name: value for name, value in document.items() if name not in _TRANSACTION_FIELDS}
    if not all_finite(extra):
        return Rejected(Reason.FIELD_VALUE, "a number in a further field is beyond the range of a double")
    return Transaction(
        document["transaction_id"],
        event_time_ms,
        document["card_id"],
        document["terminal_id"],
        amount,
        minor_units(amount),
        currency,
        extra or None,
    )


def decode_label(record: Record, limits: Limits) -> Label | Rejected:
    """The label that a record of `labels` carries, or why it carries none.

    The key may be anything but null: a label's producer may not know the card. Never raises; with several faults the
    reason is the first in the order of `Reason`.
    """
    if record.value is None:
        return Rejected(Reason.TOMBSTONE, "the record has no value")
    if record.key is None:
        return Rejected(Reason.KEY_MISSING, "the record has no key")
    document = read_object(record.value, limits)
    if isinstance(document, Rejected):
        return document
    reason = document.get("reason")
    fault = (
        _missing(document, _LABEL_REQUIRED)
        or _mistyped(document, ("transaction_id", "source"), str, "text")
        or _mistyped(document, ("is_fraud",), bool, "true or false")
        or _mistyped(document, ("label_time",), (str, int, float), "RFC 3339 text or integer milliseconds")
        or _mistyped(document, ("reason",), (str, type(None)), "text")
        or _id_fault(document, ("transaction_id",), limits)
    )
    if fault is not None:
        return fault
    label_time_ms = _read_time(document["label_time"])
    if label_time_ms is None or not 0 <= label_time_ms <= TIME_MS_MAX:
        return Rejected(Reason.LABEL_TIME_UNREADABLE, f"label_time is {_UNREADABLE_TIME}")
    fault = _control_character_fault(document, ("transaction_id",))
    if fault is not None:
        return fault
    if document["source"] not in _LABEL_SOURCES:
        return Rejected(Reason.FIELD_VALUE, "source is neither chargeback nor analyst")
    if reason is not None and len(reason) > limits.text_length_max:
        return Rejected(Reason.FIELD_VALUE, f"reason is longer than {limits.text_length_max} characters")
    return Label(document["transaction_id"], document["is_fraud"], label_time_ms, document["source"], reason)


@lru_cache(maxsize=256)  # a deployment sees a few currencies; the match costs ten times a look-up
def _is_currency(text: str) -> bool:
    return _CURRENCY.fullmatch(text) is not None


_UNREADABLE_TIME: Final = "neither RFC 3339 text with an offset nor integer milliseconds of the years 1970 to 9999"


def _missing(document: dict[str, Any], names: tuple[str, ...]) -> Rejected | None:
    for name in names:
        if name not in document:
            return Rejected(Reason.FIELD_MISSING, f"{name} is missing")
    return None


def _mistyped(
    document: dict[str, Any], names: tuple[str, ...], kind: type | tuple[type, ...], words: str
) -> Rejected | None:
    """The first field of another type. An absent field is null; true and false are numbers to Python, not to us."""
    for name in names:
        value = document.get(name)
        if not isinstance(value, kind) or (type(value) is bool and kind is not bool):
            return Rejected(Reason.FIELD_TYPE, f"{name} is {type_name(value)}, not {words}")
    return None


def _id_fault(document: dict[str, Any], names: tuple[str, ...], limits: Limits) -> Rejected | None:
    for name in names:
        if not document[name]:
            return Rejected(Reason.ID_EMPTY, f"{name} is empty")
    for name in names:
        if len(document[name]) > limits.id_length_max:
            return Rejected(Reason.ID_TOO_LONG, f"{name} is longer than {limits.id_length_max} characters")
    return None


def _control_character_fault(document: dict[str, Any], names: tuple[str, ...]) -> Rejected | None:
    for name in names:
        if _CONTROL_CHARACTER.search(document[name]):
            return Rejected(Reason.FIELD_VALUE, f"{name} has a control character")
    return None


def _amount_fault(amount: float, limits: Limits) -> Rejected | None:
    if not math.isfinite(amount):
        return Rejected(Reason.AMOUNT_NOT_FINITE, "amount is not a finite number")
    if amount < 0:
        return Rejected(Reason.AMOUNT_NEGATIVE, "amount is negative")
    if amount > limits.amount_max:
        return Rejected(Reason.AMOUNT_TOO_LARGE, f"amount is above {limits.amount_max:.2f}")
    return None


def _read_time(value: str | float) -> int | None:
    """Milliseconds since the epoch, of any year; None when unreadable. 1.0 is an integer, as in JSON Schema."""
    if isinstance(value, str):
        return read_time(value)
    if math.isfinite(to_double(value)) and value == int(value):
        return int(value)
    return None


def _event_time_fault(event_time_ms: int, timestamp: int | None, limits: Limits) -> Rejected | None:
    if not 0 <= event_time_ms <= TIME_MS_MAX:
        return Rejected(Reason.EVENT_TIME_OUT_OF_RANGE, "event_time is not within the years 1970 to 9999")
    if timestamp is None or timestamp < 0:
        return None
    ahead = event_time_ms - timestamp
    if ahead < -limits.event_time_behind_ms_max:
        behind_max = limits.event_time_behind_ms_max
        return Rejected(
            Reason.EVENT_TIME_OUT_OF_RANGE,
            f"event_time is {-ahead} ms before the record's time; {behind_max} is the limit",
        )
    if ahead > limits.event_time_ahead_ms_max:
        ahead_max = limits.event_time_ahead_ms_max
        return Rejected(
            Reason.EVENT_TIME_OUT_OF_RANGE,
            f"event_time is {ahead} ms after the record's time; {ahead_max} is the limit",
        )
    return None

"""Records that no reader of `transactions` should take, one for each way in which producers get it wrong."""

from collections.abc import Callable
from typing import Any

import msgspec

# Longer than any id may be (128), deeper than any value may nest, above any amount.
_ID_TOO_LONG = 129
_NESTING = 200
_AMOUNT_TOO_LARGE = 1e12
_PAYLOAD_TOO_LARGE = 70_000

Faulty = tuple[bytes | None, bytes | None]
_encode = msgspec.json.encode


def _changed(field: str, value: Any) -> Callable[[bytes, dict[str, Any]], Faulty]:
    return lambda key, row: (key, _encode({**row, field: value}))


def _without(field: str) -> Callable[[bytes, dict[str, Any]], Faulty]:
    return lambda key, row: (key, _encode({name: value for name, value in row.items() if name != field}))


def _raw(value: bytes | None) -> Callable[[bytes, dict[str, Any]], Faulty]:
    return lambda key, _row: (key, value)


def _nan(key: bytes, row: dict[str, Any]) -> Faulty:
    return key, _encode({**row, "amount": "NaN"}).replace(b'"NaN"', b"NaN")


def _duplicate_key(key: bytes, row: dict[str, Any]) -> Faulty:
    return key, _encode(row)[:-1] + b',"amount":0.01}'


# What is wrong (the contract's reason for refusing it) -> how a good record becomes that. The order is part of a seed.
FAULTS: dict[str, Callable[[bytes, dict[str, Any]], Faulty]] = {
    "tombstone": _raw(None),
    "key_missing": lambda _key, row: (None, _encode(row)),
    "payload_too_large": _changed("note", "x" * _PAYLOAD_TOO_LARGE),
    "invalid_utf8": lambda key, row: (key, _encode(row).replace(b'"terminal_id":"', b'"terminal_id":"\xff\xfe')),
    "invalid_json": lambda key, row: (key, _encode(row)[:-7]),
    "nested_too_deep": _changed("note", msgspec.Raw(b"[" * _NESTING + b"]" * _NESTING)),
    "duplicate_key": _duplicate_key,
    "not_an_object": lambda key, row: (key, _encode([row])),
    "field_missing": _without("terminal_id"),
    "field_type": lambda key, row: (key, _encode({**row, "amount": str(row["amount"])})),
    "id_empty": _changed("transaction_id", ""),
    "id_too_long": _changed("terminal_id", "t" * _ID_TOO_LONG),
    "key_mismatch": lambda key, row: (b"not-" + key, _encode(row)),
    "amount_not_finite": _nan,
    "amount_negative": lambda key, row: (key, _encode({**row, "amount": -row["amount"] - 1})),
    "amount_too_large": _changed("amount", _AMOUNT_TOO_LARGE),
    "event_time_unreadable": _changed("event_time", "yesterday"),
    "event_time_out_of_range": _changed("event_time", "1970-01-01T00:00:00Z"),
}


def spoil(variant: int, value: bytes) -> Faulty:
    """Key and value of a bad record made from a good transaction's `value`; `variant` picks the fault, round and round.

    The transaction keeps its id, but gets the suffix `-bad` so that nothing mistakes it for the good one's repetition.
    """
    row = msgspec.json.decode(value)
    row["transaction_id"] = f"{row['transaction_id']}-bad"
    row["amount"] = row["amount"] or 0.0
    return list(FAULTS.values())[variant % len(FAULTS)](str(row["card_id"]).encode(), row)

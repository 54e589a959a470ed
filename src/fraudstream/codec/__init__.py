"""Bytes to events and back. Nothing here does input or output; nothing here raises for what others sent."""

from fraudstream.codec.dead_letter import DeadLetter, dead_letter_headers, original_headers, read_dead_letter
from fraudstream.codec.decode import decode_label, decode_transaction
from fraudstream.codec.encode import UnreadableDecision, alert_id, decode_decision, encode_alert, encode_decision
from fraudstream.codec.learning import (
    UnreadableExample,
    UnreadableModelEvent,
    decode_example,
    decode_model_event,
    encode_example,
    encode_model_event,
)
from fraudstream.codec.limits import Limits
from fraudstream.codec.packed import ModelIdentity, ModelLookup, pack_decision, unpack_decision

__all__ = [
    "DeadLetter",
    "Limits",
    "ModelIdentity",
    "ModelLookup",
    "UnreadableDecision",
    "UnreadableExample",
    "UnreadableModelEvent",
    "alert_id",
    "dead_letter_headers",
    "decode_decision",
    "decode_example",
    "decode_label",
    "decode_model_event",
    "decode_transaction",
    "encode_alert",
    "encode_decision",
    "encode_example",
    "encode_model_event",
    "original_headers",
    "pack_decision",
    "read_dead_letter",
    "unpack_decision",
]

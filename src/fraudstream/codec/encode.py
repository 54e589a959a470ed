"""Decisions to the bytes of `decisions` and `alerts`, and back.

The same decision always gives the same bytes, on any machine: fields in the order of the wire types, floats as the
shortest decimal text that reads back as the same double. So an alert that is published again after a crash cannot be
told from the first.
"""

from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from fraudstream.codec.times import read_time, write_time
from fraudstream.codec.wire import UNREAD, AlertWire, DecisionWire, ModelWire, SourceWire
from fraudstream.errors import FraudstreamError
from fraudstream.events import Decision

_encode: Final = msgspec.json.Encoder().encode
_read_decision: Final = msgspec.json.Decoder(DecisionWire).decode
_write_decided_at: Final = lru_cache(maxsize=64)(write_time)  # one time for all decisions of a micro-batch


class UnreadableDecision(FraudstreamError):  # noqa: N818 - names the thing that is wrong, as the other errors do
    """Bytes that should be a decision of ours are not: another program wrote to our topic or our store."""


def alert_id(transaction_id: str, *, degraded: bool = False) -> str:
    """The id of the one alert that a transaction can have, and of the provisional one that may come before it."""
    return f"alert:{transaction_id}:provisional" if degraded else "alert:" + transaction_id


def encode_alert(decision: Decision) -> bytes:
    """The value of a record of `alerts`.

    Raises
    ------
    ValueError
        When the action is `allow`: that decision has no alert.
    """
    action = decision.action
    if action == "allow":
        raise ValueError("a decision to allow has no alert")
    return _encode(
        AlertWire(
            alert_id(decision.transaction_id, degraded=decision.degraded),
            decision.transaction_id,
            decision.card_id,
            decision.terminal_id,
            decision.amount,
            action,
            decision.score,
            decision.threshold,
            decision.reasons,
            ModelWire(decision.model_name, decision.model_version),
            write_time(decision.event_time_ms),
            _write_decided_at(decision.decided_at_ms),
            decision.degraded or UNSET,
        )
    )


def encode_decision(decision: Decision) -> bytes:
    """The value of a record of `decisions`. The floats of a decision are finite; a NaN would become null."""
    return _encode(
        DecisionWire(
            decision.transaction_id,
            decision.card_id,
            decision.terminal_id,
            decision.amount,
            decision.action,
            decision.score,
            decision.threshold,
            decision.reasons,
            ModelWire(decision.model_name, decision.model_version),
            write_time(decision.event_time_ms),
            _write_decided_at(decision.decided_at_ms),
            decision.features,
            decision.features_digest,
            SourceWire(decision.partition, decision.offset),
            decision.champion_score,
            decision.online_score,
            decision.degraded or UNSET,
        )
    )


def decode_decision(value: bytes) -> Decision:
    """The decision that a record of `decisions` carries: exactly the one that was encoded.

    Raises
    ------
    UnreadableDecision
        When it carries none. Unknown fields of a later version are ignored.
    """
    try:
        wire = _read_decision(value)
    except UNREAD as error:
        raise UnreadableDecision(f"not a decision: {error}") from error
    event_time_ms, decided_at_ms = read_time(wire.event_time), read_time(wire.decided_at)
    if event_time_ms is None or decided_at_ms is None:
        raise UnreadableDecision("not a decision: event_time or decided_at is not RFC 3339")
    return Decision(
        transaction_id=wire.transaction_id,
        card_id=wire.card_id,
        terminal_id=wire.terminal_id,
        event_time_ms=event_time_ms,
        decided_at_ms=decided_at_ms,
        amount=wire.amount,
        action=wire.action,
        score=wire.score,
        champion_score=wire.score if isinstance(wire.champion_score, UnsetType) else wire.champion_score,
        threshold=wire.threshold,
        model_name=wire.model.name,
        model_version=wire.model.version,
        features_digest=wire.features_digest,
        features=wire.features,
        reasons=wire.reasons,
        partition=wire.source.partition,
        offset=wire.source.offset,
        online_score=wire.online_score,
        degraded=wire.degraded is True,
    )

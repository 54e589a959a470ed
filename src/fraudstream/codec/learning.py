"""Examples and model events to the bytes of `examples` and `model-events`, and back to the same events."""

from typing import Final

import msgspec
from msgspec import UNSET

from fraudstream.codec.times import read_time, write_time
from fraudstream.codec.wire import UNREAD, ExampleWire, ModelEventWire, ModelWire
from fraudstream.errors import FraudstreamError
from fraudstream.events import Example, ModelEvent

_encode: Final = msgspec.json.Encoder().encode
_read_example: Final = msgspec.json.Decoder(ExampleWire).decode
_read_model_event: Final = msgspec.json.Decoder(ModelEventWire).decode


class UnreadableExample(FraudstreamError):  # noqa: N818 - names the thing that is wrong, as the other errors do
    """Bytes on the examples topic are no example: another program wrote to it."""


class UnreadableModelEvent(FraudstreamError):  # noqa: N818 - as above
    """Bytes on the topic of model events are none."""


def encode_example(example: Example) -> bytes:
    """The value of a record of `examples`; the same example gives the same bytes."""
    return _encode(
        ExampleWire(
            example.transaction_id,
            example.card_id,
            write_time(example.event_time_ms),
            write_time(example.label_time_ms),
            example.is_fraud,
            example.source,
            example.amount,
            example.action,
            example.score,
            example.champion_score,
            example.online_score,
            example.threshold,
            ModelWire(example.model_name, example.model_version),
            example.features,
            example.features_digest,
            example.degraded or UNSET,
        )
    )


def decode_example(value: bytes) -> Example:
    """The example that a record of `examples` carries: exactly the one that was encoded.

    Raises
    ------
    UnreadableExample
        When it carries none. Unknown fields of a later version are ignored.
    """
    try:
        wire = _read_example(value)
    except UNREAD as error:
        raise UnreadableExample(f"not an example: {error}") from error
    event_time_ms, label_time_ms = read_time(wire.event_time), read_time(wire.label_time)
    if event_time_ms is None or label_time_ms is None:
        raise UnreadableExample("not an example: event_time or label_time is not RFC 3339")
    if len(wire.features) % 4:
        raise UnreadableExample(f"not an example: features of {len(wire.features)} bytes are no float32 numbers")
    return Example(
        transaction_id=wire.transaction_id,
        card_id=wire.card_id,
        event_time_ms=event_time_ms,
        label_time_ms=label_time_ms,
        is_fraud=wire.is_fraud,
        source=wire.source,
        amount=wire.amount,
        action=wire.action,
        score=wire.score,
        champion_score=wire.champion_score,
        online_score=wire.online_score,
        threshold=wire.threshold,
        model_name=wire.model.name,
        model_version=wire.model.version,
        features_digest=wire.features_digest,
        features=wire.features,
        degraded=wire.degraded is True,
    )


def encode_model_event(event: ModelEvent) -> bytes:
    """The value of a record of `model-events`. Its numbers are finite; a NaN would become null."""
    return _encode(
        ModelEventWire(
            event.event_id,
            event.kind,
            event.state,
            write_time(event.time_ms),
            event.subject,
            event.message,
            ModelWire(event.model_name, event.model_version),
            dict(event.values),
        )
    )


def decode_model_event(value: bytes) -> ModelEvent:
    """The event that a record of `model-events` carries. Raises `UnreadableModelEvent` when it carries none."""
    try:
        wire = _read_model_event(value)
    except UNREAD as error:
        raise UnreadableModelEvent(f"not a model event: {error}") from error
    time_ms = read_time(wire.time)
    if time_ms is None:
        raise UnreadableModelEvent("not a model event: time is not RFC 3339")
    return ModelEvent(
        event_id=wire.event_id,
        kind=wire.kind,
        state=wire.state,
        time_ms=time_ms,
        subject=wire.subject,
        message=wire.message,
        model_name=wire.model.name,
        model_version=wire.model.version,
        values=wire.values,
    )

"""The AsyncAPI 3.0 document of the eight topics, rendered from the wire types and the topic names.

Directions are fraudstream's own: it receives what is upstream and sends what is downstream.
"""

from typing import Any, Final, Literal

from msgspec import Struct

from fraudstream.codec.dead_letter import HEADERS, OPTIONAL_HEADERS
from fraudstream.codec.schemas import VERSION, render_components
from fraudstream.events import Reason
from fraudstream.topics import TOPICS

_CARD_KEY: Final = "card_id, UTF-8"
_ORIGINAL: Final = (
    "The bytes of the refused record, untouched. Whatever they are: this is where what is unreadable goes."
)


class _Channel(Struct, frozen=True):
    """One topic: `field` of `Topics`, the schema of its value (None: a dead letter, whatever bytes it has), its key in words."""

    field: str
    message: str
    description: str
    actions: tuple[Literal["receive", "send"], ...]
    schema: str | None
    key: str
    partitions: int | None = None


CHANNELS: Final = (
    _Channel("transactions", "transaction", "Card transactions to decide on.", ("receive",), "Transaction", _CARD_KEY),
    _Channel(
        "labels",
        "label",
        "Late verdicts on transactions.",
        ("receive",),
        "Label",
        "card_id where it is known, else transaction_id; not null",
    ),
    _Channel("alerts", "alert", "Decisions to review or to block.", ("send",), "Alert", _CARD_KEY),
    _Channel("decisions", "decision", "Every decision: the audit trail.", ("send",), "Decision", _CARD_KEY),
    _Channel(
        "transactions_dead_letter",
        "transactionDeadLetter",
        "Records of transactions that were refused.",
        ("send",),
        None,
        "the key of the refused record, untouched",
    ),
    _Channel(
        "labels_dead_letter",
        "labelDeadLetter",
        "Records of labels that were refused.",
        ("send",),
        None,
        "the key of the refused record, untouched",
    ),
    _Channel(
        "examples",
        "example",
        "Internal, one partition: features as they were at decision time, and the label, for the learner.",
        ("send", "receive"),
        "Example",
        _CARD_KEY,
        partitions=1,
    ),
    _Channel(
        "model_events",
        "modelEvent",
        "One partition: drift alarms that begin and end, learning frozen and resumed, an online model that cannot be read.",
        ("send",),
        "ModelEvent",
        "none",
        partitions=1,
    ),
)


def render_asyncapi() -> dict[str, Any]:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "fraudstream",
            "version": str(VERSION),
            "description": "Topics of a streaming fraud detector: transactions and labels in; decisions and alerts out.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.field: _channel(channel) for channel in CHANNELS},
        "operations": {
            f"{action}_{channel.field}": {"action": action, "channel": {"$ref": f"#/channels/{channel.field}"}}
            for channel in CHANNELS
            for action in channel.actions
        },
        "components": {
            "messages": {channel.message: _message(channel) for channel in CHANNELS},
            "schemas": render_components("#/components/schemas/{name}"),
        },
    }


def _channel(channel: _Channel) -> dict[str, Any]:
    topic = getattr(TOPICS, channel.field)
    kafka = {"topic": topic, "bindingVersion": "0.5.0"}
    if channel.partitions is not None:
        kafka["partitions"] = channel.partitions
    return {
        "address": topic,
        "description": channel.description,
        "messages": {channel.message: {"$ref": f"#/components/messages/{channel.message}"}},
        "bindings": {"kafka": kafka},
    }


def _message(channel: _Channel) -> dict[str, Any]:
    message: dict[str, Any] = {"name": channel.message, "summary": channel.description}
    if channel.schema is not None:
        message["payload"] = {"$ref": f"#/components/schemas/{channel.schema}"}
    else:
        message["contentType"] = "application/octet-stream"
        message["payload"] = {"description": _ORIGINAL}
        message["headers"] = _dead_letter_headers()
    key = {"type": "string", "description": channel.key}
    message["bindings"] = {"kafka": {"key": key, "bindingVersion": "0.5.0"}}
    return message


def _dead_letter_headers() -> dict[str, Any]:
    properties: dict[str, Any] = {
        name: {"type": "string", "description": text} for name, text in (HEADERS | OPTIONAL_HEADERS).items()
    }
    properties["fraudstream-reason"]["enum"] = [reason.value for reason in Reason]
    return {
        "type": "object",
        "description": "The headers of the refused record, and these.",
        "properties": properties,
        "required": list(HEADERS),
    }

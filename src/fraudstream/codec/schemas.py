"""JSON Schema 2020-12 of the topics' values, rendered from the wire types.

A schema says what a record may be with the default limits. It cannot say everything: that keys are unique, that the key
equals the card_id and that event_time is near the record's own time is in `docs/reference/events.md`.
"""

import json
from typing import Any, Final

import msgspec

from fraudstream.codec.wire import AlertWire, DecisionWire, ExampleWire, LabelWire, ModelEventWire, TransactionWire

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# Raised when a value that was valid no longer is, or a field that was there no longer is.
VERSION: Final = 1

WIRE_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    "transaction": TransactionWire,
    "label": LabelWire,
    "decision": DecisionWire,
    "alert": AlertWire,
    "example": ExampleWire,
    "model-event": ModelEventWire,
}


def render_schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its file name."""
    return {f"{name}.schema.json": _render(name, wire_type) for name, wire_type in WIRE_TYPES.items()}


def render_components(ref_template: str) -> dict[str, Any]:
    """The schemas of all wire types and of what they are made of, by name, with references as `ref_template` says."""
    _, components = msgspec.json.schema_components(WIRE_TYPES.values(), ref_template=ref_template)
    return _public_names(components)


def to_text(document: dict[str, Any]) -> str:
    """The text of a rendered file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _render(name: str, wire_type: type[msgspec.Struct]) -> dict[str, Any]:
    definitions = _public_names(msgspec.json.schema(wire_type))["$defs"]
    root: dict[str, Any] = definitions.pop(wire_type.__name__.removesuffix("Wire"))
    head: dict[str, Any] = {"$schema": DIALECT, "$id": f"urn:fraudstream:schema:{name}:{VERSION}"}
    schema = head | root
    if definitions:
        schema["$defs"] = definitions
    return schema


def _public_names(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with `AlertWire` called `Alert`: the suffix tells two types of ours apart, which readers do not see."""
    renamed: dict[str, Any] = json.loads(json.dumps(schema).replace('Wire"', '"'))
    return renamed

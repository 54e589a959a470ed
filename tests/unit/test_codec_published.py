"""What is published stays true: schemas and AsyncAPI document are current, and every old sample is readable."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from tests.support.codec_records import RECORD_TIME_MS, PlainRecord

from fraudstream.codec import (
    Limits,
    ModelIdentity,
    decode_decision,
    decode_example,
    decode_label,
    decode_model_event,
    decode_transaction,
    encode_alert,
    encode_decision,
    encode_example,
    encode_model_event,
    pack_decision,
    unpack_decision,
)
from fraudstream.codec.__main__ import rendered_files
from fraudstream.codec.asyncapi import CHANNELS, render_asyncapi
from fraudstream.codec.dead_letter import HEADERS, OPTIONAL_HEADERS
from fraudstream.events import (
    Contribution,
    Decision,
    Example,
    Label,
    ModelEvent,
    ModelEventKind,
    Reason,
    Rejected,
    Transaction,
)
from fraudstream.topics import TOPICS, Topics

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests" / "samples"
REFERENCE = ROOT / "docs" / "reference"
MODEL = ModelIdentity(
    "champion", "2018-06-25.1", "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
)
DECISION = Decision(
    transaction_id="tx-000000000001",
    card_id="card-001234",
    terminal_id="terminal-4321",
    event_time_ms=RECORD_TIME_MS,
    decided_at_ms=RECORD_TIME_MS + 7,
    amount=12.34,
    action="block",
    score=0.9712,
    champion_score=0.9712,
    threshold=0.9,
    model_name=MODEL.name,
    model_version=MODEL.version,
    features_digest=MODEL.features_digest,
    features=bytes.fromhex("a4704541 00000000 00004040 0000c03f"),
    reasons=(
        Contribution("amount_to_mean_30d", "amount 5.3 times the card's mean of 30 days", 1.75),
        Contribution("night", "at night", 0.25),
    ),
    partition=3,
    offset=41,
)
# As of version 2: with an online model, and without the state.
BLENDED = msgspec.structs.replace(
    DECISION, score=0.9375, champion_score=0.9712, online_score=0.90625, degraded=True, threshold=0.5
)
EXAMPLE = Example(
    transaction_id=BLENDED.transaction_id,
    card_id=BLENDED.card_id,
    event_time_ms=BLENDED.event_time_ms,
    label_time_ms=1_531_035_000_000,
    is_fraud=True,
    source="chargeback",
    amount=BLENDED.amount,
    action=BLENDED.action,
    score=BLENDED.score,
    champion_score=BLENDED.champion_score,
    online_score=BLENDED.online_score,
    threshold=BLENDED.threshold,
    model_name=MODEL.name,
    model_version=MODEL.version,
    features_digest=MODEL.features_digest,
    features=BLENDED.features,
    degraded=True,
)
MODEL_EVENT = ModelEvent(
    event_id="drift:amount:1530403212345",
    kind=ModelEventKind.DRIFT,
    state="began",
    time_ms=RECORD_TIME_MS,
    subject="amount",
    message="amount is distributed otherwise than at training: PSI 0.31 above 0.05",
    model_name=MODEL.name,
    model_version=MODEL.version,
    values={"psi": 0.31, "threshold": 0.05, "transactions": 10_000},
)
EXTRA = {"merchant": "Café Zum Eck", "mcc": 5812, "device": {"os": "android", "ids": [1, 2.5, None, True]}}
EXPECTED: dict[str, Any] = {
    "v1/transaction-rfc3339.json": Transaction(
        "tx-000000000001", RECORD_TIME_MS, "card-001234", "terminal-4321", 12.34, 1234, "EUR", None
    ),
    "v1/transaction-epoch-ms.json": Transaction(
        "tx-000000000002", RECORD_TIME_MS, "card-001234", "terminal-4321", 7.0, 700, None, None
    ),
    "v1/transaction-extras.json": Transaction(
        "tx-000000000003", RECORD_TIME_MS, "card-001234", "terminal-4321", 2.675, 268, None, EXTRA
    ),
    "v1/label-chargeback.json": Label("tx-000000000001", True, 1_531_035_000_000, "chargeback", "10.4"),
    "v1/label-analyst.json": Label("tx-000000000002", False, 1_530_500_000_000, "analyst", None),
    "v1/decision.json": DECISION,
    "v1/alert.json": None,  # nothing of ours reads alerts; the schema does
    "v1/stored-decision.hex": DECISION,
    "v2/decision.json": DECISION,
    "v2/decision-blended.json": BLENDED,
    "v2/example.json": EXAMPLE,
    "v2/model-event.json": MODEL_EVENT,
    "v2/stored-decision.hex": DECISION,
    "v2/stored-decision-blended.hex": BLENDED,
}
WRITTEN_NOW = {
    "v2/decision.json": encode_decision(DECISION),
    "v2/decision-blended.json": encode_decision(BLENDED),
    "v2/example.json": encode_example(EXAMPLE),
    "v2/model-event.json": encode_model_event(MODEL_EVENT),
    "v2/stored-decision.hex": pack_decision(DECISION, 7).hex().encode(),
    "v2/stored-decision-blended.hex": pack_decision(BLENDED, 7).hex().encode(),
}


def sample_names() -> list[str]:
    """Every sample file, as version/name."""
    return sorted(str(path.relative_to(SAMPLES)) for path in SAMPLES.glob("v*/*"))


def kind_of(name: str) -> str:
    """What a sample is one of: its name up to a further word that tells it from others of its kind."""
    kind = re.split(r"[-.]", name.partition("/")[2])[0]
    return "model-event" if kind == "model" else kind


def read_sample(name: str) -> Any:
    """What the reader of that kind of sample makes of it."""
    value = (SAMPLES / name).read_bytes()
    kind = kind_of(name)
    if kind == "transaction":
        return decode_transaction(PlainRecord(value), Limits())
    if kind == "label":
        return decode_label(PlainRecord(value), Limits())
    if kind == "stored":
        packed = bytes.fromhex(value.decode())
        return unpack_decision(DECISION.transaction_id, packed, {7: MODEL}.__getitem__)
    readers = {"decision": decode_decision, "example": decode_example, "model-event": decode_model_event}
    return readers[kind](value) if kind in readers else None


@pytest.mark.parametrize("name", sample_names())
def test_every_sample_is_readable_for_ever(name: str) -> None:
    """Samples of every version are read as what they were written for."""
    assert read_sample(name) == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in sample_names() if name.endswith(".json")])
def test_every_sample_validates(name: str) -> None:
    """Samples of every version validate against the schema that is published now."""
    kind = kind_of(name)
    schema = json.loads((REFERENCE / "schemas" / f"{kind}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads((SAMPLES / name).read_bytes()))


def test_todays_bytes_are_the_samples() -> None:
    """The current version writes exactly its samples: an unintended change of the wire format shows here."""
    assert encode_alert(DECISION) + b"\n" == (SAMPLES / "v1" / "alert.json").read_bytes()
    for name, value in WRITTEN_NOW.items():
        assert value + b"\n" == (SAMPLES / name).read_bytes(), name


@pytest.mark.parametrize("name", sorted(rendered_files()))
def test_rendered_files_are_current(name: str) -> None:
    """The published schemas and the AsyncAPI document are what the types say now."""
    current = rendered_files()[name]
    published = (REFERENCE / name).read_text(encoding="utf-8")
    assert published == current, "run: python -m fraudstream.codec --write"


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("schemas/*.json")), ids=lambda path: path.name)
def test_schemas_are_schemas(path: Path) -> None:
    """Each published schema is valid JSON Schema 2020-12 and rendered by us."""
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))
    assert f"schemas/{path.name}" in rendered_files()


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": -1},
        {"amount": True},
        {"card_id": ""},
        {"card_id": "a\u0000"},
        {"currency": "eur"},
        {"event_time": 1.5},
    ],
)
def test_schema_refuses_what_the_codec_refuses(wrong: dict[str, Any]) -> None:
    """What a schema can say, it says."""
    schema = json.loads((REFERENCE / "schemas" / "transaction.schema.json").read_text(encoding="utf-8"))
    sample = json.loads((SAMPLES / "v1" / "transaction-rfc3339.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(sample)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(sample | wrong)
    assert isinstance(decode_transaction(PlainRecord(json.dumps(sample | wrong).encode()), Limits()), Rejected)


def references(node: Any) -> Iterator[str]:
    """Every $ref in a document."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: Any, reference: str) -> Any:
    """What a $ref within the document points to."""
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


def test_asyncapi_document_covers_every_topic() -> None:
    """All eight topics are channels with their address, a message with a key, and a direction; every reference leads somewhere."""
    document = render_asyncapi()
    assert document["asyncapi"] == "3.0.0"
    addresses = {name: channel["address"] for name, channel in document["channels"].items()}
    assert addresses == msgspec.to_builtins(TOPICS)
    assert len(addresses) == 8
    assert {channel.field for channel in CHANNELS} == set(Topics.__struct_fields__)
    for reference in references(document):
        assert resolve(document, reference)
    directions = {
        resolve(document, operation["channel"]["$ref"])["address"]: operation["action"]
        for operation in document["operations"].values()
    }
    assert {topic for topic, action in directions.items() if topic != TOPICS.examples and action == "receive"} == {
        "transactions",
        "labels",
    }
    assert set(directions) == set(addresses.values())
    for message in document["components"]["messages"].values():
        assert message["bindings"]["kafka"]["key"]["description"]


def test_asyncapi_document_names_the_headers_of_dead_letters() -> None:
    """Both dead-letter messages list every header, and the reason header every reason."""
    messages = render_asyncapi()["components"]["messages"]
    for name in ("transactionDeadLetter", "labelDeadLetter"):
        headers = messages[name]["headers"]
        assert headers["required"] == list(HEADERS)
        assert list(headers["properties"]) == [*HEADERS, *OPTIONAL_HEADERS]
        assert headers["properties"]["fraudstream-reason"]["enum"] == list(Reason)


def test_events_page_has_every_reason_header_limit_and_topic() -> None:
    """The reference page lists every reason in the order of the checks, and all headers, limits and topics."""
    page = (REFERENCE / "events.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([a-z_0-9]+)` \|", page.partition("## Reasons")[2].partition("\n## ")[0], re.MULTILINE)
    assert table == list(Reason)
    for name in (*HEADERS, *OPTIONAL_HEADERS, *Limits.__struct_fields__, *msgspec.to_builtins(TOPICS).values()):
        assert f"`{name}`" in page
    for name, value in msgspec.to_builtins(Limits()).items():
        assert re.search(rf"^\| `{name}` \| {value:,.0f}\b", page, re.MULTILINE), f"{name}: {value:,.0f}"

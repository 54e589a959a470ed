"""The JSON objects of the topics as types: what the decoders read, the encoders write and the schemas are made from.

What a schema says beyond the type (patterns, lengths) is not enforced while decoding: limits can be set, and
`fraudstream.codec.decode` answers a fault with its reason code instead of a schema's message.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from fraudstream.codec.limits import Limits
from fraudstream.codec.times import Moment
from fraudstream.events import Contribution, EventState, LabelSource, ModelEventKind

# What a msgspec decoder raises over bytes that are none of ours: of another shape, no UTF-8, nested too deep for its stack.
UNREAD: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_LIMITS = Limits()
_ID_SCHEMA: dict[str, Any] = {
    "minLength": 1,
    "maxLength": _LIMITS.id_length_max,
    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
}
_TIME_MS_SCHEMA: dict[str, Any] = {"minimum": 0, "maximum": 253_402_300_799_999}


def _id(description: str) -> Meta:
    return Meta(description=description, extra_json_schema=_ID_SCHEMA)


TransactionId = Annotated[str, _id("Unique per transaction; a second record with the same id is a duplicate.")]
CardId = Annotated[str, _id("The card that pays; the record's key, byte for byte.")]
TerminalId = Annotated[str, _id("Where the card was used.")]
AmountIn = Annotated[
    float,
    Meta(
        description="Major units (12.34), finite. Kept as sent, and in hundredths, round half even.",
        extra_json_schema={"minimum": 0, "maximum": _LIMITS.amount_max},
    ),
]
Time = Annotated[
    str,
    Meta(
        description="RFC 3339, UTC, milliseconds.",
        extra_json_schema={
            "format": "date-time",
            "pattern": "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}\\.\\d{3}Z$",
        },
    ),
]
Probability = Annotated[float, Meta(extra_json_schema={"minimum": 0, "maximum": 1})]
Amount = Annotated[float, Meta(description="Major units, as in the transaction.", extra_json_schema={"minimum": 0})]


class TransactionWire(Struct, frozen=True, gc=False):
    """A card transaction. Fields that are not named here are kept; features and rules can use them."""

    transaction_id: TransactionId
    event_time: (
        Annotated[Moment, Meta(description="RFC 3339 with an offset.")]
        | Annotated[int, Meta(description="Milliseconds since the epoch, UTC.", extra_json_schema=_TIME_MS_SCHEMA)]
    )
    card_id: CardId
    terminal_id: TerminalId
    amount: AmountIn
    currency: Annotated[
        Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Z]{3}$"})] | UnsetType | None,
        Meta(description="ISO 4217 form: three capital letters. null is the same as absent."),
    ] = UNSET


class LabelWire(Struct, frozen=True, gc=False):
    """A late verdict on a transaction. Fields that are not named here are ignored."""

    transaction_id: Annotated[str, _id("The transaction that is judged.")]
    is_fraud: bool
    label_time: (
        Annotated[Moment, Meta(description="RFC 3339 with an offset.")]
        | Annotated[int, Meta(description="Milliseconds since the epoch, UTC.", extra_json_schema=_TIME_MS_SCHEMA)]
    )
    source: LabelSource
    reason: Annotated[
        Annotated[str, Meta(extra_json_schema={"maxLength": _LIMITS.text_length_max})] | UnsetType | None,
        Meta(description="Free text, such as the chargeback's reason code. null is the same as absent."),
    ] = UNSET


class ModelWire(Struct, frozen=True, gc=False):
    """The model version that decided."""

    name: str
    version: str


class SourceWire(Struct, frozen=True, gc=False):
    """The record of `transactions` that was decided."""

    partition: Annotated[int, Meta(extra_json_schema={"minimum": 0})]
    offset: Annotated[int, Meta(extra_json_schema={"minimum": 0})]


_SCORE = "Probability of fraud, the one that was decided with."
_CHAMPION_SCORE = "The champion's own score. Absent in decisions of before it was told apart: then it is `score`."
_ONLINE_SCORE = "The online model's score; null when there was none."
_DEGRADED = (
    "true: provisional, decided without the state while it could not be read; the final one follows. Absent otherwise."
)
_FEATURES = "Base64 of little-endian float32, in the order of the feature list."
_FEATURES_DIGEST = "Digest of the feature list that `features` follow."
_THRESHOLD = "The score from which the action was taken; that of `review` for an `allow`."
_REASONS = "Largest contributions first, four at most. contribution: log-odds, positive = riskier."


class AlertWire(Struct, frozen=True, gc=False):
    """A decision whose action is not `allow`. A repeated alert has the same alert_id and is the same to the byte."""

    alert_id: Annotated[str, Meta(description='"alert:" and the transaction_id; ":provisional" behind it if degraded.')]
    transaction_id: str
    card_id: str
    terminal_id: str
    amount: Amount
    action: Literal["review", "block"]
    score: Annotated[Probability, Meta(description=_SCORE)]
    threshold: Annotated[Probability, Meta(description=_THRESHOLD)]
    reasons: Annotated[tuple[Contribution, ...], Meta(description=_REASONS)]
    model: ModelWire
    event_time: Time
    decided_at: Time
    degraded: Annotated[bool | UnsetType, Meta(description=_DEGRADED)] = UNSET


class DecisionWire(Struct, frozen=True, gc=False):
    """What was answered for one transaction, with the features it was decided on."""

    transaction_id: str
    card_id: str
    terminal_id: str
    amount: Amount
    action: Literal["allow", "review", "block"]
    score: Annotated[Probability, Meta(description=_SCORE)]
    threshold: Annotated[Probability, Meta(description=_THRESHOLD)]
    reasons: Annotated[tuple[Contribution, ...], Meta(description=_REASONS)]
    model: ModelWire
    event_time: Time
    decided_at: Time
    features: Annotated[bytes, Meta(description=_FEATURES)]
    features_digest: Annotated[str, Meta(description=_FEATURES_DIGEST)]
    source: SourceWire
    champion_score: Annotated[Probability | UnsetType, Meta(description=_CHAMPION_SCORE)] = UNSET
    online_score: Annotated[Probability | None, Meta(description=_ONLINE_SCORE)] = None
    degraded: Annotated[bool | UnsetType, Meta(description=_DEGRADED)] = UNSET


class ExampleWire(Struct, frozen=True, gc=False):
    """A decision as it was made, and the verdict that came later. Internal: for the learner and for training."""

    transaction_id: str
    card_id: str
    event_time: Time
    label_time: Time
    is_fraud: bool
    source: Annotated[LabelSource, Meta(description="Who gave the verdict.")]
    amount: Amount
    action: Literal["allow", "review", "block"]
    score: Annotated[Probability, Meta(description=_SCORE)]
    champion_score: Annotated[Probability, Meta(description="The champion's own score.")]
    online_score: Annotated[Probability | None, Meta(description=_ONLINE_SCORE)]
    threshold: Annotated[Probability, Meta(description=_THRESHOLD)]
    model: ModelWire
    features: Annotated[bytes, Meta(description=_FEATURES)]
    features_digest: Annotated[str, Meta(description=_FEATURES_DIGEST)]
    degraded: Annotated[bool | UnsetType, Meta(description=_DEGRADED)] = UNSET


class ModelEventWire(Struct, frozen=True, gc=False):
    """Something that happened to a model or to what it looks at: a drift alarm, frozen learning."""

    event_id: Annotated[str, Meta(description="The same for the same event told again.")]
    kind: ModelEventKind
    state: Annotated[EventState, Meta(description="`happened`, or for what lasts `began` and later `ended`.")]
    time: Time
    subject: Annotated[str, Meta(description="What it is about: a feature, `score`, `online`, a field.")]
    message: Annotated[str, Meta(description="The cause in words.")]
    model: ModelWire
    values: Annotated[dict[str, float | int | str], Meta(description="The figures behind it.")]

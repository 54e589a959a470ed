"""The frozen types of every topic: what upstream sends, what downstream reads.

Wire form (JSON, UTF-8) and limits live in `fraudstream.codec`; the JSON Schema files in `docs/reference/schemas` are
rendered from these types. Times are integer milliseconds since 1970-01-01T00:00:00Z inside the process and RFC 3339
text on the wire.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Protocol

from msgspec import Struct

Action = Literal["allow", "review", "block"]
LabelSource = Literal["chargeback", "analyst"]
EventState = Literal["began", "ended", "happened"]


class Reason(StrEnum):
    """Why a record was refused: the reason header of its dead letter and the label of the reject counter.

    In the order of the checks: a record with several faults gets the first.
    """

    TOMBSTONE = "tombstone"
    KEY_MISSING = "key_missing"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    INVALID_UTF8 = "invalid_utf8"
    NESTED_TOO_DEEP = "nested_too_deep"
    INVALID_JSON = "invalid_json"
    DUPLICATE_KEY = "duplicate_key"
    NOT_AN_OBJECT = "not_an_object"
    FIELD_MISSING = "field_missing"
    FIELD_TYPE = "field_type"
    ID_EMPTY = "id_empty"
    ID_TOO_LONG = "id_too_long"
    KEY_MISMATCH = "key_mismatch"
    AMOUNT_NOT_FINITE = "amount_not_finite"
    AMOUNT_NEGATIVE = "amount_negative"
    AMOUNT_TOO_LARGE = "amount_too_large"
    EVENT_TIME_UNREADABLE = "event_time_unreadable"
    EVENT_TIME_OUT_OF_RANGE = "event_time_out_of_range"
    LABEL_TIME_UNREADABLE = "label_time_unreadable"
    FIELD_VALUE = "field_value"
    LABEL_ORPHAN = "label_orphan"


class Record(Protocol):
    """One record as Kafka delivered it; aiokafka's `ConsumerRecord` fits as it is."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...  # ms since the epoch
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Any: ...  # sequence of (str, bytes)


class Transaction(Struct, frozen=True, gc=False):
    """A card transaction that passed validation.

    `amount` is in major units (12.34) exactly as sent; `amount_minor` is the same rounded to hundredths, the unit in
    which sums are kept, so that adding never loses a cent. `extra` holds every field the schema does not name.
    """

    transaction_id: str
    event_time_ms: int
    card_id: str
    terminal_id: str
    amount: float
    amount_minor: int
    currency: str | None = None
    extra: Mapping[str, Any] | None = None


class Rejected(Struct, frozen=True, gc=False):
    """A record that is not a transaction (or label), with the reason; it goes to the dead-letter topic."""

    reason: Reason
    message: str


class Label(Struct, frozen=True, gc=False):
    """A late verdict on a transaction: was it fraud?"""

    transaction_id: str
    is_fraud: bool
    label_time_ms: int
    source: LabelSource
    reason: str | None = None


class Contribution(Struct, frozen=True, gc=False):
    """One reason of a decision: a feature, in words, and how far it moved the score (log-odds, positive = riskier)."""

    code: str
    text: str
    contribution: float


class Decision(Struct, frozen=True, gc=False):
    """What was answered for one transaction. Everything needed to publish it again, word for word.

    `features` are little-endian float32, one per feature, in the order of the feature list whose digest is
    `features_digest`. Scores and `threshold` are probabilities in [0, 1]: `score` is the one the decision was made with,
    `champion_score` the champion's own, `online_score` the online model's (None: there was none to ask); `threshold` is
    the one that the action's level needs (`review` for an `allow`). `partition` and `offset` name the input record that
    was decided. `degraded`: decided without the state, as its features were not to be had in time.
    """

    transaction_id: str
    card_id: str
    terminal_id: str
    event_time_ms: int
    decided_at_ms: int
    amount: float
    action: Action
    score: float
    champion_score: float
    threshold: float
    model_name: str
    model_version: str
    features_digest: str
    features: bytes
    reasons: tuple[Contribution, ...]
    partition: int
    offset: int
    online_score: float | None = None
    degraded: bool = False


class Example(Struct, frozen=True, gc=False):
    """What can be learned from: a decision as it was made, and the verdict that came later.

    Fields as in `Decision` and `Label`; `label_time_ms` is when the verdict was known, `source` who gave it.
    """

    transaction_id: str
    card_id: str
    event_time_ms: int
    label_time_ms: int
    is_fraud: bool
    source: LabelSource
    amount: float
    action: Action
    score: float
    champion_score: float
    online_score: float | None
    threshold: float
    model_name: str
    model_version: str
    features_digest: str
    features: bytes
    degraded: bool = False


class ModelEventKind(StrEnum):
    """What happened to a model or to what it looks at."""

    DRIFT = "drift"
    LEARNING_FROZEN = "learning_frozen"
    SNAPSHOT_UNREADABLE = "snapshot_unreadable"


class ModelEvent(Struct, frozen=True, gc=False):
    """One thing that happened to a model, for people and for other systems.

    `subject` is what it is about (a feature, `score`, `online`); `state` is `began` and later `ended` for what lasts and
    `happened` for what does not; `message` is the cause in words; `values` the figures behind it. `event_id` is the same
    for the same event told again.
    """

    event_id: str
    kind: ModelEventKind
    state: EventState
    time_ms: int
    subject: str
    message: str
    model_name: str
    model_version: str
    values: Mapping[str, float | int | str]

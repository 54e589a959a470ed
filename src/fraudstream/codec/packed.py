"""Decisions as they are stored: at most 250 bytes with the transaction_id, at 40 features and ids of 12 characters.

A msgpack array (`docs/decisions/wire-format.md` has the byte count). What many decisions share is stored once and
referred to by a small number, the `model_ref`; what a caller keeps as the key, the transaction_id, is left out; the
numbers that every decision has at full width, and the features, share one byte string; amounts and thresholds that are
short decimals become integers. Nothing is rounded: what comes back is equal to the last bit.
"""

import struct
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from fraudstream.codec.amounts import minor_units
from fraudstream.codec.encode import UnreadableDecision
from fraudstream.events import Action, Contribution, Decision

FORMAT_VERSION: Final = 1
"""First element of every packed decision. A new layout gets a new number; old numbers stay readable for ever."""

_ACTIONS: Final[tuple[Action, ...]] = ("allow", "review", "block")  # the order is stored: append only
_ACTION_CODES: Final[dict[Action, int]] = {action: code for code, action in enumerate(_ACTIONS)}
_MILLIONTHS: Final = 1_000_000

# event_time_ms as 48 bits (low 32, high 16; until the year 10889), score.
_HEAD: Final = struct.Struct("<IHd")
_pack_head: Final = _HEAD.pack
_LOW: Final = 0xFFFF_FFFF


class ModelIdentity(Struct, frozen=True):
    """What the decisions of one model version have in common; one row of the table behind `model_ref`."""

    name: str
    version: str
    features_digest: str


ModelLookup = Callable[[int], ModelIdentity]
"""`model_ref` to its row. Raises KeyError for one that was never given out."""


class _PackedV1(Struct, frozen=True, gc=False, array_like=True):
    format_version: int
    model_and_action: int  # model_ref * 3 + action code
    card_id: str
    terminal_id: str
    wait_ms: int  # decided_at - event_time
    amount: int | float  # hundredths if that is exact, else major units
    threshold: int | float  # millionths if that is exact, else as it is
    partition: int
    offset: int
    head_and_features: bytes
    reasons: tuple[tuple[str, str, float], ...] = ()


_encode: Final = msgspec.msgpack.Encoder().encode
_read_v1: Final = msgspec.msgpack.Decoder(_PackedV1).decode
_UNREAD: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, struct.error)


def pack_decision(decision: Decision, model_ref: int) -> bytes:
    """The stored form of a decision, without its transaction_id.

    Parameters
    ----------
    decision
        Its times within [0, 2^48) ms.
    model_ref
        A small number, at least 0, that the caller's table gives to this decision's `ModelIdentity`. Up to 42 it takes
        one byte.
    """
    amount: int | float = decision.amount
    minor = minor_units(amount) if 0.0 <= amount < 1e12 else -1
    if minor / 100 == amount:
        amount = minor
    threshold: int | float = decision.threshold
    millionths = round(threshold * _MILLIONTHS)
    if millionths / _MILLIONTHS == threshold:
        threshold = millionths
    time_ms = decision.event_time_ms
    return _encode(
        _PackedV1(
            FORMAT_VERSION,
            model_ref * len(_ACTIONS) + _ACTION_CODES[decision.action],
            decision.card_id,
            decision.terminal_id,
            decision.decided_at_ms - time_ms,
            amount,
            threshold,
            decision.partition,
            decision.offset,
            _pack_head(time_ms & _LOW, time_ms >> 32, decision.score) + decision.features,
            tuple((reason.code, reason.text, reason.contribution) for reason in decision.reasons),
        )
    )


def unpack_decision(transaction_id: str, packed: bytes, lookup: ModelLookup) -> Decision:
    """The decision that was packed, to the last bit.

    Parameters
    ----------
    transaction_id
        The id under which `packed` is stored.
    packed
        What `pack_decision` of this or any earlier format version made.
    lookup
        The table behind `model_ref`.

    Raises
    ------
    UnreadableDecision
        When the bytes are not a packed decision of a known format version, or its `model_ref` is not in the table.
    """
    # Byte 0 is the array's length, byte 1 its first element: a format version below 128 is that byte itself.
    if len(packed) < 2 or packed[1] != FORMAT_VERSION:
        raise UnreadableDecision(f"not a packed decision of format version {FORMAT_VERSION}")
    try:
        stored = _read_v1(packed)
        time_low, time_high, score = _HEAD.unpack_from(stored.head_and_features)
    except _UNREAD as error:
        raise UnreadableDecision(f"not a packed decision: {error}") from error
    model_ref, action_code = divmod(stored.model_and_action, len(_ACTIONS))
    try:
        model = lookup(model_ref)
    except KeyError as error:
        raise UnreadableDecision(f"model_ref {model_ref} is not in the table of models") from error
    event_time_ms = time_low | time_high << 32
    amount, threshold = stored.amount, stored.threshold
    return Decision(
        transaction_id=transaction_id,
        card_id=stored.card_id,
        terminal_id=stored.terminal_id,
        event_time_ms=event_time_ms,
        decided_at_ms=event_time_ms + stored.wait_ms,
        amount=amount / 100 if type(amount) is int else amount,
        action=_ACTIONS[action_code],
        score=score,
        threshold=threshold / _MILLIONTHS if type(threshold) is int else threshold,
        model_name=model.name,
        model_version=model.version,
        features_digest=model.features_digest,
        features=stored.head_and_features[_HEAD.size :],
        reasons=tuple(Contribution(code, text, contribution) for code, text, contribution in stored.reasons),
        partition=stored.partition,
        offset=stored.offset,
    )

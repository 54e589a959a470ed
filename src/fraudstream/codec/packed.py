"""Decisions as they are stored: at most 250 bytes with the transaction_id, at 40 features and ids of 12 characters.

Where an online model is at work, its score and the champion's own are 8 bytes more.

A msgpack array (`docs/decisions/wire-format.md` has the byte count). What many decisions share is stored once and
referred to by a small number, the `model_ref`; what a caller keeps as the key, the transaction_id, is left out; the
numbers that every decision has at full width, and the features, share one byte string; amounts and thresholds that are
short decimals become integers. Nothing is rounded: what comes back is equal to the last bit.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from math import copysign
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from fraudstream.codec.amounts import minor_units
from fraudstream.codec.encode import UnreadableDecision
from fraudstream.codec.wire import UNREAD
from fraudstream.events import Action, Contribution, Decision

FORMAT_VERSION: Final = 2
"""First element of every packed decision. A new layout gets a new number; old numbers stay readable for ever."""

_ACTIONS: Final[tuple[Action, ...]] = ("allow", "review", "block")  # the order is stored: append only
_ACTION_CODES: Final[dict[Action, int]] = {action: code for code, action in enumerate(_ACTIONS)}
_MILLIONTHS: Final = 1_000_000

# Version 1: event_time_ms as 48 bits (low 32, high 16; until the year 10889), score.
_HEAD_V1: Final = struct.Struct("<IHd")
_LOW: Final = 0xFFFF_FFFF

# Version 2: event_time_ms as before, a byte of flags, then the scores that the flags name, each as a float32 where that
# is exact. Models answer in float32, so it nearly always is.
_SCORE_WIDE: Final = 1
_CHAMPION: Final = 2  # stored where it differs from the score
_CHAMPION_WIDE: Final = 4
_ONLINE: Final = 8
_ONLINE_WIDE: Final = 16
_DEGRADED: Final = 32
_FLAGS_AT: Final = 6


def _head(flags: int) -> struct.Struct:
    scores = "d" if flags & _SCORE_WIDE else "f"
    if flags & _CHAMPION:
        scores += "d" if flags & _CHAMPION_WIDE else "f"
    if flags & _ONLINE:
        scores += "d" if flags & _ONLINE_WIDE else "f"
    return struct.Struct("<IHB" + scores)


_HEADS: Final = tuple(map(_head, range(2 * _DEGRADED)))
_FLOAT32: Final = struct.Struct("<f")


class ModelIdentity(Struct, frozen=True):
    """What the decisions of one model version have in common; one row of the table behind `model_ref`."""

    name: str
    version: str
    features_digest: str


ModelLookup = Callable[[int], ModelIdentity]
"""`model_ref` to its row. Raises KeyError for one that was never given out."""


class _Packed(Struct, frozen=True, gc=False, array_like=True):
    """The layout of version 1 and 2; they differ within `head_and_features`."""

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
_read: Final = msgspec.msgpack.Decoder(_Packed).decode
_UNREAD: Final = (*UNREAD, struct.error)


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
    return _encode(
        _Packed(
            FORMAT_VERSION,
            model_ref * len(_ACTIONS) + _ACTION_CODES[decision.action],
            decision.card_id,
            decision.terminal_id,
            decision.decided_at_ms - decision.event_time_ms,
            amount,
            _short(decision.threshold),
            decision.partition,
            decision.offset,
            _pack_head(decision) + decision.features,
            tuple([(reason.code, reason.text, reason.contribution) for reason in decision.reasons]),
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
    if len(packed) < 2 or not 1 <= packed[1] <= FORMAT_VERSION:
        raise UnreadableDecision(f"not a packed decision of format version 1 to {FORMAT_VERSION}")
    try:
        stored = _read(packed)
        head = _unpack_head_v1(stored) if stored.format_version == 1 else _unpack_head(stored)
    except _UNREAD as error:
        raise UnreadableDecision(f"not a packed decision: {error}") from error
    model_ref, action_code = divmod(stored.model_and_action, len(_ACTIONS))
    try:
        model = lookup(model_ref)
    except KeyError as error:
        raise UnreadableDecision(f"model_ref {model_ref} is not in the table of models") from error
    amount, threshold = stored.amount, stored.threshold
    return Decision(
        transaction_id=transaction_id,
        card_id=stored.card_id,
        terminal_id=stored.terminal_id,
        event_time_ms=head.event_time_ms,
        decided_at_ms=head.event_time_ms + stored.wait_ms,
        amount=amount / 100 if type(amount) is int else amount,
        action=_ACTIONS[action_code],
        score=head.score,
        champion_score=head.champion_score,
        threshold=threshold / _MILLIONTHS if type(threshold) is int else threshold,
        model_name=model.name,
        model_version=model.version,
        features_digest=model.features_digest,
        features=stored.head_and_features[head.size :],
        reasons=tuple(Contribution(code, text, contribution) for code, text, contribution in stored.reasons),
        partition=stored.partition,
        offset=stored.offset,
        online_score=head.online_score,
        degraded=head.degraded,
    )


class _Head(NamedTuple):
    """What stands before the features, and how many bytes it takes."""

    size: int
    event_time_ms: int
    score: float
    champion_score: float
    online_score: float | None = None
    degraded: bool = False


@lru_cache(maxsize=64)  # a model has two thresholds
def _short(threshold: float) -> int | float:
    millionths = round(threshold * _MILLIONTHS)
    return millionths if millionths / _MILLIONTHS == threshold else threshold


def _pack_head(decision: Decision) -> bytes:
    score, champion, online = decision.score, decision.champion_score, decision.online_score
    if champion is score and online is None and not decision.degraded:  # the champion alone, which is the rule
        time_ms = decision.event_time_ms
        flags = 0 if _is_float32(score) else _SCORE_WIDE
        return _HEADS[flags].pack(time_ms & _LOW, time_ms >> 32, flags, score)
    flags = 0 if _is_float32(score) else _SCORE_WIDE
    scores = [score]
    if not _same(champion, score):
        flags |= _CHAMPION if _is_float32(champion) else _CHAMPION | _CHAMPION_WIDE
        scores.append(champion)
    if online is not None:
        flags |= _ONLINE if _is_float32(online) else _ONLINE | _ONLINE_WIDE
        scores.append(online)
    if decision.degraded:
        flags |= _DEGRADED
    time_ms = decision.event_time_ms
    return _HEADS[flags].pack(time_ms & _LOW, time_ms >> 32, flags, *scores)


def _unpack_head(stored: _Packed) -> _Head:
    flags = stored.head_and_features[_FLAGS_AT] if len(stored.head_and_features) > _FLAGS_AT else 0
    if flags >= len(_HEADS):
        raise struct.error(f"flags {flags:#x} are of a later version")
    head = _HEADS[flags]
    time_low, time_high, _, score, *more = head.unpack_from(stored.head_and_features)
    return _Head(
        size=head.size,
        event_time_ms=time_low | time_high << 32,
        score=score,
        champion_score=more.pop(0) if flags & _CHAMPION else score,
        online_score=more.pop(0) if flags & _ONLINE else None,
        degraded=bool(flags & _DEGRADED),
    )


def _unpack_head_v1(stored: _Packed) -> _Head:
    time_low, time_high, score = _HEAD_V1.unpack_from(stored.head_and_features)
    return _Head(_HEAD_V1.size, time_low | time_high << 32, score, score)


def _is_float32(score: float) -> bool:
    """Scores are finite and at most 1, so packing never overflows."""
    narrow: float = _FLOAT32.unpack(_FLOAT32.pack(score))[0]
    return narrow == score


def _same(one: float, other: float) -> bool:
    """Equal to the last bit: 0.0 is not -0.0."""
    return one == other and (one != 0.0 or copysign(1.0, one) == copysign(1.0, other))

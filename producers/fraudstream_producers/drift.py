"""Drift on a schedule: from a given day on, the world is another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from fraudstream_producers.errors import UsageError
from fraudstream_producers.randomness import Stream, generator
from fraudstream_producers.world import Ints

Day = Annotated[int, Meta(ge=0, le=1_000_000)]
SPEC_HELP = "amount:DAY:FACTOR, pattern:DAY[:NAME[:SHARE]] or terminals:DAY[:SHARE]"


class AmountScale(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="amount"):
    """From `day` on every amount is multiplied by `factor` (prices rise, a currency changes)."""

    day: Day
    factor: Annotated[float, Meta(gt=0, le=1_000)]


class NewPattern(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="pattern"):
    """From `day` on `share` of the frauds are of the pattern `name`; the others shrink, the fraud rate stays."""

    day: Day
    name: str = "gift_cards"
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5


class RenumberTerminals(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="terminals"
):
    """From `day` on `share` of the terminals have new ids (an acquirer changed hands); what happens there stays."""

    day: Day
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0


Drift = AmountScale | NewPattern | RenumberTerminals


def parse_drift(spec: str) -> Drift:
    """A drift from its short form, for example `amount:30:1.5`, `pattern:30:gift_cards:0.5` or `terminals:45`.

    Raises
    ------
    UsageError
        The text has not that form. Ranges are checked by `settings.checked`.
    """
    kind, *fields = spec.split(":")
    try:
        if kind == "amount" and len(fields) == 2:
            return AmountScale(day=int(fields[0]), factor=float(fields[1]))
        if kind == "pattern" and 1 <= len(fields) <= 3:
            name = fields[1] if len(fields) > 1 else "gift_cards"
            return NewPattern(day=int(fields[0]), name=name, share=float(fields[2]) if len(fields) > 2 else 0.5)
        if kind == "terminals" and 1 <= len(fields) <= 2:
            return RenumberTerminals(day=int(fields[0]), share=float(fields[1]) if len(fields) > 1 else 1.0)
    except ValueError:
        pass
    raise UsageError(f"drift {spec!r} is not {SPEC_HELP}")


def amount_factor(day: int, drift: Sequence[Drift]) -> float:
    """What amounts are multiplied by on `day`: the product of all factors that have begun."""
    return float(np.prod([d.factor for d in drift if isinstance(d, AmountScale) and d.day <= day]))


def shares_on(day: int, weights: Mapping[str, float], drift: Sequence[Drift]) -> dict[str, float]:
    """Each pattern's share of the frauds on `day`: 0 to 1, 1 in sum (all 0 where no pattern has any weight).

    Raises
    ------
    UsageError
        A drift names a pattern that does not exist.
    """
    total = sum(weights.values())
    shares = {name: weight / total if total else 0.0 for name, weight in weights.items()}
    for change in sorted((d for d in drift if isinstance(d, NewPattern)), key=lambda d: d.day):
        if change.name not in shares:
            raise UsageError(f"there is no fraud pattern {change.name!r}, only {', '.join(shares)}")
        if change.day <= day:
            others = sum(share for name, share in shares.items() if name != change.name)
            scale = (1 - change.share) / others if others else 0.0
            shares = {name: share * scale for name, share in shares.items()} | {change.name: change.share}
    return shares


def terminal_numbers(day: int, count: int, seed: int, drift: Sequence[Drift]) -> Ints:
    """The number in the id of each of `count` terminals on `day`; a number that was given up is never used again."""
    number = np.arange(count)
    for place, change in enumerate(d for d in drift if isinstance(d, RenumberTerminals)):
        if change.day <= day:
            moved = generator(seed, Stream.DRIFT, place).random(count) < change.share
            fresh = (place + 1) * count + generator(seed, Stream.DRIFT, place, 1).permutation(count)
            number = np.where(moved, fresh, number)
    return number

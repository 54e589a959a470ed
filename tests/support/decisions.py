"""A decision, for tests that need one but not its content."""

import struct
from typing import Any

from msgspec.structs import replace

from fraudstream.events import Contribution, Decision

DECISION = Decision(
    transaction_id="t1",
    card_id="c1",
    terminal_id="w1",
    event_time_ms=1_530_403_212_345,
    decided_at_ms=1_530_403_212_352,
    amount=12.34,
    action="review",
    score=0.7312345678901234,
    champion_score=0.7312345678901234,
    threshold=0.5,
    model_name="fraud",
    model_version="1",
    features_digest="5f" * 32,
    features=struct.pack("<19f", *(number / 7 for number in range(19))),
    reasons=(Contribution("AMOUNT", "amount 5 times the card's mean", 1.25),),
    partition=3,
    offset=41,
)


def a_decision(**fields: Any) -> Decision:
    """The decision with some fields changed."""
    return replace(DECISION, **fields)

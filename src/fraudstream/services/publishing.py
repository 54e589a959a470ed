"""What leaves the system: answers and dead letters as records to publish."""

from collections.abc import Sequence
from typing import Final

from fraudstream.codec import dead_letter_headers, encode_alert, encode_decision, encode_example
from fraudstream.core.engine import example_of
from fraudstream.core.ports import Outgoing
from fraudstream.events import Decision, Label, Record, Rejected
from fraudstream.topics import Topics

# A letter is cut to a size that every topic takes, and to enough of it to see what was sent.
CUT_ABOVE_BYTES: Final = 8_192
CUT_TO_BYTES: Final = 1_024


def of_decisions(decisions: Sequence[Decision], topics: Topics, *, with_decisions: bool) -> list[Outgoing]:
    """The alert of each decision that is one, and, if wanted, the decision itself; keyed by card."""
    messages = []
    for decision in decisions:
        key = decision.card_id.encode()
        if decision.action != "allow":
            messages.append(Outgoing(topics.alerts, encode_alert(decision), key))
        if with_decisions:
            messages.append(Outgoing(topics.decisions, encode_decision(decision), key))
    return messages


def of_examples(joined: Sequence[tuple[Decision, Label]], topics: Topics) -> list[Outgoing]:
    """What can be learned from decisions whose verdict is known; keyed by card."""
    return [
        Outgoing(topics.examples, encode_example(example_of(decision, label)), decision.card_id.encode())
        for decision, label in joined
    ]


def of_rejected(topic: str, rejected: Sequence[tuple[Record, Rejected]], now_ms: int) -> list[Outgoing]:
    """Dead letters: the original bytes, key and headers, and the reason in headers of their own.

    A letter is larger than its record, so the topic may refuse what the input topic took; one that is large carries a
    letter that is cut for that case.
    """
    letters = []
    for record, why in rejected:
        headers = dead_letter_headers(record, why, now_ms)
        smaller = _cut(topic, record, why, now_ms) if _bytes(record, headers) > CUT_ABOVE_BYTES else None
        letters.append(Outgoing(topic, record.value, record.key, headers, smaller))
    return letters


def _cut(topic: str, record: Record, why: Rejected, now_ms: int) -> Outgoing:
    value = None if record.value is None else record.value[:CUT_TO_BYTES]
    key = record.key if len(record.key or b"") <= CUT_TO_BYTES else None
    return Outgoing(topic, value, key, dead_letter_headers(record, why, now_ms, cut=True))


def _bytes(record: Record, headers: Sequence[tuple[str, bytes | None]]) -> int:
    of_headers = sum(len(name) + len(value or b"") for name, value in headers)
    return len(record.value or b"") + len(record.key or b"") + of_headers

"""What leaves the system: answers and dead letters as records to publish."""

from collections.abc import Sequence

from fraudstream.codec import dead_letter_headers, encode_alert, encode_decision
from fraudstream.core.ports import Outgoing
from fraudstream.events import Decision, Record, Rejected
from fraudstream.topics import Topics


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


def of_rejected(topic: str, rejected: Sequence[tuple[Record, Rejected]], now_ms: int) -> list[Outgoing]:
    """Dead letters: the original bytes, key and headers, and the reason in headers of their own."""
    return [
        Outgoing(topic, record.value, record.key, dead_letter_headers(record, why, now_ms)) for record, why in rejected
    ]

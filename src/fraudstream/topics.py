"""The names of the topics: the contract with everything upstream and downstream."""

from typing import Final

from msgspec import Struct


class Topics(Struct, frozen=True):
    """The eight topic names; a deployment may prefix or rename them, the fields stay."""

    transactions: str = "transactions"
    labels: str = "labels"
    alerts: str = "alerts"
    decisions: str = "decisions"
    transactions_dead_letter: str = "transactions.dead-letter"
    labels_dead_letter: str = "labels.dead-letter"
    examples: str = "examples"
    model_events: str = "model-events"


TOPICS = Topics()
"""The default names."""

SINGLE_PARTITION: Final = ("examples", "model_events")
"""One learner reads the examples, in order; model events are few and read as one story."""

"""Labels meet the decisions they are about. Exactly once: the store remembers which decision has its verdict.

A label that is joined leaves a note in the store, in the same atomic step, that its example is to be published. Who joined
it publishes the example and settles the note; what a crash left behind, and what a scorer joined (an early label, within
its own commit), is published by `publish_due`. So an example is published at least once, whoever dies when.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from fraudstream.codec import Limits, decode_label
from fraudstream.core.engine import fraud_keys, join_labels
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import LabelStatus, Publisher, StateStore
from fraudstream.errors import StateUnavailable
from fraudstream.events import Decision, Label, Reason, Record, Rejected
from fraudstream.services.publishing import of_examples, of_rejected
from fraudstream.topics import Topics

# Examples in one go: some 100 kB to Kafka, and one call to Redis.
EXAMPLES_PER_CALL = 500
# As in scoring: a conflict is a matter of milliseconds, ten in a row are a fault.
CONFLICTS_MAX = 10


class Labeller:
    """Joins batches of label records. Redelivered labels are recognised: the batch may be processed again at any time."""

    def __init__(
        self,
        features: FeatureSet,
        store: StateStore,
        publisher: Publisher,
        *,
        clock_ms: Callable[[], int],
        topics: Topics | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._features = features
        self._store = store
        self._publisher = publisher
        self._clock_ms = clock_ms
        self._topics = topics or Topics()
        self._limits = limits or Limits()

    def process(self, records: Sequence[Record]) -> Counter[str]:
        """Join, park or refuse every record; returns how many ended in which way.

        Raises `StateUnavailable` or `BrokerUnavailable`; calling again with the same batch is then safe.
        """
        labels: list[tuple[Record, Label]] = []
        rejected: list[tuple[Record, Rejected]] = []
        for record in records:
            decoded = decode_label(record, self._limits)
            if isinstance(decoded, Rejected):
                rejected.append((record, decoded))
            else:
                labels.append((record, decoded))
        tally: Counter[str] = Counter()
        joined: list[tuple[Decision, Label]] = []
        for waiting in _in_rounds(labels):
            orphans = self._join_all(waiting, tally, joined)
            rejected += [
                (record, Rejected(Reason.LABEL_ORPHAN, "no decision is known for it and too many labels wait already"))
                for record, _ in orphans
            ]
        if rejected:
            tally["rejected"] += len(rejected)
            self._publisher.publish(of_rejected(self._topics.labels_dead_letter, rejected, self._clock_ms()))
        self._publish(joined)
        return tally

    def publish_due(self) -> int:
        """Publish the examples that are due, of early labels and of workers that are gone; how many there were.

        Raises `StateUnavailable` or `BrokerUnavailable`; calling again is then safe.
        """
        done = 0
        while labels := self._store.claim_examples(EXAMPLES_PER_CALL):
            decisions = self._store.gather_decisions([label.transaction_id for label in labels])
            # Without a decision there is nothing to learn from: it left with the retention while its label waited.
            self._publish([(d, label) for d, label in zip(decisions, labels, strict=True) if d is not None])
            self._store.settle_examples([label for d, label in zip(decisions, labels, strict=True) if d is None])
            done += len(labels)
        return done

    def _publish(self, joined: Sequence[tuple[Decision, Label]]) -> None:
        if joined:
            self._publisher.publish(of_examples(joined, self._topics))
            self._store.settle_examples([label for _, label in joined])

    def _join_all(
        self, labels: list[tuple[Record, Label]], tally: Counter[str], joined: list[tuple[Decision, Label]]
    ) -> list[tuple[Record, Label]]:
        """Join or park labels of distinct transactions; those that found no room. `joined` grows by what was joined."""
        homeless: list[tuple[Record, Label]] = []
        waiting = labels
        for _ in range(CONFLICTS_MAX):
            waiting, orphans = self._join(waiting, tally, joined)
            homeless += orphans
            if not waiting:
                return homeless
        raise StateUnavailable(f"{CONFLICTS_MAX} conflicting joins in a row for label {waiting[0][1].transaction_id}")

    def _join(
        self, labels: list[tuple[Record, Label]], tally: Counter[str], joined: list[tuple[Decision, Label]]
    ) -> tuple[list[tuple[Record, Label]], list[tuple[Record, Label]]]:
        """One attempt for all; what conflicted (to try again) and what found no room."""
        if not labels:
            return [], []
        decisions = self._store.gather_decisions([label.transaction_id for _, label in labels])
        keys: dict[str, dict[str, None]] = {e.name: {} for e in self._features.entities if e.counts_frauds}
        for (_, label), decision in zip(labels, decisions, strict=True):
            if decision is not None and label.is_fraud:
                for entity, key in fraud_keys(self._features, decision):
                    keys[entity.name][key] = None
        rows = self._store.rows({name: list(wanted) for name, wanted in keys.items()})
        by_key = {name: dict(zip(wanted, rows[name], strict=True)) for name, wanted in keys.items()}
        commits, orphans = join_labels(self._features, [label for _, label in labels], decisions, by_key)
        found = [pair for pair, decision in zip(labels, decisions, strict=True) if decision is not None]
        missing = [pair for pair, decision in zip(labels, decisions, strict=True) if decision is None]
        statuses = self._store.commit_labels(commits, orphans)
        joined += [(c.decision, c.label) for c, s in zip(commits, statuses, strict=False) if s is LabelStatus.JOINED]
        again, homeless = [], []
        for pair, status in zip([*found, *missing], statuses, strict=True):
            if status is LabelStatus.CONFLICT:
                again.append(pair)
                continue
            tally[status.value] += 1
            if status is LabelStatus.ORPHAN:
                homeless.append(pair)
        return again, homeless


def _in_rounds(labels: list[tuple[Record, Label]]) -> list[list[tuple[Record, Label]]]:
    """The labels in order, cut so that no transaction has two verdicts in a round.

    In one call the second would be joined when the first meets a conflict, and the first verdict is the one that counts.
    """
    rounds: list[list[tuple[Record, Label]]] = []
    told: dict[str, tuple[int, bool]] = {}
    for pair in labels:
        label = pair[1]
        number, verdict = told.get(label.transaction_id, (0, label.is_fraud))
        number += verdict != label.is_fraud
        told[label.transaction_id] = number, label.is_fraud
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(pair)
    return rounds

"""Labels meet the decisions they are about. Exactly once: the store remembers which decision has its verdict.

In the order of their partition: the first verdict on a transaction is the one that counts, and how far a partition was
settled is one offset.

A label that is joined leaves a note in the store, in the same atomic step, that its example is to be published. Who joined
it publishes the example and settles the note; what a crash left behind, and what a scorer joined (an early label, within
its own commit), is published by `publish_due`. So an example is published at least once, whoever dies when.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fraudstream.codec import Limits, decode_label
from fraudstream.core.engine import fraud_keys, label_updates
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import NO_OFFSET, DecisionIndex, LabelStatus, LabelStep, Publisher, StateStore
from fraudstream.core.updates import SharedUpdate
from fraudstream.errors import StateUnavailable
from fraudstream.events import Decision, Label, Reason, Record, Rejected
from fraudstream.services.publishing import of_examples, of_rejected
from fraudstream.topics import Topics

# Examples in one go: some 100 kB to Kafka, and one call to Redis.
EXAMPLES_PER_CALL = 500
# As in scoring: a conflict is a matter of milliseconds, ten in a row are a fault.
CONFLICTS_MAX = 10
_JOINED = (LabelStatus.JOINED, LabelStatus.LATE)
_ORPHAN = Rejected(Reason.LABEL_ORPHAN, "no decision is known for it and too many labels wait already")


@dataclass(frozen=True)
class Labelled:
    """What a batch came to. `resume_at` is set if the store lost data: read again from there, do not acknowledge."""

    tally: Counter[str] = field(default_factory=Counter)
    resume_at: int | None = None


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
        late: DecisionIndex | None = None,
    ) -> None:
        self._features = features
        self._store = store
        self._publisher = publisher
        self._clock_ms = clock_ms
        self._topics = topics or Topics()
        self._limits = limits or Limits()
        self._late = late
        self._claimed: Sequence[Label] = []
        self._settled: dict[int, int] = {}  # by partition: the last offset that the store said it had settled

    def take(self, partition: int) -> int:
        """Begin with a partition; the offset up to which it was settled. Raises `StateUnavailable`."""
        self._settled[partition] = self._store.labels_settled(partition)
        return self._settled[partition]

    def settled(self, partition: int) -> int:
        """The last offset of a partition that is known to be settled; `NO_OFFSET` if none is."""
        return self._settled.get(partition, NO_OFFSET)

    def process(self, records: Sequence[Record]) -> Labelled:
        """Join, park or refuse every record of a batch of one partition; how many ended in which way.

        Raises `StateUnavailable` or `BrokerUnavailable`; calling again with the same batch is then safe.
        """
        partition = records[0].partition
        if partition not in self._settled:
            self.take(partition)
        waiting = [(record, decode_label(record, self._limits)) for record in records]
        tally: Counter[str] = Counter()
        letters: list[tuple[Record, Rejected]] = []
        joined: list[tuple[Decision, Label]] = []
        conflicts = 0
        while waiting:
            steps = self._steps(waiting)
            # What this worker has settled before these: read again from further back, that is less.
            after = min(self._settled[partition], steps[0].offset - 1)
            statuses = self._store.settle_labels(partition, steps, after=after)
            if statuses is None:
                return Labelled(tally, resume_at=self._store.labels_settled(partition) + 1)
            conflicts = 0 if statuses else conflicts + 1
            if conflicts == CONFLICTS_MAX:
                raise StateUnavailable(
                    f"{CONFLICTS_MAX} conflicts in a row for the label at offset {waiting[0][0].offset}"
                )
            tally.update(status.value for status in statuses)
            for (record, _), step, status in zip(waiting, steps, statuses, strict=False):
                if isinstance(step.label, Rejected):
                    letters.append((record, step.label))
                elif status is LabelStatus.ORPHAN:
                    letters.append((record, _ORPHAN))
                elif status in _JOINED and step.decision is not None:
                    joined.append((step.decision, step.label))
                self._settled[partition] = step.offset
            waiting = waiting[len(statuses) :]
        if letters:
            self._publisher.publish(of_rejected(self._topics.labels_dead_letter, letters, self._clock_ms()))
        self._publish(joined)
        return Labelled(tally)

    def publish_due(self) -> int:
        """Publish the examples that are due, of early labels and of workers that are gone; how many there were.

        Raises `StateUnavailable` or `BrokerUnavailable`; calling again is then safe.
        """
        done = 0
        while labels := self._claimed or self._store.claim_examples(EXAMPLES_PER_CALL):
            self._claimed = labels  # until they are published: a claim is this worker's for a while
            names = [label.transaction_id for label in labels]
            stored = self._store.gather_decisions(names)
            late = self._late_decisions([name for name, found in zip(names, stored, strict=True) if found is None])
            decisions = [found or late.get(name) for name, found in zip(names, stored, strict=True)]
            # Without a decision there is nothing to learn from: it left with the retention while its label waited.
            self._publish([(d, label) for d, label in zip(decisions, labels, strict=True) if d is not None])
            self._store.settle_examples([label for d, label in zip(decisions, labels, strict=True) if d is None])
            self._claimed = []
            done += len(labels)
        return done

    def _publish(self, joined: Sequence[tuple[Decision, Label]]) -> None:
        if joined:
            self._publisher.publish(of_examples(joined, self._topics))
            self._store.settle_examples([label for _, label in joined])

    def _steps(self, waiting: Sequence[tuple[Record, Label | Rejected]]) -> list[LabelStep]:
        """What is to be done with each record, as the state is now."""
        labels = [label for _, label in waiting if isinstance(label, Label)]
        names = [label.transaction_id for label in labels]
        stored = self._store.gather_decisions(names)
        late = self._late_decisions([name for name, found in zip(names, stored, strict=True) if found is None])
        updates = self._updates(labels, stored)
        found = iter(zip(stored, updates, strict=True))
        steps = []
        for record, label in waiting:
            if isinstance(label, Rejected):
                steps.append(LabelStep(record.offset, label))
                continue
            decision, shared = next(found)
            if decision is None and (dropped := late.get(label.transaction_id)) is not None:
                steps.append(LabelStep(record.offset, label, dropped, late=True))
            else:
                steps.append(LabelStep(record.offset, label, decision, shared))
        return steps

    def _late_decisions(self, names: Sequence[str]) -> dict[str, Decision]:
        """Those of the decisions that the store does not have and the index does."""
        if self._late is None or not names:
            return {}
        found = zip(names, self._late.find(names), strict=True)
        return {name: decision for name, decision in found if decision is not None}

    def _updates(
        self, labels: Sequence[Label], decisions: Sequence[Decision | None]
    ) -> list[list[tuple[str, SharedUpdate]]]:
        """The fraud counts that each label adds to its terminal (and other entities with fraud windows)."""
        keys: dict[str, dict[str, None]] = {e.name: {} for e in self._features.entities if e.counts_frauds}
        for label, decision in zip(labels, decisions, strict=True):
            if decision is not None and label.is_fraud:
                for entity, key in fraud_keys(self._features, decision):
                    keys[entity.name][key] = None
        rows = self._store.rows({name: list(wanted) for name, wanted in keys.items()})
        by_key = {name: dict(zip(wanted, rows[name], strict=True)) for name, wanted in keys.items()}
        verdicts = [(label.is_fraud, decision) for label, decision in zip(labels, decisions, strict=True)]
        return label_updates(self._features, verdicts, by_key)

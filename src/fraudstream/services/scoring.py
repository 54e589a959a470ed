"""A micro-batch, from records to acknowledged answers. The order of steps, and why, stands here once.

1. decode       what is no transaction becomes a dead letter
2. gather       one round trip: rows, stored decisions, early labels
3. decide       pure
4. commit       state, decisions, counters and watermark in one atomic step: from here on the answer is final
5. publish      dead letters, alerts, decisions; wait for the acknowledgements
6. (the caller) acknowledge the records, so that Kafka's offset moves last

A crash before 4 changed nothing; a crash after it redelivers records whose stored answers are published again. Published
first, an alert could be contradicted by the decision that is stored after a crash; acknowledged first, it could be lost.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain

from fraudstream.codec import Limits, decode_transaction
from fraudstream.core.engine import Arrival, Outcome, ask, decide
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import NO_OFFSET, Advance, Commit, CommitStatus, Lease, Model, Publisher, StateStore
from fraudstream.errors import BrokerUnavailable, ModelError, StateUnavailable
from fraudstream.events import Record, Rejected
from fraudstream.services.publishing import of_decisions, of_rejected
from fraudstream.topics import Topics

# Looking up whether a transaction was decided before costs Redis a sixth of its work, and nearly none was: records past
# the watermark are taken for new, and the commit refuses what is not. The price is a second gather for a batch with a
# producer's retry in it, so after one everything is looked up, until so many batches in a row had none.
LOOK_UP_BATCHES = 100
# A conflict needs another worker to move the same key's windows within the milliseconds between gather and commit. That
# happens at most once a hop and key, so ten in a row mean that something else is wrong.
CONFLICTS_MAX = 10
# Several partitions together have a second try, in which everything is looked up: then each is taken by itself.
TRIES_TOGETHER = 2


class Ending(Enum):
    """How a batch ended, for the caller to act on."""

    DONE = "done"  # acknowledge
    FENCED = "fenced"  # the partition belongs to another worker: drop the batch, do not acknowledge
    REWOUND = "rewound"  # the store lost data: read again from `resume_at`, do not acknowledge


@dataclass(frozen=True)
class Processed:
    """What a batch of these partitions came to; of more than one only where it is DONE.

    `resume_at` is the next input offset the store needs, set for REWOUND.
    """

    ending: Ending
    partitions: tuple[int, ...]
    decided: int = 0
    alerts: int = 0
    duplicates: int = 0
    repeated: int = 0
    rejected: int = 0
    resume_at: int | None = None


class Scorer:
    """Scores the partitions it holds a lease for. Not thread-safe: one batch at a time.

    Raises `ModelError` at once if the model was trained on another feature list.
    """

    def __init__(
        self,
        features: FeatureSet,
        model: Model,
        store: StateStore,
        publisher: Publisher,
        *,
        clock_ms: Callable[[], int],
        topics: Topics | None = None,
        limits: Limits | None = None,
        publish_decisions: bool = True,
    ) -> None:
        if model.features_digest != features.digest:
            raise ModelError(
                f"model {model.name} {model.version} was trained on feature list {model.features_digest[:12]}, "
                f"not on {features.digest[:12]}: train it again or use its own list"
            )
        self.features = features
        self.model = model
        self._store = store
        self._publisher = publisher
        self._clock_ms = clock_ms
        self._topics = topics or Topics()
        self._limits = limits or Limits()
        self._publish_decisions = publish_decisions
        self._leases: dict[int, Lease] = {}
        # Where a commit's answer was lost: it may be applied already, or any moment now, with what was decided then.
        self._unanswered: set[int] = set()
        self._look_up_batches = 0

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions whose lease it holds."""
        return frozenset(self._leases)

    def watermark(self, partition: int) -> int:
        """The last offset of a partition that is known to be decided; `NO_OFFSET` if none is."""
        lease = self._leases.get(partition)
        return lease.watermark if lease else NO_OFFSET

    def take(self, partition: int) -> Lease:
        """Take the lease of a partition, as on assignment. Raises `StateUnavailable`."""
        self._leases[partition] = self._store.take_lease(partition)
        return self._leases[partition]

    def retake(self, partition: int, first_offset: int) -> int:
        """Take the lease anew for a batch that begins at `first_offset`; the offset to read on from.

        Where the store is, but never past the batch: the store may be ahead by a commit whose answer was lost and whose
        decisions were never published. Read again, they are repeated. Raises `StateUnavailable`.
        """
        return min(first_offset, self.take(partition).watermark + 1)

    def release(self, partition: int) -> None:
        """Forget a partition that was revoked."""
        self._leases.pop(partition, None)
        self._unanswered.discard(partition)

    def process_all(self, batches: Mapping[int, Sequence[Record]]) -> list[Processed]:
        """Take the batches of several partitions, as `process` takes one: together, where nothing stands in the way.

        What comes in together costs two round trips together. Anything but a plain commit has an answer for each
        partition, so then each is taken by itself. Where one that is not DONE is among the answers, others may be missing.
        """
        plain = all(partition in self._leases and partition not in self._unanswered for partition in batches)
        if plain and len(batches) > 1:
            batch = self._read(batches)
            outcome, status = self._settle(batch, TRIES_TOGETHER)
            if status is CommitStatus.APPLIED:
                return [self._publish(outcome, batch)]
        ended: list[Processed] = []
        for partition, records in batches.items():
            try:
                ended.append(self.process(partition, records))
            except (StateUnavailable, BrokerUnavailable):
                # A lease that was taken anew is told at once: a second try would go on from it, past what was lost. What
                # has no answer comes again with it.
                if all(done.ending is Ending.DONE for done in ended):
                    raise
                break
        return ended

    def process(self, partition: int, records: Sequence[Record]) -> Processed:
        """Take a non-empty batch of one partition, in offset order, through all steps.

        Raises `StateUnavailable` or `BrokerUnavailable`; calling again with the same batch is then safe and right.
        """
        if partition not in self._leases:  # revoked or fenced; taking it here would fence the worker that owns it now
            return Processed(Ending.FENCED, (partition,))
        batch = self._read({partition: records})
        outcome, status = self._settle(batch, CONFLICTS_MAX)
        if status is CommitStatus.CONFLICT:
            raise StateUnavailable(f"{CONFLICTS_MAX} conflicting commits in a row for partition {partition}")
        if status is CommitStatus.FENCED:
            self.release(partition)
            return Processed(Ending.FENCED, (partition,))
        if status is CommitStatus.REWOUND:
            return Processed(Ending.REWOUND, (partition,), resume_at=self.retake(partition, records[0].offset))
        if partition in self._unanswered:
            # Perhaps an earlier try was the one applied: publish what is stored, not what was decided this time.
            outcome = self._decide(batch, look_up=True)
            self._unanswered.discard(partition)
        return self._publish(outcome, batch)

    def _read(self, batches: Mapping[int, Sequence[Record]]) -> "_Batch":
        arrivals, rejected = decode(chain.from_iterable(batches.values()), self._limits)
        return _Batch({partition: records[-1].offset for partition, records in batches.items()}, arrivals, rejected)

    def _settle(self, batch: "_Batch", tries: int) -> tuple[Outcome, CommitStatus]:
        """Decide and commit, up to `tries` times while the state moves in between; the last try and how it ended."""
        look_up = self._look_up_batches > 0 or not self._unanswered.isdisjoint(batch.lasts)
        while True:
            outcome = self._decide(batch, look_up=look_up)
            # Also for a batch that is applied already: only the store can say that it has not lost it since.
            status = self._commit(outcome.commit)
            tries -= 1
            if status is not CommitStatus.CONFLICT or not tries:
                break
            look_up = True
        if status is CommitStatus.APPLIED:
            for partition, last in batch.lasts.items():
                lease = self._leases[partition]
                self._leases[partition] = replace(lease, watermark=max(last, lease.watermark))
        return outcome, status

    def _commit(self, commit: Commit) -> CommitStatus:
        try:
            return self._store.commit(commit)
        except StateUnavailable:
            self._unanswered.update(advance.lease.partition for advance in commit.advances)
            raise

    def _decide(self, batch: "_Batch", *, look_up: bool) -> Outcome:
        advances = [Advance(self._leases[partition], last) for partition, last in batch.lasts.items()]
        known = {advance.lease.partition: advance.lease.watermark for advance in advances}
        rejects: Counter[str] = Counter()
        refused: dict[int, list[int]] = {}
        for record, why in batch.rejected:
            if record.offset > known[record.partition]:
                rejects[f"rejected.{why.reason}"] += 1
                refused.setdefault(record.partition, []).append(record.offset)
        question = ask(
            self.features,
            batch.arrivals,
            new_above=None if look_up else known,
            monitor=self.model.monitor,
            rejected=refused,
        )
        gathered = self._store.gather(question.keys, question.sightings)
        return decide(
            self.features, self.model, question, gathered, advances=advances, now_ms=self._clock_ms(), counts=rejects
        )

    def _publish(self, outcome: Outcome, batch: "_Batch") -> Processed:
        self._look_up_batches = LOOK_UP_BATCHES if outcome.duplicates else max(0, self._look_up_batches - 1)
        answers = [*outcome.repeated, *outcome.decided]
        messages = of_rejected(self._topics.transactions_dead_letter, batch.rejected, self._clock_ms())
        messages += of_decisions(answers, self._topics, with_decisions=self._publish_decisions)
        if messages:
            self._publisher.publish(messages)
        return Processed(
            Ending.DONE,
            tuple(batch.lasts),
            decided=len(outcome.decided),
            alerts=sum(d.action != "allow" for d in outcome.decided),
            duplicates=outcome.duplicates,
            repeated=len(outcome.repeated),
            rejected=len(batch.rejected),
        )


@dataclass(frozen=True)
class _Batch:
    """Records read: the offset of the last one of each partition, the transactions, and what is none."""

    lasts: Mapping[int, int]
    arrivals: list[Arrival]
    rejected: list[tuple[Record, Rejected]]


def decode(records: Iterable[Record], limits: Limits) -> tuple[list[Arrival], list[tuple[Record, Rejected]]]:
    """The transactions among the records, and the other records with what is wrong with them."""
    arrivals: list[Arrival] = []
    rejected: list[tuple[Record, Rejected]] = []
    for record in records:
        decoded = decode_transaction(record, limits)
        if isinstance(decoded, Rejected):
            rejected.append((record, decoded))
        else:
            arrivals.append(Arrival(record.offset, decoded, record.partition))
    return arrivals, rejected

"""The learner at work: batches of examples, each learned exactly once, whatever dies when.

1. decode       what is no example is counted and left
2. recognise    examples behind the state's offset, and those of a transaction that was learned from before
3. learn        one by one in the topic's order: test, then train
4. commit       the whole state, the offset and the marks in one atomic step
5. publish      what the guard has to tell; then the caller acknowledges

The state in memory is worth something only as long as every commit was applied: after a failure it is dropped and read
back, so that a batch whose answer was lost is neither learned twice nor skipped.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fraudstream.codec import UnreadableExample, decode_example, encode_model_event
from fraudstream.core.ports import (
    CommitStatus,
    LearnerCommit,
    LearnerLease,
    LearnerStore,
    Outgoing,
    Publisher,
    Sighting,
)
from fraudstream.errors import StateUnavailable
from fraudstream.events import Example, ModelEvent, ModelEventKind, Record
from fraudstream.models.learner import LearnerSettings, OnlineLearner, OtherSnapshot, Subject
from fraudstream.models.online import UnreadableSnapshot
from fraudstream.services.judging import Judge
from fraudstream.services.scoring import Ending
from fraudstream.topics import Topics

log = logging.getLogger("fraudstream.learner")


@dataclass(frozen=True)
class Learned:
    """What a batch came to; `tally` counts its examples by what became of them. `resume_at` is set for REWOUND."""

    ending: Ending
    tally: Counter[str] = field(default_factory=Counter)
    resume_at: int | None = None


class Learner:
    """The one that learns. Not thread-safe: one batch at a time."""

    def __init__(
        self,
        subject: Subject,
        settings: LearnerSettings,
        store: LearnerStore,
        publisher: Publisher,
        *,
        clock_ms: Callable[[], int],
        topics: Topics | None = None,
        judge: Judge | None = None,
    ) -> None:
        self._judge = judge or Judge()
        self._subject = subject
        self._settings = settings
        self._store = store
        self._publisher = publisher
        self._clock_ms = clock_ms
        self._topics = topics or Topics()
        self._lease: LearnerLease | None = None
        self._learner = OnlineLearner(subject, settings)

    @property
    def learner(self) -> OnlineLearner:
        """What has been learned."""
        return self._learner

    def take(self) -> int:
        """Take the lease and read the state back; the offset to read from. Raises `StateUnavailable`.

        A state that cannot be read is rebuilt from the topic's beginning, and that is said loudly.
        """
        self._lease = None
        lease = self._store.take()
        learner = OnlineLearner(self._subject, self._settings)
        unpublished: list[ModelEvent] = []
        if lease.parts:
            try:
                learner.load(lease.parts)
                unpublished = list(learner.events)
            except UnreadableSnapshot as error:
                log.error("%s: it is rebuilt from the beginning of %s", error, self._topics.examples)  # noqa: TRY400 - one line says it
                if not isinstance(error, OtherSnapshot):
                    unpublished = [self._unreadable(error, lease)]
                learner = OnlineLearner(self._subject, self._settings)
                lease = self._anew(lease, 0)
        self._publish(unpublished)
        self._judge.load(lease.parts)
        self._lease, self._learner = lease, learner
        return lease.watermark + 1

    def begin_anew(self, first: int) -> None:
        """Forget what was learned and counted and go on at `first`: the topic is another one. Raises `StateUnavailable`."""
        if self._lease is None:
            self.take()
        assert self._lease is not None
        self._lease = self._anew(self._lease, first)
        self._learner = OnlineLearner(self._subject, self._settings)
        log.error(
            "%s is another topic than was learned from: what was learned and the figures of quality are dropped",
            self._topics.examples,
        )

    def release(self) -> None:
        """Forget the state: the partition was revoked."""
        self._lease = None

    def process(self, records: Sequence[Record]) -> Learned:
        """Learn from a non-empty batch, in offset order.

        Raises `StateUnavailable` or `BrokerUnavailable`; calling again with the same batch is then safe and right.
        """
        lease = self._lease
        if lease is None:
            resume_at = self.take()
            lease = self._lease
            assert lease is not None
            if resume_at < records[0].offset:  # what was learned in between is lost, or never was
                return Learned(Ending.REWOUND, resume_at=resume_at)
        fresh = [record for record in records if record.offset > lease.watermark]
        if not fresh:
            self._publish(self._learner.events)
            return Learned(Ending.DONE)
        self._lease = None  # until the commit is known to be applied
        learner, before = self._learner, Counter(self._learner.counts)
        learner.events = []
        seen = self._learn(lease, fresh)
        status = self._store.commit(LearnerCommit(lease, fresh[-1].offset, learner.dump() | self._judge.parts(), seen))
        if status is CommitStatus.FENCED:
            return Learned(Ending.FENCED)
        if status is not CommitStatus.APPLIED:
            return Learned(Ending.REWOUND, resume_at=self.take())
        self._lease = replace(lease, watermark=fresh[-1].offset, parts={})
        self._publish(learner.events)
        return Learned(Ending.DONE, learner.counts - before)

    def _anew(self, lease: LearnerLease, from_offset: int) -> LearnerLease:
        begun = self._store.begin_anew(lease, from_offset=from_offset)
        if begun is None:
            raise StateUnavailable("another learner began meanwhile")
        self._judge.load(begun.parts)
        return begun

    def _learn(self, lease: LearnerLease, records: Sequence[Record]) -> list[Sighting]:
        """Learn from each that is new; the transactions that were learned from."""
        examples: list[tuple[Record, Example]] = []
        for record in records:
            try:
                examples.append((record, decode_example(record.value or b"")))
            except UnreadableExample as error:
                self._learner.counts["unreadable"] += 1
                log.warning("%s[%d] %d: %s", record.topic, record.partition, record.offset, error)
        sightings = [Sighting(example.transaction_id, example.event_time_ms) for _, example in examples]
        known = self._store.seen(lease, sightings) if sightings else []
        seen: dict[str, Sighting] = {}
        new: list[Example] = []
        for (record, example), sighting, repeated in zip(examples, sightings, known, strict=True):
            if repeated or sighting.transaction_id in seen:
                self._learner.counts["repeated"] += 1
                continue
            seen[sighting.transaction_id] = sighting
            new.append(example)
            self._learner.take(example, record.timestamp, f"{record.partition}:{record.offset}")
        self._judge.judge(new)
        return list(seen.values())

    def _publish(self, events: Sequence[ModelEvent]) -> None:
        for event in events:
            log.warning("%s %s: %s", event.kind, event.state, event.message)
        if events:
            self._publisher.publish([Outgoing(self._topics.model_events, encode_model_event(e), None) for e in events])

    def _unreadable(self, error: UnreadableSnapshot, lease: LearnerLease) -> ModelEvent:
        return ModelEvent(
            event_id=f"snapshot_unreadable:{lease.epoch}:{lease.watermark}",
            kind=ModelEventKind.SNAPSHOT_UNREADABLE,
            state="happened",
            time_ms=self._clock_ms(),
            subject="online",
            message=f"{error}; it is rebuilt from the examples",
            model_name=self._subject.name,
            model_version=self._subject.version,
            values={"epoch": lease.epoch, "watermark": lease.watermark},
        )

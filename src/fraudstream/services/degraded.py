"""Answers while the state store is away, where a guess now is worth more than the answer later (`score-degraded`).

A guess is made as if nothing were known: empty rows, no earlier decision, no early label; only what lies in the same
micro-batch is seen. It is published marked `degraded`, its alert under an id of its own, and that is all: nothing is
stored, and the records are not acknowledged. When the store is back they are read again from the watermark and decided
with the whole state, so that the state, the stored decisions and the alerts end as they would have without an outage.
Dead letters and duplicates are left to that second reading.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from fraudstream.codec import Limits
from fraudstream.core.engine import Question, ask, decide
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import NO_OFFSET, Advance, Gathered, Lease, Model, Publisher
from fraudstream.events import Decision, Record
from fraudstream.services.publishing import of_decisions
from fraudstream.services.scoring import decode
from fraudstream.topics import Topics

# How far a worker may run ahead of the store. All of it is decided a second time when the store is back: at 10,000
# transactions/s that takes ten seconds, and it covers an outage of five minutes at 333/s.
RECORDS_AHEAD_MAX: Final = 100_000


class Guesser:
    """Publishes provisional answers. A publisher of its own: the scorer's may be in use by the attempt to go on."""

    def __init__(
        self,
        features: FeatureSet,
        model: Model,
        publisher: Publisher,
        *,
        clock_ms: Callable[[], int],
        topics: Topics | None = None,
        limits: Limits | None = None,
        publish_decisions: bool = True,
    ) -> None:
        self._features = features
        self._model = model
        self._publisher = publisher
        self._clock_ms = clock_ms
        self._topics = topics or Topics()
        self._limits = limits or Limits()
        self._publish_decisions = publish_decisions

    def answer(self, partition: int, records: Sequence[Record]) -> list[Decision]:
        """The provisional decisions of a batch, published. Raises `BrokerUnavailable`; the same again is safe then."""
        arrivals, _ = decode(records, self._limits)
        if not arrivals:
            return []
        question = ask(self._features, arrivals)  # without a monitor: what is decided twice is counted the second time
        outcome = decide(
            self._features,
            self._model,
            question,
            _nothing_known(question),
            advances=[Advance(Lease(partition, 0, NO_OFFSET), arrivals[-1].offset)],
            now_ms=self._clock_ms(),
            counts={},
        )
        guesses = [replace(decision, degraded=True) for decision in outcome.decided]
        messages = of_decisions(guesses, self._topics, with_decisions=self._publish_decisions)
        if messages:
            self._publisher.publish(messages)
        return guesses


@dataclass
class _Stretch:
    """Offsets of a partition: `first` has to be decided next (None: as Kafka says), below `end` all was answered."""

    first: int | None
    end: int = 0
    records: int = 0


class Ahead:
    """What a worker has let go of while the store is away, to be decided when it is back.

    >>> ahead = Ahead(records_max=2)
    >>> ahead.begin(); ahead.put(0, 10, 12); ahead.room
    False
    >>> ahead.unanswered(0, 10), ahead.unanswered(1, 7)
    (12, 7)
    >>> ahead.end()
    {0: 10}
    >>> ahead.active, ahead.room
    (False, True)
    """

    def __init__(self, records_max: int = RECORDS_AHEAD_MAX) -> None:
        self._records_max = records_max
        self._stretches: dict[int, _Stretch] = {}
        self.active = False

    @property
    def records(self) -> int:
        """How many were answered."""
        return sum(stretch.records for stretch in self._stretches.values())

    @property
    def partitions(self) -> list[int]:
        """The partitions whose lease has to be taken before anything is decided in them again."""
        return sorted(self._stretches)

    @property
    def room(self) -> bool:
        """May another batch be answered provisionally? Else it waits, and what comes behind it stays in Kafka."""
        return self.records < self._records_max

    def begin(self) -> None:
        self.active = True

    def end(self) -> dict[int, int | None]:
        """Back to work: where each partition has to be read again from."""
        resume = {partition: stretch.first for partition, stretch in self._stretches.items()}
        self._stretches.clear()
        self.active = False
        return resume

    def assigned(self, partition: int, committed: int | None) -> None:
        """A partition was assigned whose lease could not be taken; Kafka's offset of it is `committed`."""
        self._stretches[partition] = _Stretch(committed)

    def revoked(self, partition: int) -> None:
        """Another worker's now, or about to be."""
        self._stretches.pop(partition, None)

    def unanswered(self, partition: int, offset: int) -> int:
        """The first offset from `offset` on that has no provisional answer yet: a batch may be delivered again."""
        stretch = self._stretches.get(partition)
        return max(offset, stretch.end) if stretch else offset

    def put(self, partition: int, first: int, end: int) -> None:
        """The records of a partition from `first` up to `end` were answered."""
        stretch = self._stretches.setdefault(partition, _Stretch(first))
        if stretch.first is None:
            stretch.first = first
        stretch.records += max(0, end - max(first, stretch.end))
        stretch.end = max(end, stretch.end)


def _nothing_known(question: Question) -> Gathered:
    rows = {entity: [None] * len(keys) for entity, keys in question.keys.items()}
    nothing = [None] * len(question.sightings)
    return Gathered(rows, nothing, nothing, 0)

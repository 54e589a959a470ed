"""One worker over one log: pipe records in, read records out, crash in between."""

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from fraudstream.adapters.memory import MemoryPublisher, MemoryStore
from fraudstream.codec import read_dead_letter
from fraudstream.core.census import Monitor
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Model, Publisher, Scores, StateStore
from fraudstream.events import Contribution
from fraudstream.services.labelling import Labeller
from fraudstream.services.scoring import Ending, Processed, Scorer
from fraudstream.testing.faults import FlakyBroker, FlakyStore, Hook
from fraudstream.topics import TOPICS

EPOCH_MS: Final = 1_530_403_200_000  # 2018-07-01T00:00:00Z
MINUTE_MS: Final = 60_000


class FakeRecord(Struct):
    """A record as Kafka would deliver it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class AmountModel:
    """Scores by the amount alone: 0.99 from `limit` on, 0.01 below. For tests and examples."""

    name = "toy"
    version = "1"
    review_threshold = 0.5
    block_threshold = 0.995
    monitor: Monitor | None = None

    def __init__(self, features: FeatureSet, limit: float) -> None:
        self.features_digest = features.digest
        self._at = features.names.index("amount")
        self._limit = limit

    def score(self, matrix: npt.NDArray[np.float32]) -> Scores:
        return Scores.alone(np.where(matrix[:, self._at] >= self._limit, 0.99, 0.01))

    def reasons(self, matrix: npt.NDArray[np.float32]) -> list[tuple[Contribution, ...]]:
        return [(Contribution("AMOUNT", f"amount {row[self._at]:.2f}", 4.6),) for row in matrix]


def toy_model(features: FeatureSet | None = None, *, limit: float = 500.0) -> AmountModel:
    """A model that alerts from an amount on, over the default features."""
    return AmountModel(features or FeatureSet.default(), limit)


def card_transaction(
    *,
    transaction_id: str = "t1",
    card_id: str = "c1",
    terminal_id: str = "m1",
    amount: float = 20.0,
    minutes: float = 0.0,
    **extra: Any,
) -> dict[str, Any]:
    """A transaction as upstream sends it, `minutes` after 2018-07-01T00:00:00Z."""
    return {
        "transaction_id": transaction_id,
        "event_time": EPOCH_MS + int(minutes * MINUTE_MS),
        "card_id": card_id,
        "terminal_id": terminal_id,
        "amount": amount,
        **extra,
    }


class Driver:
    """One worker over one log. `at` plants faults between its steps (`fails`, `kills`, or a hook of your own).

    Examples
    --------
    >>> with Driver(model=toy_model()) as driver:
    ...     driver.pipe(card_transaction(amount=950.0))
    ...     [alert["action"] for alert in driver.alerts()]
    ['review']
    """

    def __init__(
        self,
        *,
        model: Model | None = None,
        features: FeatureSet | None = None,
        store: StateStore | None = None,
        at: Hook | None = None,
    ) -> None:
        self.features = features or FeatureSet.default()
        self.model = model or toy_model(self.features)
        self.store = store or MemoryStore(self.features)
        self.publisher = MemoryPublisher()
        self.now_ms = EPOCH_MS
        self.log: dict[int, list[FakeRecord]] = {}
        self.committed: dict[int, int] = {}
        self._labels = 0  # sent so far: the next one's offset
        self._reached: StateStore = FlakyStore(self.store, at) if at else self.store
        self._outlet: Publisher = FlakyBroker(self.publisher, at) if at else self.publisher
        self._scorer = self._start()
        self._labeller = Labeller(self.features, self._reached, self._outlet, clock_ms=lambda: self.now_ms)

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held that would have to be given back."""

    def pipe(self, *values: Mapping[str, Any] | bytes | None, key: str | None = None, partition: int = 0) -> None:
        """Append records to a partition and process them as one micro-batch."""
        self.append(*values, key=key, partition=partition)
        self.run(partition)

    def append(self, *values: Mapping[str, Any] | bytes | None, key: str | None = None, partition: int = 0) -> None:
        """Append records to a partition without processing them."""
        log = self.log.setdefault(partition, [])
        for value in values:
            payload = json.dumps(value).encode() if isinstance(value, Mapping) else value
            card = key or (value.get("card_id") if isinstance(value, Mapping) else "c1")
            log.append(
                FakeRecord(
                    TOPICS.transactions,
                    partition,
                    len(log),
                    self.now_ms,
                    None if card is None else card.encode(),
                    payload,
                )
            )

    def run(self, partition: int = 0, *, acknowledge: bool = True) -> Processed | None:
        """Process everything that is not acknowledged as one micro-batch; None if there is nothing.

        `acknowledge=False` is a crash just before the last step: the same records come again.
        """
        records = self._due(partition)
        if not records:
            return None
        done = self._scorer.process(partition, records)
        self._ended(done, acknowledge=acknowledge)
        return done

    def run_all(self) -> list[Processed]:
        """Process everything that is not acknowledged in all partitions as one micro-batch."""
        batches = {partition: records for partition in sorted(self.log) if (records := self._due(partition))}
        ended = self._scorer.process_all(batches) if batches else []
        for done in ended:
            self._ended(done)
        return ended

    def _due(self, partition: int) -> list[FakeRecord]:
        records = self.log.get(partition, [])[self.committed.get(partition, 0) :]
        if records and partition not in self._scorer.partitions:
            self._scorer.take(partition)
        return records

    def _ended(self, done: Processed, *, acknowledge: bool = True) -> None:
        for partition in done.partitions:
            if done.ending is Ending.REWOUND and done.resume_at is not None:
                self.committed[partition] = done.resume_at
            elif acknowledge and done.ending is Ending.DONE:
                self.committed[partition] = len(self.log[partition])

    def label(self, transaction_id: str, *, is_fraud: bool, minutes: float = 0.0, source: str = "chargeback") -> None:
        """Send one label."""
        self.label_all((transaction_id, is_fraud), minutes=minutes, source=source)

    def label_all(self, *verdicts: tuple[str, bool], minutes: float = 0.0, source: str = "chargeback") -> None:
        """Send labels, (transaction id, is it fraud?) each, as one micro-batch."""
        records = []
        for transaction_id, is_fraud in verdicts:
            value = {
                "transaction_id": transaction_id,
                "is_fraud": is_fraud,
                "label_time": EPOCH_MS + int(minutes * MINUTE_MS),
                "source": source,
            }
            key = transaction_id.encode()
            records.append(FakeRecord(TOPICS.labels, 0, self._labels, self.now_ms, key, json.dumps(value).encode()))
            self._labels += 1
        self._labeller.process(records)

    def crash(self) -> None:
        """Lose the worker and everything it held in memory; a new one takes the partitions at its next run."""
        self._scorer = self._start()

    def decisions(self) -> list[dict[str, Any]]:
        """What was published to `decisions`, in order."""
        return self._published(TOPICS.decisions)

    def alerts(self) -> list[dict[str, Any]]:
        """What was published to `alerts`, in order."""
        return self._published(TOPICS.alerts)

    def examples(self) -> list[dict[str, Any]]:
        """What was published to `examples`, in order; those that are due are published first."""
        self._labeller.publish_due()
        return self._published(TOPICS.examples)

    def dead_letters(self) -> list[str]:
        """The reasons of the dead letters, in order."""
        letters = [m.headers for m in self.publisher.messages if m.topic == TOPICS.transactions_dead_letter]
        return [letter.reason for letter in map(read_dead_letter, letters) if letter]

    def _start(self) -> Scorer:
        return Scorer(self.features, self.model, self._reached, self._outlet, clock_ms=lambda: self.now_ms)

    def _published(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(m.value or b"null") for m in self.publisher.messages if m.topic == topic]

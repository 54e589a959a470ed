"""A virtual broker and virtual workers: the transport's rules about batches, seeks and commits, without its sockets.

The worker mirrors `adapters/kafka_consumer.py` and `app.py` step by step, with their own parts where they are free of
a client: `OffsetRun`, `Backlog`, `start_offset`, `Scorer`, `Labeller`.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random

import numpy as np
import numpy.typing as npt
from faust.types import TP

from fraudstream.adapters.kafka_batches import Backlog, OffsetRun
from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.core.census import Monitor
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Lease, Model, Scores, StateStore
from fraudstream.errors import BrokerUnavailable, StateUnavailable
from fraudstream.events import Contribution
from fraudstream.roles import by_partition, start_offset
from fraudstream.services.degraded import Ahead, Guesser
from fraudstream.services.labelling import Labeller
from fraudstream.services.scoring import Ending, Scorer
from fraudstream.testing.driver import FakeRecord
from fraudstream.testing.faults import FlakyBroker, FlakyStore, Hook, WorkerKilled
from fraudstream.testing.simulation.logs import ALERT_FROM
from fraudstream.topics import TOPICS

BATCHES_OPEN_MAX = 3
Batch = list[FakeRecord]


class AgeingModel:
    """Alerts from an amount on, and is another version in every worker: what was answered must not change with it."""

    name = "ageing"
    review_threshold = 0.5
    block_threshold = 0.995

    def __init__(self, features: FeatureSet, version: int) -> None:
        self.version = str(version)
        self.features_digest = features.digest
        self.monitor = Monitor({name: [1.0, 500.0] for name in features.names}, [0.5], features.extra_counts)
        self._at = features.names.index("amount")

    def score(self, matrix: npt.NDArray[np.float32]) -> Scores:
        return Scores.alone(np.where(matrix[:, self._at] >= ALERT_FROM, 0.99, 0.01))

    def reasons(self, matrix: npt.NDArray[np.float32]) -> list[tuple[Contribution, ...]]:
        return [(Contribution("AMOUNT", f"amount {row[self._at]:.2f}", 4.6),) for row in matrix]


class VirtualBroker(MemoryPublisher):
    """Logs, the group's commits and assignment, and everything that was published."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[TP, list[FakeRecord]] = {}
        self.committed: dict[TP, int] = {}
        self.generation = 0

    def append(self, records: Mapping[TP, Sequence[FakeRecord]]) -> None:
        for tp, more in records.items():
            self.logs.setdefault(tp, []).extend(more)

    def commit(self, generation: int, tp: TP, offset: int) -> bool:
        """Commit an offset; refused, as Kafka does, from a member of an earlier generation."""
        if generation != self.generation:
            return False
        self.committed[tp] = offset
        return True

    def drained(self) -> bool:
        return all(self.committed.get(tp, 0) == len(log) for tp, log in self.logs.items())


class VirtualWorker:
    """One worker process. `at` is told every step of its calls."""

    scorer_type = Scorer

    def __init__(
        self,
        number: int,
        broker: VirtualBroker,
        store: StateStore,
        *,
        features: FeatureSet,
        model: Model,
        rng: Random,
        at: Hook,
        clock_ms: Callable[[], int],
        runs_ahead: bool = False,
    ) -> None:
        self.name = f"worker{number}"
        self.alive = True
        self.busy = False
        self.generation = -1
        self.broker = broker
        self._rng = rng
        reached = FlakyStore(self.reach(store), at)
        publisher = FlakyBroker(broker, at)
        self.scorer = self.scorer_type(features, model, reached, publisher, clock_ms=clock_ms)
        self.guesser = Guesser(features, model, publisher, clock_ms=clock_ms)
        self.ahead = Ahead(records_max=12)
        self._runs_ahead = runs_ahead
        self.labeller = Labeller(features, reached, publisher, clock_ms=clock_ms)
        self.assigned: list[TP] = []
        self.runs: dict[TP, OffsetRun] = {}
        self._prepared = False
        self._positions: dict[TP, int] = {}
        self._backlog = Backlog()
        self.queue: list[Batch] = []
        self._fenced: set[int] = set()  # partitions of the oldest batch whose lease was lost
        self.said = ""

    def reach(self, store: StateStore) -> StateStore:
        """The worker's own client of the store."""
        return store

    @property
    def is_member(self) -> bool:
        return self.alive and self.generation == self.broker.generation

    # -- the group

    def leave(self) -> None:
        """Partitions revoked: commit what is finished, then hold nothing."""
        self.commit()
        for partition in self.scorer.partitions:
            self.scorer.release(partition)
        for tp in self.assigned:
            self.ahead.revoked(tp.partition)
        self.assigned, self.runs, self._positions = [], {}, {}
        self._forget()

    def join(self, assigned: list[TP]) -> None:
        """Partitions assigned: leases and positions follow in the next turn."""
        self.leave()
        self.generation = self.broker.generation
        self.assigned, self._prepared = assigned, False

    def _prepare(self) -> None:
        runs: dict[TP, OffsetRun] = {}
        for tp in self.assigned:
            committed = start = self.broker.committed.get(tp)
            if tp.topic == TOPICS.transactions:
                lease = self._take(tp.partition)
                if lease is None:
                    self.ahead.assigned(tp.partition, committed)
                else:
                    wanted = self.start(tp, committed, lease.watermark)
                    start = committed if wanted is None else wanted
            else:
                wanted = self.start(tp, committed, self.labeller.take(tp.partition))
                start = committed if wanted is None else wanted
            if start is not None:
                runs[tp] = OffsetRun(start, committed)
        self.runs = runs
        self._reposition()
        self._prepared = True

    def _take(self, partition: int) -> Lease | None:
        """The lease; None if the store is away and this worker does not wait for it."""
        if self.ahead.active:
            return None
        try:
            return self.scorer.take(partition)
        except StateUnavailable:
            if not self._runs_ahead:
                raise
            self.ahead.begin()
            return None

    def start(self, tp: TP, committed: int | None, watermark: int) -> int | None:
        return start_offset(tp, committed, watermark, "replay")

    # -- batches

    def turn(self, *, eager: bool = False) -> None:
        """Fetch some, hand out some, work on the oldest batch, commit: how much of each, the seed says."""
        self.busy, self.said = True, "idle"
        try:
            if not self._prepared:
                self._prepare()
            if self.ahead.active and (eager or self._rng.random() < 0.3):
                self._recover()
            self._fetch(eager=eager)
            if self.queue:
                self._work()
            if eager or self._rng.random() < 0.5:
                self.commit()
        except StateUnavailable:
            self.said = "leases: store away"
        except WorkerKilled:
            self.alive = False
            self.said += ", killed"
        finally:
            self.busy = False

    def _fetch(self, *, eager: bool) -> None:
        rng = self._rng
        for tp in self.assigned:
            position = self._positions.get(tp, 0)
            some = len(self.broker.logs[tp]) if eager else rng.choice((0, 2, 5, 5, 9))
            records = self.broker.logs[tp][position : position + some]
            if records and self._backlog.size(tp) < 8:
                if tp not in self.runs:
                    self.runs[tp] = OffsetRun(records[0].offset)
                self._positions[tp] = records[-1].offset + 1
                self._backlog.add(tp, records)
        for topic in (TOPICS.transactions, TOPICS.labels):
            active = [tp for tp in self.assigned if tp.topic == topic]
            while len(self.queue) < BATCHES_OPEN_MAX and self.ahead.room:
                batch = self._backlog.take(active, 64 if eager else rng.choice((1, 3, 6, 12)))
                if not batch:
                    break
                for tp, records in by_partition(batch).items():
                    self.runs[tp].deliver(records[-1].offset)
                self.queue.append(batch)

    def _work(self) -> None:
        batch = self.queue[0]
        parts = by_partition(batch)
        spans = ", ".join(f"{tp.partition}: {of[0].offset}..{of[-1].offset}" for tp, of in parts.items())
        self.said = f"{batch[0].topic}[{spans}]"
        try:
            if batch[0].topic == TOPICS.labels:
                self._label(batch)
                return
            if self.ahead.active:
                self._guess(batch)
                return
            fenced = [tp for tp in parts if tp.partition in self._fenced]
            if fenced:  # and nothing was heard of a new owner
                self.rewound({tp: self.scorer.retake(tp.partition, parts[tp][0].offset) for tp in fenced})
                return
            ended = self.scorer.process_all({tp.partition: records for tp, records in parts.items()})
        except (StateUnavailable, BrokerUnavailable) as error:
            self.said += f" waits: {error}"
            if self._runs_ahead and isinstance(error, StateUnavailable) and batch[0].topic == TOPICS.transactions:
                self.ahead.begin()
                for tp, records in parts.items():
                    self.ahead.put(tp.partition, records[0].offset, records[0].offset)
                return
            # Mostly tried again; or no longer wanted, as after another partition's batch was given back.
            if self._rng.random() < 0.3:
                self._reposition()
            return
        for done in ended:
            self.said += f" {done.partitions} {done.ending.value} {done.decided}+{done.repeated}+{done.duplicates}"
        topic = TOPICS.transactions
        rewound = {TP(topic, done.partitions[0]): done.resume_at for done in ended if done.resume_at is not None}
        self._fenced = {done.partitions[0] for done in ended if done.ending is Ending.FENCED}
        if rewound:
            self.rewound(rewound)
        elif not self._fenced:
            self.acknowledge(batch)

    def _label(self, batch: Batch) -> None:
        for tp, records in by_partition(batch).items():
            resume_at = self.labeller.process(records).resume_at
            if resume_at is not None:
                self.said += " rewound"
                self.rewound({tp: resume_at})
                return
        self.labeller.publish_due()
        self.said += " labelled"
        self.acknowledge(batch)

    def _guess(self, batch: Batch) -> None:
        """Answer provisionally, and let go of the batch until the store is back."""
        for tp, records in by_partition(batch).items():
            first = records[0].offset
            since = max(self.ahead.unanswered(tp.partition, first), self.scorer.watermark(tp.partition) + 1)
            if some := [record for record in records if record.offset >= since]:
                self.guesser.answer(tp.partition, some)
            self.ahead.put(tp.partition, first, records[-1].offset + 1)
        if self.queue and self.queue[0] is batch:
            self.queue.pop(0)
            for tp, records in by_partition(batch).items():
                self.runs[tp].set_aside(records[-1].offset)
        self.said += " guessed"

    def _recover(self) -> None:
        """Is the store back? Then read again all that was answered provisionally."""
        taken = {partition: self.scorer.take(partition).watermark for partition in self.ahead.partitions}
        for partition, first in self.ahead.end().items():
            tp = TP(TOPICS.transactions, partition)
            if first is not None and tp in self.runs:
                where = self.start(tp, first, taken[partition])
                self.runs[tp] = OffsetRun(first if where is None else where, self.runs[tp].committed)
        self._reposition()

    def acknowledge(self, batch: Batch) -> None:
        if self.queue and self.queue[0] is batch:
            self.queue.pop(0)
            for tp, records in by_partition(batch).items():
                self.runs[tp].finish(records[-1].offset)

    def rewound(self, resume_at: Mapping[TP, int]) -> None:
        """The store lost data, or a lease: read these partitions again from where it is."""
        for tp, offset in resume_at.items():
            self.runs[tp] = OffsetRun(offset, self.runs[tp].committed)
        self._reposition()

    def _reposition(self) -> None:
        for run in self.runs.values():
            run.drop_open()
        self._forget()
        self._positions = {tp: run.resume_at for tp, run in self.runs.items()}

    def _forget(self) -> None:
        self._backlog.clear()
        self.queue.clear()
        self._fenced = set()

    def commit(self) -> None:
        for tp, run in self.runs.items():
            offset = run.committable
            if offset is not None and self.broker.commit(self.generation, tp, offset):
                run.mark_committed(offset)

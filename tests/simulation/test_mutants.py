"""Faults planted in the parts: the simulation must find each of them, or it proves nothing about their absence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from faust.types import TP

from fraudstream.core.ports import (
    NO_OFFSET,
    Commit,
    CommitStatus,
    Gathered,
    LabelStatus,
    LabelStep,
    Sighting,
    StateStore,
)
from fraudstream.core.updates import apply_update
from fraudstream.errors import FraudstreamError
from fraudstream.events import Decision
from fraudstream.roles import by_partition
from fraudstream.services.scoring import Scorer
from fraudstream.testing import FakeRecord, FlakyStore, ForgetfulStore
from fraudstream.testing.simulation import Parts, Simulation, VirtualWorker
from fraudstream.testing.simulation.logs import FEATURES

# The shyest of them shows in one of some 150 seeds.
SEEDS_MAX = 1000
LAYOUTS = {entity.name: entity.layout for entity in FEATURES.entities}


class NoFenceStore(ForgetfulStore):
    """Takes any worker for the owner."""

    def commit(self, commit: Commit) -> CommitStatus:
        advances = [
            replace(advance, lease=replace(advance.lease, fence=self._fences[advance.lease.partition]))
            for advance in commit.advances
        ]
        return super().commit(replace(commit, advances=advances))


class WatermarkAheadStore(ForgetfulStore):
    """Remembers one record more than was applied."""

    step = 1

    def commit(self, commit: Commit) -> CommitStatus:
        status = super().commit(commit)
        for advance in commit.advances:
            partition = advance.lease.partition
            if status is CommitStatus.APPLIED and self._watermarks[partition] == advance.watermark:
                self._watermarks[partition] += self.step
        return status


class FirstFenceStore(ForgetfulStore):
    """Checks the fence of a batch's first partition only."""

    def commit(self, commit: Commit) -> CommitStatus:
        first, *others = commit.advances
        fences = {advance.lease.partition: self._fences[advance.lease.partition] for advance in others}
        unchecked = [
            replace(advance, lease=replace(advance.lease, fence=fences[advance.lease.partition])) for advance in others
        ]
        return super().commit(replace(commit, advances=[first, *unchecked]))


class FirstWatermarkStore(ForgetfulStore):
    """Moves the watermark of a batch's first partition only."""

    def commit(self, commit: Commit) -> CommitStatus:
        before = dict(self._watermarks)
        status = super().commit(commit)
        for advance in commit.advances[1:]:
            self._watermarks[advance.lease.partition] = before.get(advance.lease.partition, NO_OFFSET)
        return status


class WatermarkBehindStore(WatermarkAheadStore):
    """Remembers one record less than was applied."""

    step = -1


class NoDedupeStore(ForgetfulStore):
    """Knows of no earlier decision, and takes a second one for a transaction."""

    def gather(self, keys: Mapping[str, Sequence[str]], sightings: Sequence[Sighting]) -> Gathered:
        return replace(super().gather(keys, sightings), decisions=[None] * len(sightings))


class LastWinsStore(ForgetfulStore):
    """Overwrites a decision that was stored between gather and commit."""

    _committing = False

    def commit(self, commit: Commit) -> CommitStatus:
        self._committing = True
        try:
            return super().commit(commit)
        finally:
            self._committing = False

    def _decided(self, decision: Decision) -> bool:
        return not self._committing and super()._decided(decision)


class WholeRowClient(FlakyStore):
    """Writes a terminal's row as it was gathered plus its own additions, over whatever others added meanwhile."""

    def __init__(self, store: StateStore) -> None:
        super().__init__(store, lambda moment: None)
        self._seen: dict[tuple[str, str], bytes | None] = {}

    def gather(self, keys: Mapping[str, Sequence[str]], sightings: Sequence[Sighting]) -> Gathered:
        gathered = super().gather(keys, sightings)
        for entity, names in keys.items():
            self._seen.update(((entity, name), row) for name, row in zip(names, gathered.rows[entity], strict=True))
        return gathered

    def commit(self, commit: Commit) -> CommitStatus:
        rows = list(commit.rows)
        for entity, update in commit.shared:
            for key in update.keys:
                row = apply_update(self._seen[entity, key], LAYOUTS[entity], update)
                assert row is not None
                rows.append((entity, key, row))
        return super().commit(replace(commit, rows=rows, shared=[]))


class BlindLabelStore(ForgetfulStore):
    """Settles labels whatever it has lost of those before them."""

    def settle_labels(self, partition: int, steps: Sequence[LabelStep], *, after: int) -> list[LabelStatus] | None:
        return super().settle_labels(partition, steps, after=NO_OFFSET)


class RecountingStore(ForgetfulStore):
    """Counts a label record each time it is delivered."""

    def settle_labels(self, partition: int, steps: Sequence[LabelStep], *, after: int) -> list[LabelStatus] | None:
        statuses = super().settle_labels(partition, steps, after=after)
        kept = self._labels_settled.get(partition, NO_OFFSET)
        if statuses and steps[len(statuses) - 1].offset < kept:
            self._counters[f"labels.{statuses[-1].value}"] += 1
        return statuses


class WholeRowWorker(VirtualWorker):
    """Read-modify-write of shared rows."""

    def reach(self, store: StateStore) -> StateStore:
        return WholeRowClient(store)


class HastyClient(FlakyStore):
    """Tells when a commit is through."""

    def __init__(self, store: StateStore, done: Callable[[], None]) -> None:
        super().__init__(store, lambda moment: None)
        self._done = done

    def commit(self, commit: Commit) -> CommitStatus:
        status = super().commit(commit)
        if status is CommitStatus.APPLIED:
            self._done()
        return status


class HastyWorker(VirtualWorker):
    """Acknowledges as soon as the store has the batch, before it is published."""

    def reach(self, store: StateStore) -> StateStore:
        return HastyClient(store, self._acknowledge_now)

    def _acknowledge_now(self) -> None:
        if self.queue:
            self.acknowledge(self.queue[0])


class NoSeekBackWorker(VirtualWorker):
    """Goes on from Kafka's offset, whatever the store has lost."""

    def start(self, tp: TP, committed: int | None, watermark: int) -> int | None:
        return committed

    def rewound(self, resume_at: Mapping[TP, int]) -> None:
        self._fenced = set()


class SeekTooFarWorker(VirtualWorker):
    """Seeks back to one past the record it should."""

    def start(self, tp: TP, committed: int | None, watermark: int) -> int | None:
        return super().start(tp, committed, watermark + 1)

    def rewound(self, resume_at: Mapping[TP, int]) -> None:
        super().rewound({tp: offset + 1 for tp, offset in resume_at.items()})


class GivingUpWorker(VirtualWorker):
    """Never takes a partition up again that it was fenced from, though it is its own still."""

    def _work(self) -> None:
        self._fenced = set()
        super()._work()


class ReadingOnScorer(Scorer):
    """Reads on from where the store is, past what was never published."""

    def retake(self, partition: int, first_offset: int) -> int:
        return self.take(partition).watermark + 1


class ReadingOnWorker(VirtualWorker):
    """See its scorer."""

    scorer_type = ReadingOnScorer


class GuessIsEnoughWorker(VirtualWorker):
    """Acknowledges what it has answered provisionally."""

    def _guess(self, batch: list[FakeRecord]) -> None:
        super()._guess(batch)
        for tp, records in by_partition(batch).items():
            self.runs[tp].finish(records[-1].offset)


class ForgetsGuessesWorker(VirtualWorker):
    """Goes on from where it is when the store is back, past what it has answered provisionally."""

    def _recover(self) -> None:
        for partition in self.ahead.partitions:
            self.scorer.take(partition)
        self.ahead.end()


MUTANTS = {
    "fence check removed": Parts(store=NoFenceStore),
    "fence of one partition checked": Parts(store=FirstFenceStore),
    "watermark of one partition kept": Parts(store=FirstWatermarkStore),
    "watermark one ahead": Parts(store=WatermarkAheadStore),
    "watermark one behind": Parts(store=WatermarkBehindStore),
    "seeks one too far": Parts(worker=SeekTooFarWorker),
    "ack before publish": Parts(worker=HastyWorker),
    "terminals read-modify-write": Parts(worker=WholeRowWorker),
    "labels lost unnoticed": Parts(store=BlindLabelStore),
    "labels counted again": Parts(store=RecountingStore),
    "seek-back removed": Parts(worker=NoSeekBackWorker),
    "dedupe removed": Parts(store=NoDedupeStore),
    "first decision wins removed": Parts(store=LastWinsStore),
    "reads on past the unpublished": Parts(worker=ReadingOnWorker),
    "gives up when fenced": Parts(worker=GivingUpWorker),
    "provisional answers acknowledged": Parts(worker=GuessIsEnoughWorker),
    "provisional answers not repaired": Parts(worker=ForgetsGuessesWorker),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_finds(name: str) -> None:
    """Some seed breaks a promise when this fault is planted."""
    for seed in range(SEEDS_MAX):
        try:
            Simulation(seed, MUTANTS[name]).run()
        except AssertionError:
            return
        except FraudstreamError as error:
            pytest.fail(f"seed {seed} died of {error!r} instead of being found out")
    pytest.fail(f"{SEEDS_MAX} seeds found nothing wrong")

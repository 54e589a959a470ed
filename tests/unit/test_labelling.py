"""The label role's service, step by step: late labels, an index that is not complete, a store that lost data."""

import json
from collections.abc import Sequence

import pytest
from tests.support.decisions import a_decision

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.adapters.redis_keys import EXAMPLE_CLAIM_MS
from fraudstream.codec import decode_example
from fraudstream.core.engine import example_of
from fraudstream.core.features import FeatureSet
from fraudstream.core.outcomes import label_outcomes
from fraudstream.errors import StillBuilding
from fraudstream.events import Decision, Label
from fraudstream.services.labelling import Labelled, Labeller
from fraudstream.testing import EPOCH_MS, FakeRecord, FlakyBroker, FlakyStore, ForgetfulStore, WorkerKilled, kills
from fraudstream.testing.faults import Hook
from fraudstream.topics import TOPICS

FEATURES = FeatureSet.default()
OLD = a_decision(transaction_id="old", event_time_ms=EPOCH_MS - 100 * 86_400_000)


class Shelf:
    """An index with one decision; incomplete until somebody says otherwise."""

    def __init__(self, *, complete: bool = True) -> None:
        self.complete = complete

    def find(self, transaction_ids: Sequence[str]) -> list[Decision | None]:
        if not self.complete:
            raise StillBuilding("the index is being built")
        return [OLD if name == "old" else None for name in transaction_ids]


class Bench:
    """A store, a publisher, and label workers that come and go."""

    def __init__(self) -> None:
        self.now_ms = EPOCH_MS
        self.store = ForgetfulStore(FEATURES, clock_ms=lambda: self.now_ms)
        self.publisher = MemoryPublisher()

    def worker(self, at: Hook = lambda moment: None, *, index: Shelf | None = None) -> Labeller:
        store, publisher = FlakyStore(self.store, at), FlakyBroker(self.publisher, at)
        return Labeller(FEATURES, store, publisher, clock_ms=lambda: self.now_ms, late=index or Shelf())

    @property
    def outcomes(self) -> dict[str, int]:
        return {way: n for way, n in label_outcomes(self.store.counts()).items() if n}

    def examples(self) -> list[bytes | None]:
        return [m.value for m in self.publisher.messages if m.topic == TOPICS.examples]


def record(offset: int, name: str = "old", *, is_fraud: bool = True) -> FakeRecord:
    told = {"transaction_id": name, "is_fraud": is_fraud, "label_time": EPOCH_MS, "source": "chargeback"}
    return FakeRecord(TOPICS.labels, 0, offset, EPOCH_MS, name.encode(), json.dumps(told).encode())


def test_a_late_label_becomes_an_example_of_the_decision_as_it_was() -> None:
    """Redis knows nothing of it: the index's decision, features and scores included, is what is learned from."""
    bench = Bench()
    done = bench.worker().process([record(0)])
    assert done == Labelled({"late": 1})
    assert bench.outcomes == {"told": 1, "late": 1}
    (example,) = bench.examples()
    assert decode_example(example or b"") == example_of(OLD, Label("old", True, EPOCH_MS, "chargeback"))
    bench.now_ms += EXAMPLE_CLAIM_MS
    assert bench.worker().publish_due() == 0


@pytest.mark.parametrize("moment", ["after settle_labels", "before publish", "before settle_examples"])
def test_a_crash_between_join_and_acknowledgement_counts_once_and_loses_no_example(moment: str) -> None:
    """Killed, and the record delivered again: still one late label, and its example is out, the same each time."""
    bench = Bench()
    with pytest.raises(WorkerKilled):
        bench.worker(kills(moment)).process([record(0)])
    assert bench.worker().process([record(0)]).tally == {"duplicate": 1}
    bench.now_ms += EXAMPLE_CLAIM_MS
    bench.worker().publish_due()
    assert bench.outcomes == {"told": 1, "late": 1}
    assert len(set(bench.examples())) == 1


def test_labels_wait_for_an_index_that_is_not_complete() -> None:
    """Nothing is parked, counted or acknowledged that the index might know; once it is complete the batch goes through."""
    bench, index = Bench(), Shelf(complete=False)
    worker = bench.worker(index=index)
    with pytest.raises(StillBuilding):
        worker.process([record(0), record(1, "nobody")])
    assert bench.outcomes == {}
    index.complete = True
    assert worker.process([record(0), record(1, "nobody")]).tally == {"late": 1, "parked": 1}


def test_a_store_that_lost_labels_is_read_for_again() -> None:
    """Redis comes back as it was: the next batch is refused, and the labels since are settled and counted once."""
    bench = Bench()
    worker = bench.worker()
    worker.process([record(0)])
    bench.store.remember()
    worker.process([record(1, is_fraud=False), record(2, "a")])
    bench.store.forget()
    assert worker.process([record(3, "b")]) == Labelled(resume_at=1)
    assert worker.process([record(3, "b")]) == Labelled(resume_at=1)  # the answer was lost on the way
    assert bench.outcomes == {"told": 1, "late": 1}
    worker.process([record(1, is_fraud=False), record(2, "a"), record(3, "b")])
    assert bench.outcomes == {"told": 4, "late": 1, "changed": 1, "parked": 2, "waiting": 2}


def test_an_older_worker_cannot_settle_over_a_loss() -> None:
    """One that was replaced and does not know it: it settled labels that the store has lost, so it is refused as well."""
    bench = Bench()
    old, new = bench.worker(), bench.worker()
    old.process([record(0), record(1, "a")])
    bench.store.forget()
    new.process([record(0)])
    assert old.process([record(2, "b")]) == Labelled(resume_at=1)
    new.process([record(1, "a"), record(2, "b")])
    assert bench.outcomes == {"told": 3, "late": 1, "parked": 2, "waiting": 2}

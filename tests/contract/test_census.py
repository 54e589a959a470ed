"""Censuses over every store: committed with their batch or not at all, and readable by whoever watches."""

from dataclasses import replace

from fraudstream.core.census import CENSUS, Counts
from fraudstream.core.ports import Advance, CommitStatus, StateStore
from tests.support.desk import HOUR_MS, NOON_MS, Desk, transaction


def counts(desk: Desk, *hours: int) -> Counts:
    monitor = desk.model.monitor
    assert monitor is not None
    names = [monitor.hour_name(desk.lease.partition, NOON_MS // HOUR_MS + hour) for hour in hours]
    return monitor.read(desk.store.rows({CENSUS: names})[CENSUS])


def test_a_commit_leaves_its_censuses(store: StateStore) -> None:
    """Hours fill with their transactions, batch after batch; the sum of the hours is the whole."""
    desk = Desk(store)
    desk.process(transaction("a"), transaction("b", at_ms=NOON_MS + HOUR_MS))
    desk.process(transaction("c", minor=90_000))
    assert counts(desk, 0).transactions == 2
    assert counts(desk, 1).transactions == 1
    both = counts(desk, 0, 1, 2)
    assert both.transactions == 3
    assert both.sums["alerts"] == 1
    assert both.sums["new.card"] == 1
    assert both.bins["amount"].tolist() == [0, 2, 1]
    assert both.newest_ms == NOON_MS + HOUR_MS


def test_a_refused_commit_counts_nothing(store: StateStore) -> None:
    """What a fenced worker, a repeated or a conflicting commit would have counted is in no census."""
    desk = Desk(store)
    old = desk.prepare(transaction("a")).commit
    taken = Desk(store)
    assert store.commit(old) is CommitStatus.FENCED
    assert counts(taken, 0).transactions == 0
    outcome = taken.prepare(transaction("a")).commit
    assert [store.commit(outcome), store.commit(outcome)] == [CommitStatus.APPLIED] * 2
    assert counts(taken, 0).transactions == 1
    elsewhere = replace(old, advances=[Advance(store.take_lease(1), old.advances[0].watermark)])
    assert store.commit(elsewhere) is CommitStatus.CONFLICT
    assert counts(taken, 0).transactions == 1


def test_the_watermarks_of_all_partitions_are_known(store: StateStore) -> None:
    """Whoever watches learns which partitions there are and how far each is; one without a commit is not told."""
    assert store.watermarks() == {}
    for partition in (0, 2):
        Desk(store, partition).process(transaction(f"t{partition}"))
    store.take_lease(1)
    assert store.watermarks() == {0: 0, 2: 0}

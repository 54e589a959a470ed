"""What every store counts of the labels: each record once, in one way, however often it is delivered."""

from collections.abc import Sequence

from msgspec.structs import replace as with_fields

from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.core.outcomes import label_outcomes
from fraudstream.core.ports import LabelStatus, LabelStep, StateStore
from fraudstream.events import Label, Reason, Rejected
from tests.contract.conftest import StoreFactory
from tests.support.decisions import a_decision
from tests.support.desk import DAY_MS, NOON_MS, Desk, label, transaction

OLD = a_decision(event_time_ms=NOON_MS - 100 * DAY_MS, terminal_id="w1")


def outcomes(store: StateStore) -> dict[str, int]:
    """The ways that are not zero."""
    return {way: n for way, n in label_outcomes(store.counts()).items() if n}


def late(offset: int, name: str, *, is_fraud: bool = True) -> LabelStep:
    """A label whose decision was found in an index."""
    return LabelStep(offset, label(name, is_fraud=is_fraud), with_fields(OLD, transaction_id=name), late=True)


def test_every_way_a_label_ends_is_counted_once(open_store: StoreFactory) -> None:
    """Joined, parked, late, duplicate, changed, orphan and rejected, and the parked one that is joined afterwards."""
    store = open_store(StoreSettings(parked_labels_max=1))
    desk = Desk(store)
    desk.process(transaction("t1"))
    ids = ("t1", "t1", "early", "orphan")
    steps = desk.prepare_labels(*map(label, ids), label("t1", is_fraud=False))
    steps += [LabelStep(5, Rejected(Reason.TOMBSTONE, "no value")), late(6, "old")]
    assert [status.value for status in desk.settle(steps)] == [
        "joined", "duplicate", "parked", "orphan", "changed", "rejected", "late",
    ]  # fmt: skip
    once = dict.fromkeys(("joined", "duplicate", "parked", "orphan", "changed", "rejected", "late"), 1)
    assert outcomes(store) == {"told": 7, "waiting": 1} | once
    desk.process(transaction("early"))
    assert outcomes(store) == {"told": 7, "early": 1} | once
    assert store.counts()["labels.rejected.tombstone"] == 1


def test_redelivered_labels_are_not_counted_again(open_store: StoreFactory) -> None:
    """The whole batch once more, or a part of it, as after a crash before the offsets moved: no counter changes."""
    store = open_store(StoreSettings(parked_labels_max=1))
    desk = Desk(store)
    desk.process(transaction("t1"), transaction("t2"))
    labels: Sequence[Label] = [label("t1"), label("t1"), label("early"), label("orphan"), label("t1", is_fraud=False)]
    desk.label(*labels)
    rejected = LabelStep(5, Rejected(Reason.INVALID_JSON, "x"))
    desk.settle([rejected, late(6, "old")])
    counted = dict(store.counts())
    desk.label(*labels, first_offset=0)
    desk.settle([rejected, late(6, "old")])
    assert store.counts() == counted
    desk.label(*labels[3:], first_offset=3)
    assert store.counts() == counted
    assert desk.label(label("t2"), first_offset=7) == [LabelStatus.JOINED]
    assert store.counts() == counted | {"labels.joined": 2}


def test_partitions_are_counted_apart(store: StateStore) -> None:
    """Offset 0 of one partition says nothing about offset 0 of another."""
    one, other = Desk(store, 0), Desk(store, 1)
    one.process(transaction("t1"), transaction("t2"))
    one.label(label("t1"))
    other.label(label("t2"))
    other.label(label("t1"))
    assert outcomes(store) == {"told": 3, "joined": 2, "duplicate": 1}


def test_a_conflict_counts_what_was_settled_before_it_and_nothing_after(store: StateStore) -> None:
    """Order is kept: what follows the conflict waits with it, and all of it is counted once in the end."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    steps = desk.prepare_labels(label("t1"), label("t2"), label("t1", is_fraud=False))
    desk.process(transaction("t2"))
    assert desk.settle(steps) == [LabelStatus.JOINED]
    assert outcomes(store) == {"told": 1, "joined": 1}
    again = desk.prepare_labels(label("t2"), label("t1", is_fraud=False), first_offset=1)
    assert desk.settle(again) == [LabelStatus.JOINED, LabelStatus.CHANGED]
    assert outcomes(store) == {"told": 3, "joined": 2, "changed": 1}


def test_a_chargeback_and_an_analyst_who_agree_count_once(store: StateStore) -> None:
    """The same verdict from another source is a duplicate; the terminal has one fraud."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    row = store.rows({"terminal": ["w1"]})
    assert desk.label(label("t1")) == [LabelStatus.JOINED]
    joined = store.rows({"terminal": ["w1"]})
    assert joined != row
    assert desk.label(with_fields(label("t1"), source="analyst", reason="called the cardholder")) == [
        LabelStatus.DUPLICATE
    ]
    assert store.rows({"terminal": ["w1"]}) == joined


def test_a_late_verdict_counts_once_and_touches_no_row(store: StateStore) -> None:
    """What the index found is joined by its verdict alone: again a duplicate, reversed a change, no window moves."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    rows = store.rows({"terminal": ["w1"], "card": ["c1"]})
    statuses = desk.settle([late(0, "old"), late(1, "old"), late(2, "old", is_fraud=False), late(3, "older")])
    assert [status.value for status in statuses] == ["late", "duplicate", "changed", "late"]
    assert store.rows({"terminal": ["w1"], "card": ["c1"]}) == rows
    assert desk.settle([late(0, "old"), late(4, "old")]) == [LabelStatus.DUPLICATE] * 2
    assert outcomes(store) == {"told": 5, "late": 2, "duplicate": 2, "changed": 1}


def test_a_decision_that_is_in_the_store_is_never_joined_as_late(store: StateStore) -> None:
    """Decided between the store's answer and the index's: a conflict, and then an ordinary join that counts the fraud."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    assert desk.settle([late(0, "t1")]) == []
    assert desk.label(label("t1"), first_offset=0) == [LabelStatus.JOINED]


def test_a_label_parked_before_there_was_an_index_gives_its_room_back(open_store: StoreFactory) -> None:
    """Joined late by a further label, it waits no longer and is counted as given up."""
    store = open_store(StoreSettings(parked_labels_max=1))
    desk = Desk(store)
    desk.label(label("old"))
    assert desk.settle([late(1, "old")]) == [LabelStatus.LATE]
    assert outcomes(store) == {"told": 2, "parked": 1, "late": 1, "expired": 1}
    assert desk.label(label("t9"), first_offset=2) == [LabelStatus.PARKED]


def test_a_store_that_lost_labels_says_so(store: StateStore) -> None:
    """What must have been settled was not: nothing is done, and where to read on from can be asked."""
    desk = Desk(store)
    desk.process(transaction("t1"), transaction("t2"))
    desk.label(label("t1"))
    assert (store.labels_settled(0), store.labels_settled(1)) == (0, -1)
    steps = desk.prepare_labels(label("t2"), first_offset=4)
    assert store.settle_labels(0, steps, after=3) is None
    assert outcomes(store) == {"told": 1, "joined": 1}
    assert store.settle_labels(0, steps, after=0) == [LabelStatus.JOINED]
    assert store.labels_settled(0) == 4

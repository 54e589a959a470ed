"""What the store in memory drops, by a clock that the test moves. Redis does the same by the times-to-live of its keys."""

from fraudstream.adapters.memory import MemoryPublisher, MemoryStore
from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.core.ports import LabelStatus, Outgoing, Publisher, StateStore
from tests.support.desk import DAY_MS, FEATURES, NOON_MS, Desk, label, transaction


class Clock:
    """A wall clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS

    def __call__(self) -> int:
        return self.now_ms


def test_decisions_are_kept_for_the_retention_and_dropped_by_generations() -> None:
    """A decision is there for the whole retention, and gone with its generation, verdicts included, a fifth later."""
    clock = Clock()
    store: StateStore = MemoryStore(FEATURES, StoreSettings(retention_ms=10 * DAY_MS), clock_ms=clock)
    desk = Desk(store)
    desk.process(transaction("t1"))
    steps = desk.prepare_labels(label("t1"))
    clock.now_ms += 10 * DAY_MS
    assert store.decision("t1") is not None
    clock.now_ms += 2 * DAY_MS
    assert store.decision("t1") is None
    assert desk.settle(steps) == []
    assert desk.label(label("t1")) == [LabelStatus.PARKED]
    assert len(desk.process(transaction("t1")).decided) == 1


def test_rows_of_idle_keys_leave() -> None:
    """A row that nothing was added to for its longest window and a day is gone; one that was used is not."""
    clock = Clock()
    store = MemoryStore(FEATURES, clock_ms=clock)
    desk = Desk(store)
    desk.process(transaction("t1"), transaction("t2", card="c2", terminal="w2"))
    clock.now_ms += 20 * DAY_MS
    desk.process(transaction("t3", at_ms=NOON_MS + 20 * DAY_MS))
    clock.now_ms += 11 * DAY_MS
    rows = store.rows({"card": ["c1", "c2"], "terminal": ["w1", "w2"]})
    assert {name: [row is None for row in found] for name, found in rows.items()} == {
        "card": [False, True],
        "terminal": [False, True],
    }


def test_early_labels_wait_their_time() -> None:
    """A label waits for its transaction as long as the settings say, and is counted when it is given up."""
    clock = Clock()
    store = MemoryStore(FEATURES, StoreSettings(parked_ttl_ms=DAY_MS, parked_labels_max=2), clock_ms=clock)
    desk = Desk(store)
    desk.label(label("t1"))
    clock.now_ms += DAY_MS - 1
    assert desk.label(label("t2"), label("t3")) == [LabelStatus.PARKED, LabelStatus.ORPHAN]
    clock.now_ms += 1
    assert desk.label(label("t3")) == [LabelStatus.PARKED]
    assert store.counts()["labels.expired"] == 1


def test_the_publisher_keeps_what_was_published_in_order() -> None:
    """Messages of several calls lie one after the other."""
    kept = MemoryPublisher()
    publisher: Publisher = kept
    messages = [Outgoing("alerts", b"%d" % n, b"c1") for n in range(3)]
    publisher.publish(messages[:2])
    publisher.publish(messages[2:])
    assert kept.messages == messages

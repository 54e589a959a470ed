"""Single faults between two steps of a worker, each of which once lost or changed something."""

import pytest
from tests.support.desk import FEATURES

from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import StateStore
from fraudstream.core.windows import States
from fraudstream.errors import BrokerUnavailable, StateUnavailable
from fraudstream.services.scoring import Ending
from fraudstream.testing import Driver, ForgetfulStore, WorkerKilled, card_transaction, fails, kills, toy_model


def alert(name: str, minutes: float = 0.0) -> dict[str, object]:
    return card_transaction(transaction_id=name, amount=950.0, minutes=minutes)


@pytest.mark.parametrize("moment", ["before gather", "after gather", "before commit", "after commit", "before publish"])
def test_a_worker_killed_between_two_steps_loses_nothing(moment: str) -> None:
    """Wherever a worker ends, the next one leaves one decision and one kind of alert for each transaction."""
    driver = Driver(at=kills(moment))
    with pytest.raises(WorkerKilled):
        driver.pipe(alert("t1"), alert("t2"))
    driver.crash()
    driver.run()
    assert [told["transaction_id"] for told in driver.alerts()] == ["t1", "t2"]
    assert driver.store.counts()["decided"] == 2


def test_an_alert_that_was_half_published_is_repeated_word_for_word() -> None:
    """If the broker takes a part of the messages, all come again, and those that are repeated are the same."""
    driver = Driver(at=fails("during publish"))
    with pytest.raises(BrokerUnavailable):
        driver.pipe(alert("t1"), alert("t2"))
    driver.now_ms += 60_000
    driver.run()
    first, *rest = driver.alerts()
    assert first in rest
    assert {told["transaction_id"] for told in rest} == {"t1", "t2"}


def test_a_store_that_is_ahead_of_a_longer_batch_hides_no_alert() -> None:
    """A commit whose answer was lost, then the same records in a longer batch: they are read again and published."""
    driver = Driver(at=fails("after commit"))
    with pytest.raises(StateUnavailable):
        driver.pipe(alert("t1"))
    driver.append(alert("t2"))
    while (done := driver.run()) is not None:
        assert done.ending in (Ending.DONE, Ending.REWOUND)
    assert [told["transaction_id"] for told in driver.alerts()] == ["t1", "t2"]


def test_a_batch_that_looked_applied_does_not_count_on_a_store_that_forgot_it() -> None:
    """The store loses a commit after the worker saw its decisions there: the batch is decided again, not skipped."""
    store = ForgetfulStore(FeatureSet.default())
    gathers = 0

    def at(moment: str) -> None:
        nonlocal gathers
        if moment == "before take_lease":
            store.take_lease(0)  # the driver's lease is then the second one
            store.remember()
        if moment == "after commit" and gathers == 1:
            raise StateUnavailable("planted")
        gathers += moment == "after gather"
        if moment == "after gather" and gathers == 2:
            fences = store._fences.copy()
            store.forget()
            store._fences = fences

    driver = Driver(store=store, at=at)
    with pytest.raises(StateUnavailable):
        driver.pipe(alert("t1"))
    while driver.run() is not None:
        pass
    assert store.decision("t1") is not None
    assert store.counts()["decided"] == 1


def test_an_applied_batch_that_the_store_lost_before_it_was_published_is_decided_again() -> None:
    """Kafka refuses the alert, then Redis comes back older: the retry notices, although it has nothing to commit."""
    store = ForgetfulStore(FeatureSet.default())
    driver = Driver(store=store, at=fails("before publish"))
    with pytest.raises(BrokerUnavailable):
        driver.pipe(alert("t1"))
    store.forget()
    while driver.run() is not None:
        pass
    assert [told["transaction_id"] for told in driver.alerts()] == ["t1"]
    assert store.decision("t1") is not None


def test_a_fenced_worker_that_owns_its_partition_still_takes_it_up_again() -> None:
    """After another one took its lease and went away, the worker decides what is left, from where the store is."""
    driver = Driver()
    driver.pipe(alert("t1"))
    driver.store.take_lease(0)
    driver.append(alert("t2"))
    done = driver.run()
    assert done is not None
    assert done.ending is Ending.FENCED
    assert driver._scorer.retake(0, first_offset=1) == 1
    driver.run()
    assert [told["transaction_id"] for told in driver.alerts()] == ["t1", "t2"]


def test_of_two_verdicts_in_a_batch_the_first_counts_though_it_meets_a_conflict() -> None:
    """A terminal that moves on under the first label does not let the second one, which touches no row, go ahead."""
    moved = False

    def at(moment: str) -> None:
        nonlocal moved
        if moment == "before settle_labels" and not moved:
            moved = True
            other.pipe(card_transaction(transaction_id="t2", card_id="c2", minutes=120), partition=1)

    driver = Driver(features=FEATURES, model=toy_model(FEATURES), at=at)
    other = Driver(features=FEATURES, model=toy_model(FEATURES), store=driver.store)
    driver.pipe(alert("t1"))
    driver.label_all(("t1", True), ("t1", False))
    assert frauds_of(driver.store) > 0


def frauds_of(store: StateStore) -> int:
    terminal = FEATURES.entities[1]
    states = States.from_rows(terminal.layout, store.rows({"terminal": ["m1"]})["terminal"])
    return sum(int(columns["frauds"].sum()) for columns in states.columns if "frauds" in columns)

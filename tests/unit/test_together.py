"""Several partitions in one micro-batch: two round trips for all of them, and each its own answer where they differ."""

from collections import Counter

import pytest

from fraudstream.core.features import FeatureSet
from fraudstream.errors import StateUnavailable
from fraudstream.services.scoring import Ending
from fraudstream.testing import Driver, ForgetfulStore, card_transaction, fails


def loaded(driver: Driver) -> Driver:
    """Two alerts in partition 0, one in partition 1, and what is no transaction in partition 2."""
    driver.append(
        card_transaction(transaction_id="t1", amount=950.0), card_transaction(transaction_id="t2", amount=990.0)
    )
    driver.append(card_transaction(transaction_id="t3", card_id="c2", amount=970.0), partition=1)
    driver.append(b"nonsense", key="c3", partition=2)
    return driver


def alerted(driver: Driver) -> list[str]:
    return [told["transaction_id"] for told in driver.alerts()]


def test_partitions_together_cost_two_round_trips() -> None:
    """One gather and one commit, whatever the number of partitions; all is decided, published and counted."""
    calls: Counter[str] = Counter()
    driver = loaded(Driver(at=lambda moment: calls.update([moment])))
    (done,) = driver.run_all()
    assert (calls["before gather"], calls["before commit"], calls["before publish"]) == (1, 1, 1)
    assert (done.ending, done.partitions) == (Ending.DONE, (0, 1, 2))
    assert (done.decided, done.alerts, done.rejected) == (3, 3, 1)
    assert alerted(driver) == ["t1", "t2", "t3"]
    assert len(driver.dead_letters()) == 1
    assert driver.store.watermarks() == {0: 1, 1: 0, 2: 0}


def test_a_partition_that_is_another_workers_holds_nothing_up() -> None:
    """One lease is lost between two batches: its records are left to the owner, those of the others are decided."""
    driver = Driver()
    loaded(driver).run_all()
    driver.store.take_lease(1)
    driver.append(card_transaction(transaction_id="t4", amount=950.0))
    driver.append(card_transaction(transaction_id="t5", card_id="c2", amount=950.0), partition=1)
    ended = {done.partitions: done.ending for done in driver.run_all()}
    assert ended == {(0,): Ending.DONE, (1,): Ending.FENCED}
    assert alerted(driver) == ["t1", "t2", "t3", "t4"]
    assert driver.store.watermarks() == {0: 2, 1: 0, 2: 0}


def test_the_same_transaction_in_two_partitions_is_decided_once() -> None:
    """Inside one batch, and against what was decided before: the first one counts, the second is a duplicate."""
    driver = Driver()
    driver.append(card_transaction(transaction_id="t1", amount=950.0))
    driver.append(card_transaction(transaction_id="t1", amount=950.0), partition=1)
    (done,) = driver.run_all()
    assert (done.decided, done.duplicates) == (1, 1)
    driver.append(card_transaction(transaction_id="t2", card_id="c2", amount=950.0))
    driver.append(card_transaction(transaction_id="t1", amount=950.0), partition=1)
    (done,) = driver.run_all()
    assert (done.decided, done.duplicates) == (1, 1)
    assert alerted(driver) == ["t1", "t2"]
    assert driver.store.counts()["decided"] == 2


def test_a_lost_answer_is_repeated_for_each_partition() -> None:
    """The commit of several partitions went through and nobody knows: the same answers are published, once decided."""
    driver = loaded(Driver(at=fails("after commit")))
    with pytest.raises(StateUnavailable):
        driver.run_all()
    assert driver.alerts() == []
    ended = driver.run_all()
    assert [(done.decided, done.repeated) for done in ended] == [(0, 2), (0, 1), (0, 0)]
    assert alerted(driver) == ["t1", "t2", "t3"]
    assert driver.store.counts()["decided"] == 3
    assert {name: n for name, n in driver.store.counts().items() if name.startswith("rejected")} == {
        "rejected.invalid_json": 1
    }


def test_a_partition_whose_state_went_back_is_told_though_another_one_fails() -> None:
    """Its lease was taken anew in this call: a second call would go on from it, and what the store lost with it."""
    store = ForgetfulStore(FeatureSet.default())
    gathers: Counter[bool] = Counter()
    armed = False

    def at(moment: str) -> None:
        gathers[armed] += moment == "before gather"
        # Twice together, once the first partition alone, then the second.
        if armed and moment == "before gather" and gathers[True] == 4:
            raise StateUnavailable("planted")

    driver = loaded(Driver(store=store, at=at))
    driver.run_all()
    store.remember()
    driver.append(card_transaction(transaction_id="t4", amount=950.0))
    driver.run_all()
    store.forget()
    armed = True
    driver.append(card_transaction(transaction_id="t5", amount=950.0))
    driver.append(card_transaction(transaction_id="t6", card_id="c2", amount=950.0), partition=1)
    (told,) = driver.run_all()
    assert (told.ending, told.partitions, told.resume_at) == (Ending.REWOUND, (0,), 2)
    while driver.run_all():
        pass
    assert [store.decision(f"t{n}") is not None for n in range(1, 7)] == [True] * 6
    assert store.counts()["decided"] == 6
    assert set(alerted(driver)) == {f"t{n}" for n in range(1, 7)}

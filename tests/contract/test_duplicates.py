"""One decision per transaction: a producer's retry changes no state, raises no second alert and is counted, wherever it comes."""

import pytest

from fraudstream.adapters.memory import MemoryStore
from fraudstream.core.ports import StateStore
from fraudstream.testing import Driver, card_transaction
from tests.contract.conftest import StoreFactory
from tests.support.desk import FEATURES, everything

FIRST = card_transaction(amount=950.0, card_id="c1", terminal_id="w1")
OTHER = card_transaction(transaction_id="t2", minutes=1, card_id="c1", terminal_id="w1")
# Its clock read anew, and another amount: still the same transaction, as its id says.
RETRY = card_transaction(amount=990.0, minutes=2, card_id="c1", terminal_id="w1")


def state(store: StateStore) -> object:
    """Rows, decisions and counters, without what a duplicate alone adds to."""
    rows, decisions, counts = everything(store, ["c1"], ["w1"], ["t1", "t2"])
    return rows, decisions, {name: n for name, n in counts.items() if name != "duplicates"}


def assert_once(driver: Driver, store: StateStore, before: object) -> None:
    assert state(store) == before
    assert store.counts()["duplicates"] == 1
    assert [alert["transaction_id"] for alert in driver.alerts()] == ["t1"]
    assert sorted(answer["transaction_id"] for answer in driver.decisions()) == ["t1", "t2"]


@pytest.fixture
def driver(store: StateStore) -> Driver:
    return Driver(store=store, features=FEATURES)


@pytest.fixture
def once() -> object:
    """The state that the two transactions alone leave; both stores hold it byte for byte."""
    calm = MemoryStore(FEATURES)
    with Driver(store=calm, features=FEATURES) as alone:
        alone.pipe(FIRST, OTHER)
    return state(calm)


def test_inside_one_batch(driver: Driver, store: StateStore, once: object) -> None:
    """The second record of a batch with the same id."""
    driver.pipe(FIRST, OTHER, RETRY)
    assert_once(driver, store, once)


def test_across_batches(driver: Driver, store: StateStore, once: object) -> None:
    """A retry that comes a batch later."""
    driver.pipe(FIRST, OTHER)
    driver.pipe(RETRY)
    assert_once(driver, store, once)


def test_across_partitions(driver: Driver, store: StateStore, once: object) -> None:
    """A retry that another partitioner sent elsewhere, also if that partition was never read before."""
    driver.pipe(FIRST, OTHER)
    driver.pipe(RETRY, partition=3)
    assert_once(driver, store, once)


def test_after_a_restart(open_store: StoreFactory, driver: Driver, store: StateStore, once: object) -> None:
    """A retry that meets another worker on the same store."""
    driver.pipe(FIRST, OTHER)
    with Driver(store=open_store(), features=FEATURES) as second:
        second.log, second.committed = driver.log, dict(driver.committed)
        second.pipe(RETRY)
        assert second.alerts() == second.decisions() == []
    assert_once(driver, store, once)

"""Examples that are to be published: noted with the join, claimed by one worker, settled once they are out."""

import pytest

from fraudstream.adapters import memory, redis_store
from fraudstream.core.ports import StateStore
from fraudstream.events import Label
from tests.contract.conftest import StoreFactory
from tests.support.desk import DAY_MS, NOON_MS, Desk, label, transaction


@pytest.fixture
def no_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks, at once."""
    for module in (memory, redis_store):
        monkeypatch.setattr(module, "EXAMPLE_CLAIM_MS", 0)


def due(store: StateStore) -> dict[str, bool]:
    return {one.transaction_id: one.is_fraud for one in store.claim_examples(100)}


def test_a_join_is_left_to_who_joined_it(store: StateStore) -> None:
    """Nobody else is given its example while the claim holds."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    desk.label(label("t1"))
    assert due(store) == {}


@pytest.mark.usefixtures("no_claims")
def test_what_was_not_settled_is_given_to_who_asks(store: StateStore) -> None:
    """Joined labels with their verdict, time and source, without their words, until they are settled."""
    desk = Desk(store)
    desk.process(transaction("t1"), transaction("t2"), transaction("t3"))
    told = Label("t1", True, NOON_MS + DAY_MS, "analyst", "it was not her")
    desk.label(told, label("t2", is_fraud=False), label("t4"))
    found = {one.transaction_id: one for one in store.claim_examples(100)}
    assert found.keys() == {"t1", "t2"}
    assert found["t1"] == Label("t1", True, NOON_MS + DAY_MS, "analyst", None)
    store.settle_examples([told])
    assert due(store) == {"t2": False}
    store.settle_examples(list(found.values()))
    store.settle_examples([])
    assert due(store) == {}


@pytest.mark.usefixtures("no_claims")
def test_only_a_join_leaves_an_example(store: StateStore) -> None:
    """A duplicate, a reversed verdict and an orphan leave none."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    desk.label(label("t1"))
    store.settle_examples(store.claim_examples(1))
    desk.label(label("t1"), label("t9"))
    desk.label(label("t1", is_fraud=False))
    assert due(store) == {}


def test_an_early_label_leaves_its_example_in_the_commit(store: StateStore) -> None:
    """It can be had at once, by one worker."""
    desk = Desk(store)
    desk.label(label("t1"), label("t2", is_fraud=False))
    assert due(store) == {}
    desk.process(transaction("t1"), transaction("t2"), transaction("t3"))
    assert due(store) == {"t1": True, "t2": False}
    assert due(store) == {}


@pytest.mark.usefixtures("no_claims")
def test_examples_come_in_portions(open_store: StoreFactory) -> None:
    """No more than asked for."""
    desk = Desk(open_store())
    desk.process(*(transaction(f"t{n}") for n in range(5)))
    desk.label(*(label(f"t{n}") for n in range(5)))
    assert len(desk.store.claim_examples(3)) == 3
    assert len(due(desk.store)) == 5

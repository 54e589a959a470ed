"""Every joined label becomes an example, over crashes at every step and for labels that came early."""

import pytest

from fraudstream.adapters.memory import MemoryStore
from fraudstream.adapters.redis_keys import EXAMPLE_CLAIM_MS
from fraudstream.codec import decode_decision, decode_example
from fraudstream.core.engine import example_of
from fraudstream.core.features import FeatureSet
from fraudstream.errors import BrokerUnavailable, StateUnavailable
from fraudstream.events import Label
from fraudstream.testing import EPOCH_MS, MINUTE_MS, Driver, WorkerKilled, card_transaction, fails, kills
from fraudstream.testing.faults import Hook
from fraudstream.topics import TOPICS


class Clock:
    now_ms = EPOCH_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    """The store's clock, to be moved by hand."""
    return Clock()


def driver_at(clock: Clock, at: Hook | None = None) -> Driver:
    features = FeatureSet.default()
    return Driver(features=features, store=MemoryStore(features, clock_ms=clock), at=at)


def verdicts(driver: Driver) -> list[tuple[str, bool]]:
    return [(example["transaction_id"], example["is_fraud"]) for example in driver.examples()]


def test_an_example_is_the_decision_as_it_was_and_its_verdict(clock: Clock) -> None:
    """Its features are those of decision time, whatever has happened to the card since."""
    driver = driver_at(clock)
    driver.pipe(card_transaction(transaction_id="t1", amount=950.0))
    driver.pipe(card_transaction(transaction_id="t2", minutes=1))
    driver.label("t1", is_fraud=True, minutes=600, source="analyst")
    (decided, _) = (m for m in driver.publisher.messages if m.topic == TOPICS.decisions)
    (published,) = (m for m in driver.publisher.messages if m.topic == TOPICS.examples)
    label = Label("t1", True, EPOCH_MS + 600 * MINUTE_MS, "analyst")
    assert decode_example(published.value or b"") == example_of(decode_decision(decided.value or b""), label)
    assert published.key == b"c1"


def test_a_second_opinion_is_no_second_example(clock: Clock) -> None:
    """A label that comes through a chargeback and again from an analyst counts once; a reversed one does not count."""
    driver = driver_at(clock)
    driver.pipe(card_transaction(transaction_id="t1"))
    driver.label("t1", is_fraud=True)
    driver.label("t1", is_fraud=True, source="analyst")
    driver.label("t1", is_fraud=False, source="analyst")
    assert verdicts(driver) == [("t1", True)]


def test_an_early_label_becomes_an_example_when_its_transaction_comes(clock: Clock) -> None:
    """It is joined within the scorer's commit, and the label role publishes it."""
    driver = driver_at(clock)
    driver.label("t1", is_fraud=True)
    assert verdicts(driver) == []
    driver.pipe(card_transaction(transaction_id="t1"))
    assert verdicts(driver) == [("t1", True)]
    assert verdicts(driver) == [("t1", True)]


def test_an_early_label_survives_a_crash_of_its_scorer(clock: Clock) -> None:
    """The answer of the commit that joined it is lost, its batch comes again: one example."""
    driver = driver_at(clock, fails("after commit"))
    driver.label("t1", is_fraud=True)
    with pytest.raises(StateUnavailable):
        driver.pipe(card_transaction(transaction_id="t1"))
    driver.crash()
    driver.run()
    assert verdicts(driver) == [("t1", True)]


@pytest.mark.parametrize("moment", ["after settle_labels", "before publish"])
def test_a_crash_between_join_and_publish_loses_no_example(clock: Clock, moment: str) -> None:
    """What the dead worker had joined is published by whoever asks, once its claim has passed."""
    driver = driver_at(clock, None)
    driver.pipe(card_transaction(transaction_id="t1"), card_transaction(transaction_id="t2"))
    doomed = Driver(features=driver.features, store=driver.store, at=kills(moment))
    with pytest.raises(WorkerKilled):
        doomed.label_all(("t1", True), ("t2", False))
    driver.label_all(("t1", True), ("t2", False))  # delivered again
    assert verdicts(driver) == []
    clock.now_ms += EXAMPLE_CLAIM_MS
    assert sorted(verdicts(driver)) == [("t1", True), ("t2", False)]
    clock.now_ms += EXAMPLE_CLAIM_MS
    assert len(driver.examples()) == 2


def test_an_example_that_was_not_settled_comes_again_the_same(clock: Clock) -> None:
    """After a crash between publish and settle the same bytes are published a second time."""
    driver = driver_at(clock, fails("before settle_examples"))
    driver.pipe(card_transaction(transaction_id="t1"))
    with pytest.raises(StateUnavailable):
        driver.label("t1", is_fraud=True)
    clock.now_ms += EXAMPLE_CLAIM_MS
    driver.examples()
    first, again = (m.value for m in driver.publisher.messages if m.topic == TOPICS.examples)
    assert first == again


def test_examples_wait_for_kafka(clock: Clock) -> None:
    """With Kafka away the batch is tried again, and nothing is lost meanwhile."""
    driver = driver_at(clock, None)
    driver.pipe(card_transaction(transaction_id="t1"))
    waiting = Driver(features=driver.features, store=driver.store, at=fails("before publish"))
    with pytest.raises(BrokerUnavailable):
        waiting.label("t1", is_fraud=True)
    waiting.label("t1", is_fraud=True)
    clock.now_ms += EXAMPLE_CLAIM_MS
    assert verdicts(waiting) == [("t1", True)]

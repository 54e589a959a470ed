"""Provisional answers: what they know, what they are called, and what is kept in mind of them."""

import asyncio
import json
from typing import Any

import pytest

from fraudstream import roles
from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.codec import alert_id, decode_decision
from fraudstream.errors import BrokerUnavailable, StateUnavailable
from fraudstream.roles import Runner
from fraudstream.services.degraded import Ahead, Guesser
from fraudstream.services.health import Health
from fraudstream.testing import EPOCH_MS, Driver, FakeRecord, FlakyBroker, card_transaction, fails, toy_model
from fraudstream.topics import TOPICS

MODEL = toy_model()


def records(*values: dict[str, Any] | bytes) -> list[FakeRecord]:
    payloads = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return [FakeRecord(TOPICS.transactions, 0, n, EPOCH_MS, b"c1", payload) for n, payload in enumerate(payloads)]


def guesser(publisher: Any) -> Guesser:
    return Guesser(Driver().features, MODEL, publisher, clock_ms=lambda: EPOCH_MS)


def test_a_guess_is_told_from_the_final_answer() -> None:
    """It is marked, and its alert has an id of its own: who drops repeated ids still gets the final one."""
    publisher = MemoryPublisher()
    guesser(publisher).answer(0, records(card_transaction(amount=950.0), card_transaction(transaction_id="t2")))
    alerts = [json.loads(m.value or b"") for m in publisher.messages if m.topic == TOPICS.alerts]
    assert [(alert["alert_id"], alert["degraded"]) for alert in alerts] == [("alert:t1:provisional", True)]
    decisions = [decode_decision(m.value or b"") for m in publisher.messages if m.topic == TOPICS.decisions]
    assert [(decision.transaction_id, decision.degraded) for decision in decisions] == [("t1", True), ("t2", True)]
    with Driver(model=MODEL) as driver:
        driver.pipe(card_transaction(amount=950.0))
        (final,) = driver.alerts()
    assert final["alert_id"] == alert_id("t1") == "alert:t1"
    assert "degraded" not in final


def test_a_guess_is_made_as_the_first_answer_of_all_is() -> None:
    """Its features are those of a transaction of which nothing is known yet, whatever came before."""
    publisher = MemoryPublisher()
    guess = guesser(publisher)
    guess.answer(0, records(card_transaction()))
    (known_nothing,) = guess.answer(0, records(card_transaction(transaction_id="t9", minutes=5)))
    with Driver(model=MODEL) as driver:
        driver.pipe(card_transaction(transaction_id="t9", minutes=5))
        (first,) = [decode_decision(m.value or b"") for m in driver.publisher.messages]
    assert known_nothing.features == first.features


def test_dead_letters_and_duplicates_are_left_to_the_second_reading() -> None:
    """What is no transaction, and the second of two in a batch, is not answered provisionally."""
    publisher = MemoryPublisher()
    guesses = guesser(publisher).answer(0, records(b"{", card_transaction(), card_transaction()))
    assert [guess.transaction_id for guess in guesses] == ["t1"]
    assert {message.topic for message in publisher.messages} == {TOPICS.decisions}


def test_a_broker_that_is_away_is_told() -> None:
    """Without Kafka there is no answer at all: the caller waits."""
    with pytest.raises(BrokerUnavailable):
        guesser(FlakyBroker(MemoryPublisher(), fails("before publish"))).answer(0, records(card_transaction()))


def test_what_was_answered_is_listed_until_the_store_is_back() -> None:
    """Each partition is read again from its first provisional record; a batch delivered twice is counted once."""
    ahead = Ahead(records_max=5)
    ahead.begin()
    ahead.put(0, 10, 10)  # in work
    assert ahead.unanswered(0, 10) == 10
    ahead.put(0, 10, 13)
    ahead.put(0, 10, 13)
    assert (ahead.records, ahead.room) == (3, True)
    ahead.assigned(1, None)  # its lease could not be taken, and nothing of it was committed
    ahead.assigned(2, 7)
    ahead.put(1, 4, 6)
    assert (ahead.records, ahead.room, ahead.partitions) == (5, False, [0, 1, 2])
    ahead.revoked(0)
    assert ahead.room
    assert ahead.end() == {1: 4, 2: 7}
    assert (ahead.active, ahead.records) == (False, 0)


def test_a_call_with_patience_waits_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that stays away raises past it; Kafka is waited for as ever."""
    monkeypatch.setattr(roles, "RETRY_S_FIRST", 0.001)
    tries: list[int] = []

    def away() -> None:
        tries.append(1)
        raise StateUnavailable("Redis: away")

    with pytest.raises(StateUnavailable):
        asyncio.run(Runner(Health(), 60).call("score", lambda: True, away, patience_s=0.05))
    assert len(tries) > 2
    broker = iter([BrokerUnavailable("Kafka: away"), None])

    def publish() -> str:
        if error := next(broker):
            raise error
        return "done"

    assert asyncio.run(Runner(Health(), 60).call("score", lambda: True, publish, patience_s=0)) == "done"

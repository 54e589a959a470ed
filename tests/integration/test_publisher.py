"""The publisher against a real broker: everything acknowledged, or an error that says what was wrong."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from tests.support.kafka import consume, create_topic
from tests.support.servers import Kafka

from fraudstream.adapters.kafka_publisher import STOP_S_MAX, KafkaPublisher
from fraudstream.core.ports import Outgoing
from fraudstream.errors import BrokerUnavailable
from fraudstream.events import Reason, Rejected
from fraudstream.services.publishing import CUT_TO_BYTES, of_rejected
from fraudstream.testing import FakeRecord

TopicFactory = Callable[[str, int], str]


@pytest.fixture
def strict(kafka: Kafka) -> Kafka:
    """A broker that refuses records above a topic's limit, and topics that do not exist."""
    if kafka.kind == "tansu":
        pytest.skip("Tansu takes records of any size and makes topics that are asked for")
    return kafka


def _publisher(kafka: Kafka, timeout_s: float = 20) -> KafkaPublisher:
    return KafkaPublisher({"bootstrap.servers": kafka.bootstrap_servers}, timeout_s=timeout_s)


def test_what_was_published_is_there(kafka: Kafka, kafka_topic_factory: TopicFactory) -> None:
    """When publish returns, every record is in its topic with key, value and headers."""
    topic = kafka_topic_factory("published", 3)
    messages = [Outgoing(topic, b"%d" % n, b"k%d" % (n % 50), [("n", b"%d" % n), ("null", None)]) for n in range(5_000)]
    publisher = _publisher(kafka)
    publisher.publish(messages)
    publisher.publish([])
    publisher.close()
    found = consume(kafka.bootstrap_servers, topic, len(messages))
    assert Counter((m.key(), m.value()) for m in found) == Counter((m.key, m.value) for m in messages)
    assert {len(m.headers() or ()) for m in found} == {2}


def test_an_unknown_topic_is_an_error_within_the_timeout_and_harms_nothing_after(
    strict: Kafka, kafka_topic_factory: TopicFactory
) -> None:
    """BrokerUnavailable in time; the same publisher goes on with what can be published."""
    topic = kafka_topic_factory("known", 1)
    publisher = _publisher(strict, timeout_s=2)
    began_s = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="no-such-topic"):
        publisher.publish([Outgoing(topic, b"one", b"k"), Outgoing("no-such-topic", b"x", b"k")])
    assert time.monotonic() - began_s < 6
    publisher.publish([Outgoing(topic, b"two", b"k")])
    assert [m.value() for m in consume(strict.bootstrap_servers, topic, 2)] == [b"one", b"two"]


def test_a_worker_that_is_told_to_stop_does_not_wait_out_a_broker_that_is_away() -> None:
    """Once `stopping` holds, an unacknowledged batch is given up after STOP_S_MAX."""
    publisher = KafkaPublisher({"bootstrap.servers": "127.0.0.1:1"}, timeout_s=60, stopping=lambda: True)
    began_s = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="1 of 1 records for t"):
        publisher.publish([Outgoing("t", b"x", b"k")])
    assert time.monotonic() - began_s < STOP_S_MAX + 3


def test_small_records_pass_where_their_batch_is_too_large(strict: Kafka, kafka_topic_factory: TopicFactory) -> None:
    """A topic whose limit is below the client's batches takes every record that is small enough by itself."""
    topic = f"{kafka_topic_factory('narrow', 1)}.limited"
    create_topic(strict.bootstrap_servers, topic, 1, **{"max.message.bytes": "20000"})
    rng = random.Random(1)
    messages = [Outgoing(topic, rng.randbytes(1_000), b"k") for _ in range(100)]
    _publisher(strict).publish(messages)
    assert {m.value() for m in consume(strict.bootstrap_servers, topic, 100)} == {m.value for m in messages}


@pytest.mark.parametrize("large", ["value", "key", "headers"])
def test_a_dead_letter_that_is_too_large_is_cut(strict: Kafka, kafka_topic_factory: TopicFactory, large: str) -> None:
    """Whatever makes it large: the letter arrives with reason, origin, the size and the beginning of the value."""
    topic = kafka_topic_factory("dead", 1)
    much = os.urandom(1_500_000)
    record = FakeRecord(
        topic="transactions",
        partition=3,
        offset=41,
        timestamp=1,
        key=much if large == "key" else b"k",
        value=much if large == "value" else b"short",
        headers=(("trace", much if large == "headers" else b"7"),),
    )
    (letter,) = of_rejected(topic, [(record, Rejected(Reason.PAYLOAD_TOO_LARGE, "too large"))], 1)
    ordinary = Outgoing(topic, b"ordinary", b"k")
    _publisher(strict).publish([ordinary, letter])
    _, found = sorted(consume(strict.bootstrap_servers, topic, 2), key=lambda m: bool(m.headers()))
    headers = dict(found.headers() or ())
    assert headers["fraudstream-cut"] == str(len(record.value or b"")).encode()  # type: ignore[index] # confluent types headers loosely
    assert headers["fraudstream-offset"] == b"41"  # type: ignore[index] # as above
    assert found.value() == (record.value or b"")[:CUT_TO_BYTES]


def test_a_record_that_is_too_large_and_has_no_smaller_form_names_its_topic(
    strict: Kafka, kafka_topic_factory: TopicFactory
) -> None:
    """The error says which topic refuses and what to raise."""
    topic = kafka_topic_factory("refusing", 1)
    with pytest.raises(BrokerUnavailable, match=rf"{topic} refuses .* raise its max.message.bytes"):
        _publisher(strict).publish([Outgoing(topic, os.urandom(1_500_000), b"k")])

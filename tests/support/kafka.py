"""Records in, records out, with confluent-kafka. Records are counted; watermarks are not trusted (see embedded)."""

import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.waiting import wait_until

_QUIET: Mapping[str, int] = {"log_level": 0}


def create_topic(bootstrap_servers: str, topic: str, partitions: int, **config: str) -> None:
    """Create `topic` with unlimited retention (and `config`), and wait until each of its partitions has a leader."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, **_QUIET})
    settings = {"retention.ms": "-1", **config}
    admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic].result(30)

    def is_led() -> bool:
        found = admin.list_topics(topic, timeout=5).topics[topic].partitions.values()
        return len(found) == partitions and all(partition.leader >= 0 for partition in found)

    wait_until(is_led, 30, f"the {partitions} partitions of {topic} have a leader")


def produce(
    bootstrap_servers: str,
    topic: str,
    records: Iterable[tuple[bytes, bytes]],
    *,
    timestamp_ms: int = 0,
    timeout_s: float = 30,
) -> dict[bytes, int]:
    """Produce (key, value) records as every producer of this system does; return the partition of each key.

    `timestamp_ms` 0 means now. Fails unless each record is acknowledged within `timeout_s`.
    """
    partition_by_key: dict[bytes, int] = {}
    failures: list[str] = []

    def acknowledged(error: object, message: Message) -> None:
        key, partition = message.key(), message.partition()
        if error is None and isinstance(key, bytes) and partition is not None:
            partition_by_key[key] = partition
        else:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": "murmur2_random",
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "message.timeout.ms": int(timeout_s * 1000),
            **_QUIET,
        }
    )
    for key, value in records:
        producer.produce(topic, value=value, key=key, timestamp=timestamp_ms, on_delivery=acknowledged)
        producer.poll(0)
    left = producer.flush(timeout_s + 5)
    assert left == 0, f"{left} records of {topic} were not acknowledged within {timeout_s + 5:g} s"
    assert not failures, f"{len(failures)} records of {topic} failed; the first one: {failures[0]}"
    return partition_by_key


def consume(
    bootstrap_servers: str,
    topic: str,
    count: int,
    *,
    timeout_s: float = 30,
    enough: Callable[[list[Message]], bool] | None = None,
) -> list[Message]:
    """Read `topic` from its beginning until `count` records are there; fail with the number that was.

    With `enough`, which is shown what came in each look, until it says so.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tests.support",  # required by the client; nothing joins it and nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            **_QUIET,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        messages: list[Message] = []
        deadline = time.monotonic() + timeout_s
        done = False
        while not done and (enough or len(messages) < count):
            wanted = f"of {count} " if not enough else ""
            assert time.monotonic() < deadline, f"{len(messages)} {wanted}records of {topic} in {timeout_s:g} s"
            batch = consumer.consume(500 if enough else count - len(messages), timeout=0.2)
            came = [message for message in batch if message.error() is None]
            messages.extend(came)
            done = enough is not None and enough(came)
        return messages
    finally:
        consumer.close()

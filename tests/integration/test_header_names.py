"""Header names that are no text: Kafka takes any bytes there, and aiokafka by itself could not read past them."""

import asyncio

import aiokafka
import pytest
from tests.conftest import TopicFactory
from tests.support.raw_headers import produce_headers
from tests.support.servers import Kafka

from fraudstream.adapters import kafka_records

NONE, GZIP, LZ4 = 0, 1, 3
RECORDS: list[tuple[bytes, bytes, list[tuple[bytes, bytes]]]] = [
    (b"k", b"one", [(b"fine", b"1")]),
    (b"k", b"two", [(b"\xff\xfe", b"\xff"), ("ü".encode(), b"2")]),
    (b"k", b"three", []),
]


async def _read(bootstrap_servers: str, topic: str, count: int) -> list[tuple[bytes | None, object]]:
    found: list[tuple[bytes | None, object]] = []
    consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            while len(found) < count:
                fetched = await consumer.getmany(timeout_ms=200)
                found += [(record.value, record.headers) for records in fetched.values() for record in records]
    finally:
        await consumer.stop()
    return found


@pytest.mark.parametrize("compression", [NONE, GZIP, LZ4])
def test_every_record_around_a_broken_name_is_read(
    kafka: Kafka, kafka_topic_factory: TopicFactory, compression: int
) -> None:
    """The record with the broken name and its neighbours arrive once, in order; the broken bytes as escapes."""
    topic = kafka_topic_factory("names", 1)
    kafka_records.install()
    asyncio.run(produce_headers(kafka.bootstrap_servers, topic, RECORDS, compression))
    asyncio.run(produce_headers(kafka.bootstrap_servers, topic, RECORDS[:1], compression))
    found = asyncio.run(_read(kafka.bootstrap_servers, topic, 4))
    assert [value for value, _ in found] == [b"one", b"two", b"three", b"one"]
    assert found[0][1] == (("fine", b"1"),)
    assert found[1][1] == (("\\xff\\xfe", b"\xff"), ("ü", b"2"))

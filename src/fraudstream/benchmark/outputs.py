"""Looking at output topics from outside: how many records are acknowledged, which, and when each became readable."""

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # it is not in __all__
from hdrh.histogram import HdrHistogram

from fraudstream.errors import BrokerUnavailable

ANSWER_S_MAX: Final = 10.0
MESSAGES_AT_ONCE: Final = 5_000
# Latencies from 1 µs to an hour, to three digits.
LATENCY_US_MAX: Final = 3_600_000_000
DIGITS: Final = 3
SHOWN: Final = (50.0, 90.0, 99.0, 99.9, 99.99)


class _Named(msgspec.Struct):
    transaction_id: str


NAME_OF: Final = msgspec.json.Decoder(_Named).decode


class Acknowledged:
    """Counts the acknowledged records of a topic, cheaply: a measurement must not need a core of its own.

    Apache Kafka is asked for its high watermarks. Tansu's are wrong, so there the records are read and counted.
    """

    def __init__(self, bootstrap_servers: str, topic: str, *, by_reading: bool = False) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        partitions = self._admin.list_topics(topic, timeout=ANSWER_S_MAX).topics[topic].partitions
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call] # it has no annotations
        self._wanted = {TopicPartition(topic, number): latest for number in partitions}
        self._consumer = _consumer(bootstrap_servers, [topic]) if by_reading else None
        self._read = 0

    def count(self) -> int:
        """Records so far. Raises `BrokerUnavailable` if the broker does not answer."""
        if self._consumer is not None:
            self._read += sum(m.error() is None for m in self._consumer.consume(MESSAGES_AT_ONCE, 0.02))
            return self._read
        try:
            asked = self._admin.list_offsets(self._wanted, request_timeout=ANSWER_S_MAX)
            return sum(future.result(ANSWER_S_MAX).offset for future in asked.values())
        except Exception as error:  # KafkaException or TimeoutError, by which side gave up
            raise BrokerUnavailable(f"the broker does not tell its offsets: {error}") from error

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()


def read_ids(bootstrap_servers: str, topic: str, count: int, timeout_s: float = 60.0) -> tuple[list[str], int]:
    """The transaction ids of the first `count` records of a topic, or of fewer if no more come in time; their bytes."""
    consumer = _consumer(bootstrap_servers, [topic])
    found: list[str] = []
    size = 0
    deadline_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline_s:
        values = [m.value() or b"" for m in consumer.consume(MESSAGES_AT_ONCE, 0.2) if m.error() is None]
        found += [NAME_OF(value).transaction_id for value in values]
        size += sum(map(len, values))
    consumer.close()
    return found, size


class Latencies:
    """A histogram of latencies (HdrHistogram): every record counts, none is sampled away."""

    def __init__(self) -> None:
        self._histogram: Any = HdrHistogram(1, LATENCY_US_MAX, DIGITS)

    def add(self, latency_s: float) -> None:
        self._histogram.record_value(max(1, round(latency_s * 1e6)))

    def summary(self) -> dict[str, float | int]:
        """Count, percentiles and maximum in ms."""
        found: dict[str, float | int] = {"count": int(self._histogram.get_total_count())}
        for share in SHOWN:
            found[f"p{share:g}"] = round(self._histogram.get_value_at_percentile(share) / 1000, 2)
        found["max"] = round(self._histogram.get_max_value() / 1000, 2)
        return found

    def curve(self) -> list[tuple[float, float]]:
        """(one in how many, ms): the latency that one record in so many exceeds, for a plot."""
        steps = [1 / (1 - at / 20) for at in range(10, 20)] + [10 * 2**n for n in range(1, 16)]
        count = self._histogram.get_total_count()
        return [
            (one_in, self._histogram.get_value_at_percentile(100 * (1 - 1 / one_in)) / 1000)
            for one_in in steps
            if one_in <= count
        ]


class LatencyReader:
    """A thread that reads decisions and alerts as a consumer downstream would, and notes how late each is.

    Late against the time its transaction was scheduled to be sent, not the time it was sent: a sender that is held up
    cannot hide what it was held up by (coordinated omission).
    """

    def __init__(self, bootstrap_servers: str, decisions: str, alerts: str) -> None:
        self.seen = 0
        self.waiting = 0
        self.decisions, self.alerts = Latencies(), Latencies()
        self._decisions_topic = decisions
        self._due_s: Mapping[str, float] = {}
        self._answered: set[str] = set()
        self._stopping = threading.Event()
        self._consumer = _consumer(bootstrap_servers, [decisions, alerts])
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def expect(self, due_s: Mapping[str, float]) -> None:
        """Measure these transactions from now on: the Unix time each is scheduled for."""
        self._due_s = due_s
        self.waiting = len(due_s)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            first = self._consumer.poll(0.05)
            if first is None:
                continue
            # What else is here came no later than the moment `poll` returned.
            now_s = time.time()
            for message in (first, *self._consumer.consume(MESSAGES_AT_ONCE, 0)):
                if message.error() is None:
                    self._note(message.topic(), NAME_OF(message.value() or b"").transaction_id, now_s)

    def _note(self, topic: str | None, name: str, now_s: float) -> None:
        self.seen += topic == self._decisions_topic
        due_s = self._due_s.get(name)
        if due_s is None:
            return
        if topic != self._decisions_topic:
            self.alerts.add(now_s - due_s)
        elif name not in self._answered:
            self._answered.add(name)
            self.decisions.add(now_s - due_s)
            self.waiting -= 1


def _consumer(bootstrap_servers: str, topics: list[str]) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "fraudstream-benchmark",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "log_level": 0,
        }
    )
    known = consumer.list_topics(timeout=ANSWER_S_MAX).topics
    consumer.assign([TopicPartition(topic, number, 0) for topic in topics for number in known[topic].partitions])
    return consumer

"""Kafka, to write to: nothing is lost on the way, and what the broker refuses is counted."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fraudstream_producers.batches import Batch
from fraudstream_producers.contract import LABELS_TOPIC, TRANSACTIONS_TOPIC
from fraudstream_producers.errors import UsageError
from fraudstream_producers.interleave import Kind

# How long a full queue is polled before it is looked at again, and how long a stop may take to be noticed.
_ROOM_POLL_S = 0.1
# After this long without an acknowledgement a record counts as failed. A broker's restart takes less.
DELIVERY_TIMEOUT_S = 60.0
# The client's queue: enough to fill batches for every partition, small next to the memory of any machine.
_QUEUE_RECORDS_MAX = 100_000
_QUEUE_KIB_MAX = 131_072
# Full batches compress well and cost little; at low rates 20 ms are not noticed.
_LINGER_MS = 20


class KafkaSink:
    """A producer of the contract: murmur2 by key, idempotent, acknowledged by all replicas, lz4.

    `failed_by_kind` counts records that the client or the broker refused; `first_error` says why the first one was.
    `fatal` says why no further record can be delivered, ever.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        transactions_topic: str = TRANSACTIONS_TOPIC,
        labels_topic: str = LABELS_TOPIC,
        client_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.submitted: Counter[int] = Counter()
        self.failed_by_kind: Counter[int] = Counter()
        self.first_error: str | None = None
        self.fatal: str | None = None
        self._bootstrap_servers = bootstrap_servers
        self._topic = {kind: labels_topic if kind == Kind.LABEL else transactions_topic for kind in map(int, Kind)}
        self._on_failure = {kind: self._failure_counter(kind) for kind in map(int, Kind)}
        self._last_client_error = ""
        try:
            self._producer = Producer(self._configuration(client_settings or {}), logger=_silent_logger())
        except (KafkaException, ValueError, TypeError) as problem:
            raise UsageError(f"Kafka client settings: {_words(problem)}") from problem

    @property
    def failed(self) -> int:
        """Records refused so far."""
        return self.failed_by_kind.total()

    @property
    def unacknowledged(self) -> int:
        """Records on their way."""
        return len(self._producer)

    def check(self, *, labels: bool, timeout_s: float = 10.0) -> None:
        """Make sure that the broker answers and has the topics.

        Raises
        ------
        UsageError
            It does not answer within `timeout_s`, or a topic is missing (creating it here would fix its number of
            partitions by accident).
        """
        try:
            topics = self._producer.list_topics(timeout=timeout_s).topics
        except KafkaException as problem:
            self._producer.poll(0)  # serves the callback that knows more than "timed out"
            detail = self._last_client_error or _words(problem)
            raise UsageError(f"no Kafka broker answers at {self._bootstrap_servers}: {detail}") from problem
        wanted = {name for kind, name in self._topic.items() if labels or kind != Kind.LABEL}
        missing = sorted(wanted - set(topics))
        if missing:
            names = " and ".join(missing)
            raise UsageError(f"topic {names} does not exist at {self._bootstrap_servers}; create it first")

    def send(self, batch: Batch, first: int, last: int, stopped: Callable[[], bool]) -> int:
        """Hand over the records [first, last); waits while the queue is full. Returns the index after the last one.

        Less than `last` are handed over only after `stopped` said so, or after a fatal error.
        """
        produce, topic, on_failure = self._producer.produce, self._topic, self._on_failure
        part = slice(first, last)
        place = first
        for kind, key, value, timestamp_ms in zip(
            batch.kind[part], batch.key[part], batch.value[part], batch.timestamp_ms[part], strict=True
        ):
            while True:
                try:
                    produce(topic[kind], value, key, on_delivery=on_failure[kind], timestamp=timestamp_ms)
                    break
                except BufferError:
                    if stopped():
                        self.submitted.update(batch.kind[first:place])
                        return place
                    self._producer.poll(_ROOM_POLL_S)
                except KafkaException as problem:
                    self._count_failure(kind, _words(problem))
                    break
            place += 1
            if self.fatal:
                break
        self.submitted.update(batch.kind[first:place])
        self._producer.poll(0)
        return place

    def poll(self) -> None:
        """Let delivery reports in."""
        self._producer.poll(0)

    def flush(self, timeout_s: float = DELIVERY_TIMEOUT_S + 5) -> None:
        """Wait until every record is acknowledged or refused; what is left after `timeout_s` counts as failed."""
        deadline = time.monotonic() + timeout_s
        while self._producer.flush(max(0.0, min(1.0, deadline - time.monotonic()))) and time.monotonic() < deadline:
            pass
        if len(self._producer):
            self._producer.purge()
            self._producer.flush(1.0)  # serves the reports of the purged records

    def delivered(self, kind: Kind) -> int:
        """Records of that kind which the broker has; exact after `flush`."""
        return self.submitted[kind] - self.failed_by_kind[kind]

    def _configuration(self, client_settings: Mapping[str, str]) -> dict[str, object]:
        return {
            "linger.ms": _LINGER_MS,
            "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            "queue.buffering.max.messages": _QUEUE_RECORDS_MAX,
            "queue.buffering.max.kbytes": _QUEUE_KIB_MAX,
            "client.id": "fraudstream-producers",
            **client_settings,
            # Not for the caller to change: a card's order and the count of records stand on them.
            "bootstrap.servers": self._bootstrap_servers,
            "partitioner": "murmur2_random",
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "delivery.report.only.error": True,
            "error_cb": self._on_client_error,
        }

    def _failure_counter(self, kind: int) -> Callable[[KafkaError | None, Message], None]:
        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self._count_failure(kind, error.str())

        return on_delivery

    def _count_failure(self, kind: int, words: str) -> None:
        self.failed_by_kind[kind] += 1
        self.first_error = self.first_error or words

    def _on_client_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = error.str()
        # "All brokers are down" follows the error that says why; the reason is the better line.
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self._last_client_error:
            self._last_client_error = error.str()


def _words(problem: Exception) -> str:
    """What a client exception says, without the wrapper."""
    first = problem.args[0] if problem.args else problem
    return first.str() if isinstance(first, KafkaError) else str(first)


def _silent_logger() -> logging.Logger:
    """The client's own log lines would tear the progress bar; what matters comes through callbacks."""
    logger = logging.getLogger("fraudstream_producers.kafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger

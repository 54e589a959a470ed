"""Publishing by confluent-kafka: acknowledged by all in-sync replicas, without duplicates of its own."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fraudstream.core.ports import Outgoing
from fraudstream.errors import BrokerUnavailable

log = logging.getLogger("fraudstream.kafka")

# Kafka's own partitioner, so that a card's records lie in one partition whoever produced them.
PARTITIONER: Final = "murmur2_random"
# The topic decides what is too large, not this client: the highest value that librdkafka takes.
MESSAGE_BYTES_MAX: Final = 1_000_000_000
# Waiting is done in steps of this length, so that a worker that is told to stop need not wait out a broker that is away.
WAIT_STEP_S: Final = 0.25
# How long a batch in work may still wait for its acknowledgements once the worker is told to stop.
STOP_S_MAX: Final = 5.0


class KafkaPublisher:
    """Publishes batches and waits for their acknowledgements. Not thread-safe.

    `timeout_s` bounds one batch: librdkafka retries inside it. After a fatal error of the idempotent producer (the
    broker no longer knows its numbering) a new producer is made; the batch is published again by the caller. A record
    that its topic refuses as too large is replaced by its `smaller` form. Once `stopping()` holds, a batch is given up
    after `STOP_S_MAX`.
    """

    def __init__(
        self, connection: Mapping[str, Any], *, timeout_s: float = 30.0, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.stopping = stopping
        self._timeout_s = timeout_s
        self._config = {
            **connection,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "compression.type": "lz4",
            "message.max.bytes": MESSAGE_BYTES_MAX,
            "delivery.timeout.ms": int(timeout_s * 1000),
            # Every batch is flushed, which overrides the linger; this only lets a batch fill while it is being queued.
            "linger.ms": 5,
            # Success needs no callback per record: an empty queue without an error is success.
            "delivery.report.only.error": True,
            "queue.buffering.max.messages": 1_000_000,
            "on_delivery": self._failed,
            # librdkafka would log every attempt to connect, while it is idle into a queue: what matters comes as an error.
            "log_level": 0,
            "error_cb": self._trouble,
        }
        self._errors: list[str] = []
        self._last_trouble = ""
        self._too_large: set[tuple[str, bytes | None]] = set()
        self._producer: Producer | None = None

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish all. Raises `BrokerUnavailable` unless every record is acknowledged; publish the same again then."""
        for message in self._send(messages):
            # The batch that it was sent in may be what is too large.
            if self._send([message]):
                self._send_smaller(message)

    def close(self) -> None:
        """Wait for what is still under way."""
        if self._producer is not None:
            self._producer.flush(self._timeout_s)
            self._producer = None

    def _send_smaller(self, message: Outgoing) -> None:
        size = len(message.value or b"")
        if message.smaller is None or self._send([message.smaller]):
            raise BrokerUnavailable(
                f"{message.topic} refuses a record of {size:,} bytes as too large: raise its max.message.bytes"
            )
        log.warning("%s refused a record of %d bytes as too large: it was cut", message.topic, size)

    def _send(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """Publish and wait; those that were too large. Raises `BrokerUnavailable`."""
        try:
            producer = self._producer = self._producer or Producer(self._config)
            self._errors.clear()
            self._last_trouble = ""
            self._too_large.clear()
            deadline = _Deadline(self._timeout_s, self.stopping)
            for message in messages:
                self._produce(producer, message, deadline)
            while (left := producer.flush(WAIT_STEP_S)) and not deadline.passed():
                pass
        except (KafkaException, BufferError) as error:
            self._discard()
            raise BrokerUnavailable(f"Kafka refused a record: {_reason(error)}") from error
        if left or self._errors:
            topics = ", ".join(sorted({message.topic for message in messages}))
            late = f"{left} of {len(messages)} records for {topics} after {deadline.waited_s:.0f} s"
            reason = "; ".join(filter(None, [self._errors[0] if self._errors else late, self._last_trouble]))
            self._discard()
            raise BrokerUnavailable(f"Kafka did not acknowledge: {reason}")
        if not self._too_large:
            return []
        return [message for message in messages if (message.topic, message.value) in self._too_large]

    def _produce(self, producer: Producer, message: Outgoing, deadline: "_Deadline") -> None:
        while True:
            try:
                producer.produce(message.topic, message.value, message.key, headers=list(message.headers or ()))
            except BufferError:  # the queue is full: push back until there is room
                if deadline.passed() or self._errors:
                    raise
                producer.flush(WAIT_STEP_S)
            else:
                return

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._too_large.add((str(message.topic()), message.value()))
        else:
            self._errors.append(f"{message.topic()}: {error.str()}")

    def _trouble(self, error: KafkaError) -> None:
        """Told about connections; librdkafka goes on trying."""
        self._last_trouble = str(error.str())

    def _discard(self) -> None:
        """Throw away what is queued: the caller publishes the whole batch again."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)
            self._producer = None


class _Deadline:
    def __init__(self, timeout_s: float, stopping: Callable[[], bool]) -> None:
        self._began_s = time.monotonic()
        self._ends_s = self._began_s + timeout_s
        self._stopping = stopping

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._began_s

    def passed(self) -> bool:
        if self._stopping():
            self._ends_s = min(self._ends_s, time.monotonic() + STOP_S_MAX)
            self._stopping = lambda: False  # told once
        return time.monotonic() > self._ends_s


def _reason(error: BaseException) -> str:
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return str(error.args[0].str())
    return str(error) or type(error).__name__

"""Publishing by confluent-kafka: acknowledged by all in-sync replicas, without duplicates of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fraudstream.core.ports import Outgoing
from fraudstream.errors import BrokerUnavailable

# Kafka's own partitioner, so that a card's records lie in one partition whoever produced them.
PARTITIONER = "murmur2_random"


class KafkaPublisher:
    """Publishes batches and waits for their acknowledgements.

    `timeout_s` bounds one batch: librdkafka retries inside it. After a fatal error of the idempotent producer (the
    broker no longer knows its numbering) a new producer is made; the batch is published again by the caller.
    """

    def __init__(self, connection: Mapping[str, Any], *, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        self._config = {
            **connection,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "compression.type": "lz4",
            "delivery.timeout.ms": int(timeout_s * 1000),
            # Every batch is flushed, which overrides the linger; this only lets a batch fill while it is being queued.
            "linger.ms": 5,
            # Success needs no callback per record: an empty queue without an error is success.
            "delivery.report.only.error": True,
            "queue.buffering.max.messages": 1_000_000,
            "on_delivery": self._failed,
            "log_level": 3,
        }
        self._errors: list[str] = []
        self._producer: Producer | None = None

    def publish(self, messages: Sequence[Outgoing]) -> None:
        producer = self._producer = self._producer or Producer(self._config)
        self._errors.clear()
        try:
            for message in messages:
                self._produce(producer, message)
            left = producer.flush(self._timeout_s)
        except (KafkaException, BufferError) as error:
            self._discard()
            raise BrokerUnavailable(f"Kafka refused a record: {_reason(error)}") from error
        if left or self._errors:
            reason = self._errors[0] if self._errors else f"{left} records unacknowledged after {self._timeout_s:g} s"
            self._discard()
            raise BrokerUnavailable(f"Kafka did not acknowledge: {reason}")

    def close(self) -> None:
        """Wait for what is still under way."""
        if self._producer is not None:
            self._producer.flush(self._timeout_s)
            self._producer = None

    def _produce(self, producer: Producer, message: Outgoing) -> None:
        while True:
            try:
                producer.produce(message.topic, message.value, message.key, headers=list(message.headers or ()))
            except BufferError:  # the queue is full: push back until there is room
                if producer.poll(self._timeout_s) == 0 and self._errors:
                    raise
            else:
                return

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._errors.append(f"{message.topic()}: {error.str()}")

    def _discard(self) -> None:
        """Throw away what is queued: the caller publishes the whole batch again."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)
            self._producer = None


def _reason(error: BaseException) -> str:
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return str(error.args[0].str())
    return str(error) or type(error).__name__

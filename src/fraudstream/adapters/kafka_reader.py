"""Reading a whole topic without a group: who reads keeps its own offsets."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraudstream.errors import BrokerUnavailable

RECORDS_AT_ONCE: Final = 2_000
ANSWER_S_MAX: Final = 10.0


class TopicReader:
    """Every partition of a topic, each from the offset that `offsets` names, or from the oldest record there is.

    Raises `BrokerUnavailable` if the broker does not answer. For one thread.
    """

    def __init__(self, connection: Mapping[str, Any], topic: str, offsets: Mapping[int, int]) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                **connection,
                "group.id": f"{topic}-reader",  # librdkafka wants one; nothing joins it, nothing is committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        self._at_end: set[int] = set()
        self._partitions: set[int] = set()
        try:
            self.look_for_partitions(offsets)
        except BrokerUnavailable:
            self._consumer.close()
            raise

    @property
    def caught_up(self) -> bool:
        """Whether the end of every partition was reached once."""
        return bool(self._partitions) and self._at_end >= self._partitions

    def look_for_partitions(self, offsets: Mapping[int, int]) -> None:
        """Read those partitions, too, that were added to the topic since."""
        try:
            found = self._consumer.list_topics(self._topic, timeout=ANSWER_S_MAX).topics[self._topic]
        except KafkaException as error:
            raise BrokerUnavailable(f"Kafka does not answer within {ANSWER_S_MAX:g} s: {error}") from error
        if found.error is not None:
            raise BrokerUnavailable(f"topic {self._topic} cannot be read: {found.error.str()}")
        added = set(found.partitions) - self._partitions
        if added:
            self._consumer.incremental_assign(
                [TopicPartition(self._topic, p, offsets.get(p, 0)) for p in sorted(added)]
            )
            self._partitions |= added

    def read(self, wait_s: float) -> Sequence[Message]:
        """The next records, of each partition in order; none if there are none within `wait_s`."""
        records = []
        try:
            messages = self._consumer.consume(RECORDS_AT_ONCE, wait_s)
        except KafkaException as error:
            raise BrokerUnavailable(f"topic {self._topic} cannot be read: {error}") from error
        for message in messages:
            trouble = message.error()
            if trouble is None:
                records.append(message)
            elif trouble.code() == KafkaError._PARTITION_EOF:
                partition = message.partition()
                assert partition is not None
                self._at_end.add(partition)
            elif not trouble.retriable():
                raise BrokerUnavailable(f"topic {self._topic} cannot be read: {trouble.str()}")
        return records

    def close(self) -> None:
        """Give the connection back."""
        self._consumer.close()

"""Reads the demo's topics from the outside, as any consumer would, and tells the tally."""

import json
import threading
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from fraudstream.codec import decode_example, decode_model_event, read_dead_letter
from fraudstream.demo.tally import Tally
from fraudstream.topics import TOPICS

MESSAGES_AT_ONCE: Final = 2_000
WAIT_S: Final = 0.1


class Watcher:
    """A thread that consumes the topics from their beginning (of the dead letters, those of transactions)."""

    def __init__(self, bootstrap_servers: str, tally: Tally) -> None:
        self._tell_of: dict[str, Callable[[bytes, int], None]] = {
            TOPICS.transactions: lambda value, at_ms: tally.saw_transaction(_transaction_id(value), at_ms),
            TOPICS.decisions: lambda value, at_ms: tally.saw_decision(json.loads(value), at_ms),
            TOPICS.alerts: lambda value, at_ms: tally.saw_alert(json.loads(value), at_ms),
            TOPICS.labels: lambda _, __: tally.saw_label(),
            TOPICS.examples: lambda value, _: tally.saw_example(decode_example(value)),
            TOPICS.model_events: lambda value, at_ms: tally.saw_model_event(decode_model_event(value), at_ms),
        }
        self._tally = tally
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "demo-watcher",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        topics = (*self._tell_of, TOPICS.transactions_dead_letter)
        known = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign([TopicPartition(t, p, 0) for t in topics for p in known[t].partitions])
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            messages = [m for m in self._consumer.consume(MESSAGES_AT_ONCE, WAIT_S) if m.error() is None]
            # Transactions first: an answer's latency needs the time its transaction was appended.
            for message in sorted(messages, key=lambda m: m.topic() != TOPICS.transactions):
                self._tell(message)

    def _tell(self, message: Message) -> None:
        topic = message.topic()
        if topic == TOPICS.transactions_dead_letter:
            letter = read_dead_letter(message.headers())  # type: ignore[arg-type] # confluent types header values loosely
            self._tally.saw_dead_letter(letter.reason if letter else "unknown")
        elif topic is not None:
            self._tell_of[topic](message.value() or b"", message.timestamp()[1])


def _transaction_id(value: bytes) -> str | None:
    try:
        name = json.loads(value)["transaction_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None

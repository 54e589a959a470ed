"""Reads the demo's topics from the outside, as any consumer would, and tells the tally."""

import json
import threading
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from fraudstream.codec import read_dead_letter
from fraudstream.demo.tally import Tally
from fraudstream.topics import TOPICS

MESSAGES_AT_ONCE: Final = 2_000
WAIT_S: Final = 0.1


class Watcher:
    """A thread that consumes `transactions`, `decisions`, `alerts` and the dead letters from their beginning."""

    def __init__(self, bootstrap_servers: str, tally: Tally) -> None:
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
        topics = (TOPICS.transactions, TOPICS.decisions, TOPICS.alerts, TOPICS.transactions_dead_letter)
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
        at_ms = message.timestamp()[1]
        topic, value = message.topic(), message.value() or b""
        if topic == TOPICS.transactions:
            self._tally.saw_transaction(_transaction_id(value), at_ms)
        elif topic == TOPICS.decisions:
            self._tally.saw_decision(json.loads(value), at_ms)
        elif topic == TOPICS.alerts:
            self._tally.saw_alert(json.loads(value), at_ms)
        else:
            letter = read_dead_letter(message.headers())  # type: ignore[arg-type] # confluent types header values loosely
            self._tally.saw_dead_letter(letter.reason if letter else "unknown")


def _transaction_id(value: bytes) -> str | None:
    try:
        name = json.loads(value)["transaction_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None

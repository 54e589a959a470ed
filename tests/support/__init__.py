"""What tests of several levels share: waiting for a condition, talking to Kafka, looking at processes."""

from tests.support.kafka import consume, create_topic, produce
from tests.support.processes import descendants, process_is_gone
from tests.support.waiting import wait_until

__all__ = ["consume", "create_topic", "descendants", "process_is_gone", "produce", "wait_until"]

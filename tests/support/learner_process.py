"""A process that only learns: the role's service on a real topic and a real Redis, without the group around it, so that
it can be killed and started again fifty times in a minute.
"""

from confluent_kafka import Consumer, TopicPartition

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.adapters.redis_learner import RedisLearnerStore
from fraudstream.models.learner import LearnerSettings
from fraudstream.services.learning import Learner
from fraudstream.services.scoring import Ending
from fraudstream.testing import EPOCH_MS, FakeRecord
from tests.support.examples import SUBJECT

SETTINGS = LearnerSettings(warm_up=500, learning_rate=0.003)
BATCH_RECORDS = 40  # small, so that a kill finds it at every step


def run(bootstrap_servers: str, topic: str, redis_url: str, prefix: str) -> None:
    """Learn until killed."""
    store = RedisLearnerStore(redis_url, prefix=prefix)
    learner = Learner(SUBJECT, SETTINGS, store, MemoryPublisher(), clock_ms=lambda: EPOCH_MS)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tests.learner",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, 0, learner.take())])
    while True:
        messages = [message for message in consumer.consume(BATCH_RECORDS, timeout=0.05) if message.error() is None]
        if not messages:
            continue
        records = [
            FakeRecord(topic, 0, message.offset() or 0, message.timestamp()[1], message.key(), message.value())
            for message in messages
        ]
        assert learner.process(records).ending is Ending.DONE

"""The learner and kill -9."""

import multiprocessing
import random
import time
import uuid

from tests.support.examples import SUBJECT, examples, records
from tests.support.kafka import produce
from tests.support.learner_process import SETTINGS, run
from tests.support.servers import Kafka

from fraudstream.adapters import kafka_admin
from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.adapters.memory_learner import MemoryLearnerStore
from fraudstream.adapters.redis_learner import RedisLearnerStore
from fraudstream.services.learning import Learner
from fraudstream.testing import EPOCH_MS

KILLS = 50
EXAMPLES = 20_000
REPEATED = 500
# Far more than a life needs; a learner that does not start must not hang the suite.
LIFE_S_MAX = 20.0


def test_killed_fifty_times_it_comes_to_the_same_weights_to_the_last_bit(kafka: Kafka, redis_url: str) -> None:
    """Kill -9 at 50 random moments, examples repeated on the topic: no bit of the state differs from a quiet run's."""
    rng = random.Random(20_180_701)
    told = list(examples(EXAMPLES))
    told[10_000:10_000] = [told[n] for n in sorted(rng.sample(range(10_000), REPEATED))]
    found = records(told, every_ms=0)
    topic, prefix = f"examples-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex[:8]
    kafka_admin.create({"bootstrap.servers": kafka.bootstrap_servers}, {topic: (1, {"retention.ms": "-1"})})
    produce(kafka.bootstrap_servers, topic, [(b"c", record.value or b"") for record in found], timestamp_ms=EPOCH_MS)

    store = RedisLearnerStore(redis_url, prefix=prefix)
    process = multiprocessing.get_context("forkserver")
    process.set_forkserver_preload(["tests.support.learner_process"])
    progress = []
    for _ in range(KILLS):
        before = store.take().watermark
        life = process.Process(target=run, args=(kafka.bootstrap_servers, topic, redis_url, prefix))
        life.start()
        # At times while it starts; mostly somewhere within the next few hundred examples, in the middle of anything.
        target = before + rng.randrange(350)
        _wait_for(store, target, rng.random() if rng.random() < 0.1 else LIFE_S_MAX)
        time.sleep(rng.random() * 0.005)
        life.kill()
        life.join()
        progress.append(store.take().watermark - before)
    assert store.take().watermark < len(found) - 1, "it was done before it was killed often enough"
    assert sum(step > 0 for step in progress) >= KILLS // 2

    last = process.Process(target=run, args=(kafka.bootstrap_servers, topic, redis_url, prefix))
    last.start()
    _wait_for(store, len(found) - 1, 60.0)
    last.kill()
    last.join()

    quiet = Learner(SUBJECT, SETTINGS, MemoryLearnerStore(), MemoryPublisher(), clock_ms=lambda: EPOCH_MS)
    quiet.take()
    quiet.process(found)
    found_parts, expected = store.take().parts, quiet.learner.dump()
    assert {name: found_parts[name] for name in expected} == expected
    assert quiet.learner.counts["learned"] == EXAMPLES
    assert quiet.learner.counts["repeated"] == REPEATED
    store.close()


def _wait_for(store: RedisLearnerStore, watermark: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and _watermark(store) < watermark:
        time.sleep(0.001)


def _watermark(store: RedisLearnerStore) -> int:
    found = store.read("", [])
    assert found is not None
    return int(found[0].partition(":")[2])

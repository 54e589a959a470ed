"""What the guarantees cost: the scorer's path with all of them, and with one after the other taken away.

    python benchmarks/bench_guarantees.py [--rounds 5] [--batch 1024]

Starts a Kafka broker and two Redis servers of its own, one with its append-only file, and takes seeded transactions of
5,000 cards and 10,000 terminals as JSON records through `fraudstream.services.scoring`. The ways take turns, block by block,
and every figure is a median, so that a busy machine blurs them alike. The model is a constant: a real one makes the share
of the guarantees smaller.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis
from bench_path import records
from bench_store import OneInAHundred, redis_cpu_s
from confluent_kafka import Producer

from fraudstream.adapters import kafka_admin
from fraudstream.adapters.kafka_publisher import KafkaPublisher
from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Commit, CommitStatus, Outgoing, Publisher
from fraudstream.embedded import start_kafka, start_redis
from fraudstream.services.scoring import Scorer
from fraudstream.topics import TOPICS

BLOCK_RECORDS = 10_240


class UncheckedStore(RedisStore):
    """Any worker may write any partition, from any offset on: two of them lose or double what they do at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        before, checks = self._scripts["commit"].split("local held = ", 1)
        after = checks.split("if applied ~= seen then return {'rewound'} end\n", 1)[1]
        self._scripts["commit"] = (before + after).replace("call('SET', KEYS[2], new)\n", "")


class ForgettingStore(RedisStore):
    """Decisions are not stored: a retry is decided anew, and a crash may answer differently the second time."""

    def commit(self, commit: Commit) -> CommitStatus:
        return super().commit(replace(commit, decisions=[]))


class CarelessStore(UncheckedStore, ForgettingStore):
    """Neither."""


class CarelessPublisher:
    """Hands records over and hopes: what the broker does not take is lost."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self._producer = Producer({**connection, "acks": "1", "compression.type": "lz4", "linger.ms": 5})

    def publish(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            self._producer.produce(message.topic, message.value, message.key)
        self._producer.poll(0)

    def close(self) -> None:
        self._producer.flush(30)


@dataclass
class Way:
    """One way to go, and what its blocks took."""

    name: str
    scorer: Scorer
    client: "redis.Redis"
    offset: int = 0
    wall_us: list[float] = field(default_factory=list)
    worker_us: list[float] = field(default_factory=list)
    redis_us: list[float] = field(default_factory=list)

    def block(self, todo: list[Any], batch: int, *, counts: bool) -> None:
        redis_before, cpu_before, began = redis_cpu_s(self.client), time.process_time(), time.perf_counter()
        for start in range(0, len(todo), batch):
            self.scorer.process(0, todo[start : start + batch])
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu_before
        redis_s = redis_cpu_s(self.client) - redis_before
        if counts:
            for values, seconds in ((self.wall_us, wall), (self.worker_us, cpu), (self.redis_us, redis_s)):
                values.append(1e6 * seconds / len(todo))


def ways(aof: str, no_aof: str, careful: Publisher, careless: Publisher, clock_ms: Callable[[], int]) -> list[Way]:
    features = FeatureSet.default()
    plans: list[tuple[str, str, type[RedisStore], Publisher]] = [
        ("all guarantees", aof, RedisStore, careful),
        ("no fence and watermark", aof, UncheckedStore, careful),
        ("no stored decisions", aof, ForgettingStore, careful),
        ("acknowledgements not awaited", aof, RedisStore, careless),
        ("Redis without its file", no_aof, RedisStore, careful),
        ("none of these", no_aof, CarelessStore, careless),
    ]
    made = []
    for number, (name, url, store, publisher) in enumerate(plans):
        settings = StoreSettings(prefix=f"w{number}")
        scorer = Scorer(features, OneInAHundred(features), store(url, features, settings), publisher, clock_ms=clock_ms)
        scorer.take(0)
        made.append(Way(name, scorer, redis.Redis.from_url(url)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--broker", choices=["apache", "tansu"], default="apache")
    parser.add_argument("--batch", type=int, default=1024)
    options = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(start_kafka(scratch / "kafka", prefer=options.broker))
        aof = stack.enter_context(start_redis(scratch / "aof", append_only=True))
        no_aof = stack.enter_context(start_redis(scratch / "memory"))
        connection = {"bootstrap.servers": broker.bootstrap_servers}
        careful, careless = KafkaPublisher(connection), CarelessPublisher(connection)
        stack.callback(careless.close)
        stack.callback(careful.close)
        kafka_admin.create(connection, dict.fromkeys((TOPICS.alerts, TOPICS.decisions), (4, {})))
        todo = records(BLOCK_RECORDS * (options.rounds + 1), 11, 0)
        now_ms = todo[-1].timestamp
        all_ways = ways(aof.url, no_aof.url, careful, careless, lambda: now_ms)
        for turn in range(options.rounds + 1):
            part = todo[turn * BLOCK_RECORDS : (turn + 1) * BLOCK_RECORDS]
            for way in all_ways[turn % len(all_ways) :] + all_ways[: turn % len(all_ways)]:
                way.block(part, options.batch, counts=turn > 0)
        print(f"broker {broker.kind}, batches of {options.batch}, {options.rounds} blocks of {BLOCK_RECORDS:,} records")
        print(f"{'':30} {'records/s':>10} {'of all':>7} {'worker µs':>10} {'Redis µs':>9}")
        base = statistics.median(all_ways[0].wall_us)
        for way in all_ways:
            wall, worker, server = map(statistics.median, (way.wall_us, way.worker_us, way.redis_us))
            print(f"{way.name:30} {1e6 / wall:10,.0f} {base / wall:6.2f}x {worker:10.1f} {server:9.1f}")


if __name__ == "__main__":
    main()

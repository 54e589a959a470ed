"""Each stage of a micro-batch alone: the scorer as the worker runs it, in this process, with a clock around its ports."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from fraudstream import settings
from fraudstream.adapters.kafka_publisher import KafkaPublisher
from fraudstream.benchmark.records import Records
from fraudstream.benchmark.system import System
from fraudstream.codec import Limits, decode_transaction
from fraudstream.events import Decision
from fraudstream.services import startup
from fraudstream.services.publishing import of_decisions
from fraudstream.services.scoring import Ending, Scorer
from fraudstream.topics import Topics

BATCHES: Final = (1, 64, 256, 1024)
# Records for each batch size; a lone record takes long, and few of them tell enough.
RECORDS_MAX: Final = 20_480
LONE_RECORDS_MAX: Final = 2_048
# One by one before any clock runs: the first publish connects and is given a producer's number, which takes a second,
# and a broker in Java answers hundreds more slowly than those after them.
WARM_UP_RECORDS: Final = 512
PORTS: Final = {
    "gather": "gather",
    "commit": "commit",
    "score": "model",
    "reasons": "model",
    "publish": "publish",
}


class Delivered(Struct, frozen=True):
    """A record as Kafka delivers it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Clock:
    """Adds up processor time and wall time by stage."""

    def __init__(self) -> None:
        self.cpu_ns: Counter[str] = Counter()
        self.wall_ns: Counter[str] = Counter()

    def call(self, stage: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        try:
            return work(*args, **kwargs)
        finally:
            self.cpu_ns[stage] += time.process_time_ns() - cpu
            self.wall_ns[stage] += time.perf_counter_ns() - wall


class Timed:
    """A part of the scorer with a clock around those of its methods that are stages."""

    def __init__(self, part: Any, clock: Clock) -> None:
        self._part, self._clock = part, clock
        self.decided: list[Decision] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        stage = PORTS.get(name)
        if stage is None:
            return value

        def timed(*args: Any, **kwargs: Any) -> Any:
            if stage == "commit":
                self.decided += args[0].decisions
            return self._clock.call(stage, value, *args, **kwargs)

        return timed


def measure(system: System, records: Records, counts: Mapping[int, int]) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds a transaction by batch size and stage: processor time of this process and of Redis, and wall time.

    `counts` says how many of the `records`, which are new to the system, go into batches of each size; those of
    `needed(counts)` are taken, the first of them to warm up. `features` is
    what is left of a batch when its other stages are taken away: windows, the matrix, the commit's content, the books.
    """
    config = settings.load(settings.overrides(system.env))
    features, model = startup.open_model(config)
    store = startup.open_store(config, features)
    publisher = KafkaPublisher(config.kafka.client(), timeout_s=config.kafka.publish_timeout_s)
    topics, found = Topics(**system.topics), {}
    try:
        warm_up = _delivered(records, 0, WARM_UP_RECORDS, topics.transactions, partition=999)
        scorer = Scorer(features, model, store, publisher, clock_ms=startup.now_ms, topics=topics)
        _process(scorer, Clock(), warm_up, 1)
        first = WARM_UP_RECORDS
        for number, (size, count) in enumerate(counts.items()):
            delivered = _delivered(records, first, count, topics.transactions, partition=1_000 + number)
            clock = Clock()
            timed_store = Timed(store, clock)
            parts: list[Any] = [Timed(model, clock), timed_store, Timed(publisher, clock)]
            scorer = Scorer(features, *parts, clock_ms=startup.now_ms, topics=topics)
            redis_before = system.servers.cpu_s()["redis"]
            _process(scorer, clock, delivered, size)
            clock.cpu_ns["redis"] = round(1e9 * (system.servers.cpu_s()["redis"] - redis_before))
            _alone(clock, delivered, timed_store.decided, topics)
            found[str(size)] = _told(clock, count)
            first += count
    finally:
        publisher.close()
        store.close()
    return found


def counts_for(transactions: int) -> dict[int, int]:
    """Records for each batch size, a quarter of a throughput run's at most.

    Examples
    --------
    >>> counts_for(2_000)
    {1: 125, 64: 448, 256: 256, 1024: 1024}
    """
    wanted = min(RECORDS_MAX, transactions // 4)
    return {
        size: min(LONE_RECORDS_MAX, transactions // 16) if size == 1 else max(size, wanted // size * size)
        for size in BATCHES
    }


def needed(counts: Mapping[int, int]) -> int:
    """How many records `measure` takes."""
    return WARM_UP_RECORDS + sum(counts.values())


def _process(scorer: Scorer, clock: Clock, delivered: Sequence[Delivered], size: int) -> None:
    partition = delivered[0].partition
    scorer.take(partition)
    for start in range(0, len(delivered), size):
        done = clock.call("batch", scorer.process, partition, delivered[start : start + size])
        if done.ending is not Ending.DONE:
            raise RuntimeError(f"a batch ended as {done.ending}")


def _alone(clock: Clock, delivered: Sequence[Delivered], decided: Sequence[Decision], topics: Topics) -> None:
    """Once more by themselves: the stages that have no port to put a clock around."""
    limits = Limits()
    clock.call("decode", lambda: [decode_transaction(record, limits) for record in delivered])
    clock.call("encode", of_decisions, decided, topics, with_decisions=True)


def _told(clock: Clock, count: int) -> dict[str, dict[str, float]]:
    found = {}
    for kind, spent in (("cpu_us", clock.cpu_ns), ("wall_us", clock.wall_ns)):
        stages = {stage: spent[stage] for stage in ("decode", "gather", "model", "commit", "encode", "publish")}
        stages["features"] = spent["batch"] - sum(stages.values())
        stages["batch"] = spent["batch"]
        stages["redis"] = spent["redis"]
        found[kind] = {stage: round(ns / 1000 / count, 2) for stage, ns in stages.items()}
    del found["wall_us"]["redis"]  # its time is in that of gather and commit
    return found


def _delivered(records: Records, first: int, count: int, topic: str, partition: int) -> list[Delivered]:
    part = slice(first, first + count)
    rows = zip(records.times_ms[part], records.keys[part], records.values[part], strict=True)
    return [Delivered(topic, partition, at, ms, key.encode(), value) for at, (ms, key, value) in enumerate(rows)]

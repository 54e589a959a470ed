"""The index of late labels: bytes a decision on disk, seconds to build it, look-ups per second.

    python benchmarks/bench_late_labels.py [--decisions 1000000] [--features 40] [--directory DIR] [--kafka 0]

Decisions of 180 days are written as records of the `decisions` topic, read and indexed by the worker's own code (JSON,
validation, packing, RocksDB), and looked up with a cache that holds a small part of them. Building is timed by the CPU of
this process, which includes RocksDB's threads. `--kafka N` also reads N of the records from a broker of its own.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from fraudstream.adapters import kafka_admin
from fraudstream.adapters.kafka_reader import TopicReader
from fraudstream.adapters.late_index import LateIndex
from fraudstream.codec import encode_decision
from fraudstream.core.features import DAY_MS
from fraudstream.embedded import start_kafka
from fraudstream.events import Decision
from fraudstream.services.late_labels import Indexer

DAYS = 180
BEGAN_MS = 1_530_403_200_000
TEMPLATES = 20_000
RECORDS_AT_ONCE = 2_000
LOOK_UPS = 50_000
LABELS_AT_ONCE = 100
ID, TIME = "tx-000000000000", "2018-07-01T00:00:12.345Z"


class Record:
    """A record as the client hands it out."""

    __slots__ = ("_offset", "_value")

    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value


def name(number: int) -> str:
    return f"tx-{number * 7_919 % 10**12:012d}"


def templates(features: int) -> list[tuple[bytes, bytes, bytes]]:
    """Decisions as JSON, cut at the id and at the event time. Features as they are: counts, means of amounts, zeros."""
    rng = np.random.default_rng(7)
    counts = rng.poisson(3, (TEMPLATES, features // 2))
    means = np.round(rng.lognormal(3, 1, (TEMPLATES, features - features // 2)), 2) / rng.integers(1, 9, (TEMPLATES, 1))
    matrix = np.concatenate([counts, means], axis=1).astype("<f4")
    found = []
    for number in range(TEMPLATES):
        decision = Decision(
            transaction_id=ID, card_id=f"card-{rng.integers(10**6):07d}", terminal_id=f"term-{rng.integers(10**5):06d}",
            event_time_ms=1_530_403_212_345, decided_at_ms=1_530_403_212_345 + int(rng.integers(3, 60)),
            amount=round(float(rng.lognormal(3, 1)), 2), action="allow", score=(score := float(rng.random() ** 4)), champion_score=score, threshold=0.5,
            model_name="fraud", model_version="2018-06-25.1", features_digest="5f" * 32,
            features=matrix[number].tobytes(), reasons=(), partition=3, offset=int(rng.integers(10**8)),
        )  # fmt: skip
        head, _, rest = encode_decision(decision).partition(ID.encode())
        middle, _, tail = rest.partition(TIME.encode())
        found.append((head, middle, tail))
    return found


class Made:
    """Stands in for the topic: makes records as fast as they are asked for; what that costs is not timed."""

    def __init__(self, count: int, features: int) -> None:
        self._count = count
        self._next = 0
        self._templates = templates(features)
        self.cpu_s = 0.0
        self.bytes = 0

    @property
    def caught_up(self) -> bool:
        return self._next >= self._count

    def read(self, _wait_s: float) -> list[Record]:
        began = time.process_time()
        records = [self._record(n) for n in range(self._next, min(self._next + RECORDS_AT_ONCE, self._count))]
        self._next += len(records)
        self.cpu_s += time.process_time() - began
        return records

    def look_for_partitions(self, _offsets: Mapping[int, int]) -> None:
        pass

    def close(self) -> None:
        pass

    def _record(self, number: int) -> Record:
        head, middle, tail = self._templates[number % TEMPLATES]
        at = np.datetime64(BEGAN_MS + number * DAYS * DAY_MS // self._count, "ms")
        value = head + name(number).encode() + middle + f"{at}Z".encode() + tail
        self.bytes += len(value)
        return Record(number, value)


def build(index: LateIndex, count: int, features: int) -> None:
    made = Made(count, features)
    indexer = Indexer(index, lambda _: made)
    before, wall = time.process_time(), time.perf_counter()
    while not made.caught_up:
        indexer.step(made)
    index.flush()
    cpu_s = time.process_time() - before - made.cpu_s
    wall_s = time.perf_counter() - wall - made.cpu_s
    print(f"{count:,} decisions of {features} features, {made.bytes / count:.0f} bytes of JSON each")
    print(
        f"built: {cpu_s / count * 1e6:.1f} µs of CPU a decision; {cpu_s:.0f} s of CPU, about {wall_s:.0f} s of wall time"
    )
    size = sum(file.stat().st_size for file in index.path.glob("*.sst"))
    print(f"on disk: {size / count:.0f} bytes a decision")


def look_up(index: LateIndex, count: int) -> None:
    rng = np.random.default_rng(8)
    for kind, numbers in (
        ("found", rng.integers(0, count, LOOK_UPS)),
        ("found again", rng.integers(0, max(1, count // 200), LOOK_UPS)),
        ("absent", rng.integers(count, 2 * count, LOOK_UPS)),
    ):
        names = [name(int(number)) for number in numbers]
        before = time.process_time()
        found = 0
        for start in range(0, LOOK_UPS, LABELS_AT_ONCE):
            found += sum(decision is not None for decision in index.find(names[start : start + LABELS_AT_ONCE]))
        spent_s = time.process_time() - before
        assert found == (0 if kind == "absent" else LOOK_UPS), found
        print(f"{kind:12} {LOOK_UPS / spent_s:9,.0f} look-ups/s of CPU time, {spent_s / LOOK_UPS * 1e6:.1f} µs each")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process {peak:,.0f} MB")


def from_kafka(count: int, features: int, directory: Path) -> None:
    with start_kafka(directory, prefer="apache") as server:
        connection = {"bootstrap.servers": server.bootstrap_servers}
        kafka_admin.create(connection, {"decisions": (4, {"retention.ms": "-1"})})
        producer = Producer(
            {**connection, "compression.type": "lz4", "linger.ms": 20, "queue.buffering.max.messages": 500_000}
        )
        made = Made(count, features)
        while not made.caught_up:
            for record in made.read(0):
                producer.produce("decisions", record.value(), partition=record.offset() % 4)
                producer.poll(0)
        producer.flush()
        index = LateIndex(directory / "index", "decisions", retention_ms=DAYS * DAY_MS)
        reader = TopicReader(connection, "decisions", index.offsets)
        indexer = Indexer(index, lambda _: reader)
        cpu, wall = time.process_time(), time.perf_counter()
        while not indexer.caught_up:
            indexer.step(reader)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert indexer.read == count, indexer.read
        print(f"from Kafka: {count:,} decisions in {wall:.1f} s, {cpu / count * 1e6:.1f} µs of CPU each")
        reader.close()
        index.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=40)
    parser.add_argument("--kafka", type=int, default=0)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args(arguments)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="bench-late-labels-"))
    try:
        index = LateIndex(directory / "made", "decisions", retention_ms=DAYS * DAY_MS)
        build(index, options.decisions, options.features)
        index.close()
        before = time.perf_counter()
        index = LateIndex(directory / "made", "decisions", retention_ms=DAYS * DAY_MS)
        print(f"opened in {time.perf_counter() - before:.2f} s")
        look_up(index, options.decisions)
        index.close()
        if options.kafka:
            from_kafka(options.kafka, options.features, directory)
    finally:
        if options.directory is None:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

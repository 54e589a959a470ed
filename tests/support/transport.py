"""Worker processes of the transport's tests, and what they told on stdout."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
START_S_MAX = 30


class Batch(NamedTuple):
    partition: int
    first: int
    last: int
    records: int
    age_ms: float


class TransportWorker:
    """One process of tests/support/transport_worker.py; killed on leaving, if it still runs."""

    def __init__(self, directory: Path, name: str, *arguments: object) -> None:
        self._stdout = directory / f"{name}.out"
        self._stderr = directory / f"{name}.err"
        command = [sys.executable, "-m", "tests.support.transport_worker", *map(str, arguments)]
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if exc is not None:
            exc.add_note(f"{self._stderr.name}:\n{self.errors()[-3000:]}")

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout_s: float = 20) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def lines(self, word: str) -> list[list[str]]:
        """The lines that begin with `word`, in words, without it; a line that a kill cut off does not count."""
        whole = self._stdout.read_text().rpartition("\n")[0]
        return [line.split(" ")[1:] for line in whole.splitlines() if line.startswith(f"{word} ")]

    def errors(self) -> str:
        return self._stderr.read_text()

    @property
    def batches(self) -> list[Batch]:
        return [
            Batch(int(partition), int(first), int(last), int(records), float(age_ms))
            for partition, first, last, records, age_ms in self.lines("batch")
        ]

    @property
    def acked(self) -> dict[int, int]:
        """Partition -> offset of the last record it acked."""
        return {int(partition): int(last) for partition, last in self.lines("acked")}

    def wait_for(self, word: str, count: int = 1, timeout_s: float = START_S_MAX) -> list[list[str]]:
        def told() -> list[list[str]]:
            lines = self.lines(word)
            assert len(lines) >= count or self.process.poll() is None, f"the worker ended with {self.process.poll()}"
            return lines if len(lines) >= count else []

        return wait_until(told, timeout_s, f"the worker said {word!r} {count} times")


def offsets(batches: Iterable[Batch]) -> dict[int, list[int]]:
    """Partition -> offsets in the order of delivery. The topics of these tests have no holes."""
    seen: dict[int, list[int]] = {}
    for batch in batches:
        assert batch.records == batch.last - batch.first + 1
        seen.setdefault(batch.partition, []).extend(range(batch.first, batch.last + 1))
    return seen


def committed(bootstrap_servers: str, topic: str, group: str, partitions: int) -> dict[int, int]:
    """Partition -> committed offset, without those that have none."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "log_level": 0})
    wanted = [TopicPartition(topic, partition) for partition in range(partitions)]

    def found() -> list[TopicPartition]:
        with contextlib.suppress(KafkaException):  # the coordinator is not ready
            return consumer.committed(wanted, timeout=5)
        return []

    try:
        return {each.partition: each.offset for each in wait_until(found, 15, "offsets") if each.offset >= 0}
    finally:
        consumer.close()


def keyed_records(count: int, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Records of about 230 bytes, each with a key of its own."""
    return ((b"card-%d" % number, b"%0220d" % number) for number in range(start, start + count))

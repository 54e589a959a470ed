"""Keeps the index of late labels current: reads the `decisions` topic into it, in a thread of its own.

The index knows how far it was built; whoever asks while it is behind is told to wait. Nothing here can lose a label: one
that waits is not acknowledged.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from fraudstream.adapters.kafka_reader import TopicReader
from fraudstream.codec import UnreadableDecision, decode_decision
from fraudstream.core.features import DAY_MS
from fraudstream.core.ports import DecisionIndex
from fraudstream.errors import BrokerUnavailable, SettingsError, StateUnavailable, StillBuilding
from fraudstream.events import Decision
from fraudstream.settings import Settings

log = logging.getLogger("fraudstream.late")

WAIT_S: Final = 1.0  # how long a read may find nothing; also how long an end is waited for
RETRY_S: Final = 5.0  # between attempts while Kafka is away or the disk is full
PARTITIONS_EVERY_S: Final = 60.0  # a topic grows rarely; a new partition's decisions are younger than Redis' retention
PROGRESS_EVERY: Final = 1_000_000  # decisions between two lines of the log while the index is built


class DecisionReader(Protocol):
    """The `decisions` topic, read from given offsets."""

    @property
    def caught_up(self) -> bool: ...
    def read(self, wait_s: float) -> Sequence[Any]: ...
    def look_for_partitions(self, offsets: Mapping[int, int]) -> None: ...
    def close(self) -> None: ...


class WritableIndex(DecisionIndex, Protocol):
    """An index that remembers, with what was added, where reading goes on."""

    @property
    def offsets(self) -> Mapping[int, int]: ...
    def add(self, decisions: Sequence[Decision], offsets: Mapping[int, int]) -> None: ...


class Indexer:
    """Builds and answers. `open_reader` is given the offsets to read from; `tell` what it waits for, None when it goes on."""

    def __init__(
        self,
        index: WritableIndex,
        open_reader: Callable[[Mapping[int, int]], DecisionReader],
        *,
        tell: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._index = index
        self._open_reader = open_reader
        self.tell = tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="late-labels", daemon=True)
        self.caught_up = False
        self.read = 0

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; returns when the last write has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def find(self, transaction_ids: Sequence[str]) -> Sequence[Decision | None]:
        """The decisions of transactions. Raises `StillBuilding` until the topic was read to its end once."""
        if not self.caught_up:
            raise StillBuilding(
                f"the index of late labels is being built, {self.read:,} decisions read since the start"
            )
        return self._index.find(transaction_ids)

    def step(self, reader: DecisionReader) -> int:
        """Read once and add what came; the number of records."""
        records = reader.read(WAIT_S)
        if records:
            before = dict(self._index.offsets)
            self._index.add(list(_read(records, before)), {r.partition(): r.offset() + 1 for r in records})
            if self.read // PROGRESS_EVERY != (self.read + len(records)) // PROGRESS_EVERY and not self.caught_up:
                log.info("late labels: %d decisions read", self.read + len(records))
            self.read += len(records)
        if reader.caught_up and not self.caught_up:
            log.info("late labels: the index is complete, %d decisions read since the start", self.read)
            self.caught_up = True
        return len(records)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read_on()
            except (BrokerUnavailable, StateUnavailable) as error:
                log.warning("late labels: %s", error)
                self.tell(str(error))
                self._stopping.wait(RETRY_S)
            except Exception:
                # A fault of ours: labels that need the index wait, and so does what follows them in their partition. "There
                # is none" would no longer be an answer: what is decided from now on is missing.
                self.caught_up = False
                log.exception("late labels: the index is no longer kept")
                self.tell("the index of late labels is no longer kept: see the log")
                return

    def _read_on(self) -> None:
        reader = self._open_reader(self._index.offsets)
        idle_s = 0.0
        try:
            while not self._stopping.is_set():
                idle_s = 0.0 if self.step(reader) else idle_s + WAIT_S
                self.tell(None)
                if idle_s >= PARTITIONS_EVERY_S:
                    reader.look_for_partitions(self._index.offsets)
                    idle_s = 0.0
        finally:
            reader.close()


def _read(records: Iterable[Any], expected: dict[int, int]) -> Iterable[Decision]:
    """What can be read and is final. What cannot be read, and what was deleted before it was read, is said."""
    for record in records:
        partition, offset = record.partition(), record.offset()
        if offset > expected.get(partition, offset):
            log.error(
                "late labels: %d decisions of partition %d were deleted before they were read; labels of theirs that come "
                "late find nothing", offset - expected[partition], partition,
            )  # fmt: skip
        expected[partition] = offset + 1
        try:
            decision = decode_decision(record.value())
            if not decision.degraded:  # a provisional one: its features know nothing, and the final one follows
                yield decision
        except UnreadableDecision as error:
            log.error("late labels: partition %d offset %d holds no decision: %s", partition, offset, error)  # noqa: TRY400 - one line says it


class LateLabels(NamedTuple):
    """The index of a worker and what keeps it."""

    indexer: Indexer
    index: Any

    def close(self) -> None:
        """Stop reading, then close the index."""
        self.indexer.stop()
        self.index.close()


def open_late_labels(settings: Settings) -> LateLabels | None:
    """The index the settings name, and what will build it; None without one. Raises `SettingsError`."""
    late = settings.late_labels
    if late.path is None or "label" not in settings.roles:
        return None
    if not settings.publish_decisions:
        raise SettingsError(
            "FRAUDSTREAM_LATE_LABELS__PATH is set, but FRAUDSTREAM_PUBLISH_DECISIONS is off: the index is built from the "
            "decisions topic"
        )
    if late.retention_days <= settings.redis.decision_retention_days:
        raise SettingsError(
            f"FRAUDSTREAM_LATE_LABELS__RETENTION_DAYS is {late.retention_days}, no longer than "
            f"FRAUDSTREAM_REDIS__DECISION_RETENTION_DAYS ({settings.redis.decision_retention_days}): it would find nothing"
        )
    try:
        from fraudstream.adapters.late_index import LateIndex  # noqa: PLC0415 - needs an extra that few install
    except ImportError as error:
        raise SettingsError(
            "FRAUDSTREAM_LATE_LABELS__PATH is set, which needs rocksdict: pip install 'fraudstream[late-labels]'"
        ) from error
    topic = settings.topics.decisions
    index = LateIndex(late.path, topic, retention_ms=late.retention_days * DAY_MS)
    connection = settings.kafka.client()
    return LateLabels(Indexer(index, lambda offsets: TopicReader(connection, topic, offsets)), index)

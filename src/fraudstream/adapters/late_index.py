"""Decisions on disk, by transaction: what a label that comes months late is joined with, when Redis has dropped it.

One RocksDB database. A batch of decisions and the offsets they were read up to are written in one atomic batch, so that
after a crash reading goes on where the entries end. Decisions lie in generations by event time, a column family each:
retention drops a generation as a whole, without compaction and without a walk over its entries.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec
import rocksdict
from msgspec import Struct

from fraudstream.codec import ModelIdentity, pack_decision, unpack_decision
from fraudstream.core.features import DAY_MS
from fraudstream.errors import SettingsError, StateUnavailable
from fraudstream.events import Decision

# Retention is exceeded by a generation at most, and a look-up asks each of them: a twelfth is 15 of 180 days.
GENERATIONS: Final = 12
# Of the database as a whole. Without a bound each generation that is written to would keep a buffer of its own.
WRITE_BUFFER_BYTES: Final = 64 * 1024**2
# Filters and indexes of the tables live in it as well: at 1,000,000 decisions a day for 180 days they are 0.5 GB on disk.
CACHE_BYTES: Final = 64 * 1024**2
BLOOM_BITS: Final = 10  # 1 % of the absent are looked for in vain
LOGS_KEPT: Final = 3
_FAMILY: Final = "decisions-"


class _Meta(Struct, frozen=True):
    """What is written with every batch: where reading goes on, the newest event time, the models behind their numbers."""

    topic: str
    generation_ms: int
    offsets: dict[int, int]
    newest_ms: int
    models: list[ModelIdentity]


class LateIndex:
    """The decisions of one topic. `path` is a directory of its own; one process may have it open.

    `retention_ms` counts back from the newest event time that was read, so that a rebuild gives the same index whenever
    it is done. Raises `SettingsError` if the directory cannot be used.
    """

    def __init__(self, path: Path, topic: str, *, retention_ms: int) -> None:
        self.path = path
        self._retention_ms = retention_ms
        self._cache = rocksdict.Cache(CACHE_BYTES)
        self._generations: dict[int, Any] = {}
        self._handles: dict[int, Any] = {}
        self._closed = False
        self._lock = Lock()  # over the list of generations; RocksDB itself is read and written from several threads
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
            packed = self._db.get(b"meta")
            generation_ms = max(retention_ms // GENERATIONS, DAY_MS)
            fresh = _Meta(topic, generation_ms, {}, 0, [])
            self._meta = msgspec.msgpack.decode(packed, type=_Meta) if packed else fresh
        except Exception as error:  # rocksdict raises plain exceptions
            raise SettingsError(_told(path, error)) from error
        if self._meta.topic != topic:
            self.close()
            raise SettingsError(
                f"{path} holds the decisions of topic {self._meta.topic}, not of {topic}: name another directory"
            )
        self._generation_ms = self._meta.generation_ms  # another retention drops more or fewer of the same generations

    @property
    def offsets(self) -> Mapping[int, int]:
        """Where reading goes on, for each partition that was read."""
        return dict(self._meta.offsets)

    def add(self, decisions: Sequence[Decision], offsets: Mapping[int, int]) -> None:
        """Write decisions and where reading goes on, all or nothing; then drop what is beyond the retention.

        What was added before is only written again. Raises `StateUnavailable`.
        """
        models = {identity: ref for ref, identity in enumerate(self._meta.models)}
        newest_ms = max([self._meta.newest_ms, *(decision.event_time_ms for decision in decisions)])
        oldest = max(0, newest_ms - self._retention_ms) // self._generation_ms
        try:
            batch = rocksdict.WriteBatch(raw_mode=True)
            for decision in decisions:
                generation = decision.event_time_ms // self._generation_ms
                if generation < oldest:
                    continue
                identity = ModelIdentity(decision.model_name, decision.model_version, decision.features_digest)
                packed = pack_decision(decision, models.setdefault(identity, len(models)))
                batch.put(decision.transaction_id.encode(), packed, self._handle(generation))
            offsets = {**self._meta.offsets, **offsets}
            meta = _Meta(self._meta.topic, self._generation_ms, offsets, newest_ms, list(models))
            batch.put(b"meta", msgspec.msgpack.encode(meta))
            self._db.write(batch)
            self._meta = meta
            self._drop_before(oldest)
        except Exception as error:  # as above
            raise StateUnavailable(_told(self.path, error)) from error

    def find(self, transaction_ids: Sequence[str]) -> list[Decision | None]:
        """The decisions of transactions, the one of the earliest event time if there are two. Raises `StateUnavailable`."""
        found: dict[str, Decision] = {}
        with self._lock:
            generations = [self._generations[number] for number in sorted(self._generations)]
        models = self._meta.models
        try:
            for family in generations:
                missing = [name for name in transaction_ids if name not in found]
                if not missing:
                    break
                for name, packed in zip(missing, family.get([name.encode() for name in missing]), strict=True):
                    if packed is not None:
                        found[name] = unpack_decision(name, packed, models.__getitem__)
        except Exception as error:  # as above
            raise StateUnavailable(_told(self.path, error)) from error
        return [found.get(name) for name in transaction_ids]

    def flush(self) -> None:
        """Put what is buffered into tables, as RocksDB does by itself when a buffer is full."""
        with self._lock:
            for family in (self._db, *self._generations.values()):
                family.flush()

    def close(self) -> None:
        """Close; whatever was added is on disk. The lock on the directory goes with the last handle."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._handles.clear()
            for family in self._generations.values():
                family.close()
            self._generations.clear()
            self._db.close()

    def _open(self) -> Any:
        options = self._options()
        options.create_if_missing(True)
        families: list[str] = []
        if (self.path / "CURRENT").exists():
            families = [name for name in rocksdict.Rdict.list_cf(str(self.path)) if name.startswith(_FAMILY)]
        db = rocksdict.Rdict(str(self.path), options, {name: self._options() for name in families})
        for name in families:
            number = int(name.removeprefix(_FAMILY))
            self._generations[number] = db.get_column_family(name)
            self._handles[number] = db.get_column_family_handle(name)
        return db

    def _options(self) -> Any:
        options = rocksdict.Options(raw_mode=True)
        options.set_db_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES // 2)
        options.set_max_total_wal_size(2 * WRITE_BUFFER_BYTES)
        options.set_keep_log_file_num(LOGS_KEPT)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        tables = rocksdict.BlockBasedOptions()
        tables.set_bloom_filter(BLOOM_BITS, False)
        tables.set_block_cache(self._cache)
        # Filters and indexes in the cache, in parts: memory stays bounded however many decisions there are.
        tables.set_cache_index_and_filter_blocks(True)
        tables.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
        tables.set_partition_filters(True)
        options.set_block_based_table_factory(tables)
        return options

    def _handle(self, generation: int) -> Any:
        handle = self._handles.get(generation)
        if handle is None:
            name = f"{_FAMILY}{generation}"
            family = self._db.create_column_family(name, self._options())
            handle = self._handles[generation] = self._db.get_column_family_handle(name)
            with self._lock:
                self._generations[generation] = family
        return handle

    def _drop_before(self, oldest: int) -> None:
        for generation in [number for number in self._generations if number < oldest]:
            with self._lock:
                family = self._generations.pop(generation)
            del self._handles[generation]
            self._db.drop_column_family(f"{_FAMILY}{generation}")
            # A look-up may be reading it at this moment; its files go when that has ended.
            with suppress(Exception):
                family.close()


def _told(path: Path, error: Exception) -> str:
    if "lock" in str(error).lower():
        return f"the index of late labels in {path} is open in another process: give each worker a directory of its own"
    return f"the index of late labels in {path} cannot be used: {error}"

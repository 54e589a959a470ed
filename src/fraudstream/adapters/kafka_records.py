r"""Fetched bytes to records, whatever a record's headers are called.

Kafka takes any bytes as the name of a header; aiokafka decodes names as UTF-8 while it parses and raises where it cannot.
One such record would stop its partition for good: no restart gets past it. Here a batch of records that cannot be parsed
so is parsed again with the broken bytes of names written as escapes (`\xff`).
"""

from typing import Any

import aiokafka.consumer.fetcher as aiokafka_fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

# A record batch begins with its base offset (8 bytes) and the length of what follows those twelve (4).
_LENGTH_AT, _LENGTH_END = 8, 12


def install() -> None:
    """Have aiokafka's consumers in this process parse with `TolerantRecords`. It has no setting for it."""
    aiokafka_fetcher.MemoryRecords = TolerantRecords


class TolerantRecords:
    """aiokafka's `MemoryRecords`, as far as its fetcher uses it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records = MemoryRecords(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> "TolerantBatch":
        start = self._at
        length = int.from_bytes(self._data[start + _LENGTH_AT : start + _LENGTH_END], "big")
        self._at = start + _LENGTH_END + length
        return TolerantBatch(self._records.next_batch(), memoryview(self._data)[start : self._at])


class TolerantBatch:
    """One record batch: aiokafka's own, with a second way to read its records."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:  # the fetcher reads a control batch's only record so
        return next(self._batch)

    def __iter__(self) -> Any:
        try:
            return iter(list(self._batch))
        except (UnicodeDecodeError, CorruptRecordException):
            # The pure Python parser reports the same fault as a corrupt record; one that is corrupt raises again here.
            again = _DefaultRecordBatchPy(self._data)
            again._maybe_uncompress()
            again._buffer = _Buffer(again._buffer)
            return iter(list(_records(again)))


def _records(batch: Any) -> Any:
    while True:
        try:
            yield batch.__next__()
        except StopIteration:
            return


class _Buffer(bytearray):
    """A buffer whose slices decode without a fault: the parser decodes nothing but the names of headers."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Slice(found) if isinstance(at, slice) else found


class _Slice(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)

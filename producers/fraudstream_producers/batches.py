"""Plans to batches: the records themselves, encoded a slice at a time so that memory stays small."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from fraudstream_producers.contract import Encoder
from fraudstream_producers.interleave import Kind, Plan
from fraudstream_producers.malformed import spoil
from fraudstream_producers.world import Floats, Ints

# 4,096 records of some 200 bytes: small against the client's queue, large against the cost of a slice.
BATCH_RECORDS_MAX = 4_096
NOW_MS = 0  # the client's way to say "the time of sending"

Timestamps = Literal["event", "now"]


@dataclass(slots=True)
class Batch:
    """Records ready to send, as columns of equal length."""

    kind: list[int]
    key: list[bytes | None]
    value: list[bytes | None]
    timestamp_ms: list[int]
    time_ms: Ints  # event time of a transaction, label time of a label
    due_s: Floats | None  # seconds after the start; None: at once

    def __len__(self) -> int:
        return len(self.kind)


class Pace:
    """When each record is due: so many transactions a second, so many times real time, or at once (neither)."""

    def __init__(self, *, rate: float | None = None, speed: float | None = None) -> None:
        self._rate = rate
        self._speed = speed
        self._transactions = 0
        self._first_ms: int | None = None

    def due_s(self, plan: Plan) -> Floats | None:
        """Seconds after the start for each record, never decreasing. To be asked for each plan once, in order."""
        if not plan.paced or not len(plan):
            return None
        if self._rate is not None:
            number = self._transactions + np.cumsum(plan.kind == Kind.TRANSACTION)
            self._transactions = int(number[-1])
            by_count: Floats = np.maximum(number - 1, 0) / self._rate
            return by_count
        if self._speed is not None:
            if self._first_ms is None:
                self._first_ms = int(plan.time_ms[0])
            elapsed_ms = np.maximum.accumulate(np.maximum(plan.time_ms - self._first_ms, 0))
            by_time: Floats = elapsed_ms / (1000 * self._speed)
            return by_time
        return None


def batches(plans: Iterable[Plan], encoder: Encoder, pace: Pace, timestamps: Timestamps = "event") -> Iterator[Batch]:
    """The records of all plans in order.

    With `timestamps="event"` a record's timestamp is its event (or label) time, but never later than now: brokers
    refuse records that claim to come from the future.
    """
    spoiled = 0
    for plan in plans:
        due_s = pace.due_s(plan)
        for first in range(0, len(plan), BATCH_RECORDS_MAX):
            part = slice(first, first + BATCH_RECORDS_MAX)
            kind, row, time_ms = plan.kind[part], plan.row[part], plan.time_ms[part]
            keys: list[bytes | None] = [None] * len(kind)
            values: list[bytes | None] = [None] * len(kind)
            from_transaction = np.flatnonzero(kind != Kind.LABEL)
            if len(from_transaction):
                encoded = encoder.transactions(_rows(plan.transactions, row[from_transaction]))
                _fill(keys, values, from_transaction, *encoded)
            label = np.flatnonzero(kind == Kind.LABEL)
            if len(label):
                _fill(keys, values, label, *encoder.labels(_rows(plan.labels, row[label])))
            for place in np.flatnonzero(kind == Kind.MALFORMED).tolist():
                keys[place], values[place] = spoil(spoiled, values[place] or b"")
                spoiled += 1
            yield Batch(
                kind=kind.tolist(),
                key=keys,
                value=values,
                timestamp_ms=_not_in_future(time_ms) if timestamps == "event" else [NOW_MS] * len(kind),
                time_ms=time_ms,
                due_s=None if due_s is None else due_s[part],
            )


def _not_in_future(time_ms: Ints) -> list[int]:
    stamps: list[int] = np.minimum(time_ms, int(time.time() * 1000)).tolist()
    return stamps


def _rows(table: pa.Table, row: Ints) -> pa.Table:
    """Those rows, as a view where they follow one another (a replay without labels or faults)."""
    if len(row) and row[-1] - row[0] == len(row) - 1 and (np.diff(row) == 1).all():
        return table.slice(int(row[0]), len(row))
    return table.take(pa.array(row))


def _fill(
    keys: list[bytes | None],
    values: list[bytes | None],
    places: Ints,
    new_keys: list[bytes | None],
    new_values: list[bytes],
) -> None:
    """Put keys and values at their places."""
    if len(places) == len(keys):
        keys[:], values[:] = new_keys, new_values
        return
    for place, key, value in zip(places.tolist(), new_keys, new_values, strict=True):
        keys[place], values[place] = key, value

"""Transactions and the labels that fall due between them, in event-time order, with faults sprinkled in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import numpy as np
import pyarrow as pa
from msgspec import Meta, Struct
from numpy.random import Generator
from numpy.typing import NDArray

from fraudstream_producers.columns import LABELS, epoch_ms
from fraudstream_producers.randomness import Stream, generator
from fraudstream_producers.world import Ints

Share = Annotated[float, Meta(ge=0, le=1)]
# A retry follows its original within this many transactions, as it does when a batch's acknowledgement is lost.
DUPLICATE_LAG_MAX = 20
EVER_MS = 2**62


class Kind(IntEnum):
    """What a record is, for counting."""

    TRANSACTION = 0
    LABEL = 1
    MALFORMED = 2
    DUPLICATE = 3


class Faults(Struct, frozen=True, kw_only=True):
    """Extra records: bad ones and repeated ones, each as a share of the good transactions."""

    malformed: Share = 0.0
    duplicates: Share = 0.0
    seed: int = 0


@dataclass(slots=True)
class Chunk:
    """A stretch of transactions in event-time order, and the labels that became known to the source with it."""

    transactions: pa.Table  # columns of columns.TRANSACTIONS, is_fraud optional, others allowed
    labels: pa.Table  # columns of columns.LABELS; label_time at any time, in any order
    until_ms: int  # no later chunk has an earlier event: labels up to here can go
    paced: bool = True  # False: as fast as possible, whatever the pace of the rest


@dataclass(slots=True)
class Plan:
    """The records of one chunk in the order of sending: `kind` and `row` (into its table) and `time_ms` of each."""

    transactions: pa.Table
    labels: pa.Table
    kind: NDArray[np.uint8]
    row: Ints  # a malformed record's or a duplicate's row is that of the transaction it is made from
    time_ms: Ints  # event time of a transaction (and what is made from it), label time of a label
    paced: bool

    def __len__(self) -> int:
        return len(self.kind)


def interleave(chunks: Iterable[Chunk], faults: Faults, *, drain: bool = False) -> Iterator[Plan]:
    """A plan per chunk. Labels wait until event time has reached them; at equal times the transaction goes first.

    What is still waiting at the end is dropped or, with `drain`, goes in a last plan of its own, unpaced.
    """
    waiting = LABELS.empty_table()
    for number, chunk in enumerate(chunks):
        waiting = pa.concat_tables([waiting, chunk.labels.select(LABELS.names)])
        due = epoch_ms(waiting["label_time"]) <= chunk.until_ms
        ready = waiting.filter(pa.array(due)).sort_by("label_time")
        waiting = waiting.filter(pa.array(~due)).combine_chunks()
        if len(ready) or len(chunk.transactions):
            yield _plan(chunk, ready, faults, generator(faults.seed, Stream.FAULTS, number))
    if drain and len(waiting):
        rest = Chunk(LABELS.empty_table(), LABELS.empty_table(), EVER_MS, paced=False)
        yield _plan(rest, waiting.sort_by("label_time"), Faults(), generator(0, Stream.FAULTS))


def _plan(chunk: Chunk, labels: pa.Table, faults: Faults, rng: Generator) -> Plan:
    count = len(chunk.transactions)
    event_ms = epoch_ms(chunk.transactions["event_time"]) if count else np.empty(0, np.int64)
    label_ms = epoch_ms(labels["label_time"])
    transactions = np.arange(count)
    bad = np.flatnonzero(rng.random(count) < faults.malformed)
    twice = np.flatnonzero(rng.random(count) < faults.duplicates)
    last = np.minimum(twice + rng.integers(1, DUPLICATE_LAG_MAX + 1, len(twice)), max(count - 1, 0))
    # The place of a record is that of the transaction it follows; ties are in the order of this list.
    place = np.concatenate([transactions, bad, last, np.searchsorted(event_ms, label_ms, "right") - 1])
    kind = np.repeat(
        np.array([Kind.TRANSACTION, Kind.MALFORMED, Kind.DUPLICATE, Kind.LABEL], np.uint8),
        [count, len(bad), len(twice), len(labels)],
    )
    row = np.concatenate([transactions, bad, twice, np.arange(len(labels))])
    order = np.argsort(place, kind="stable")
    time_ms = np.concatenate([event_ms, event_ms[bad], event_ms[twice], label_ms])
    return Plan(chunk.transactions, labels, kind[order], row[order], time_ms[order], chunk.paced)

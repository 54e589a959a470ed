"""What a commit counts for drift and data quality: bins of every feature and of the score, sums, first sights, rejects.

A *census* is the counts of one partition over one hour of event time, or over a run of 1,024 offsets: of hours the last
day is made, of runs the last N transactions. It lies in a row of its own that only the partition's worker writes, inside
the atomic commit; so each transaction is in it exactly once, and adding the censuses of all partitions adds up exactly.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudstream.core.windows import BoolArray, FloatArray, IntArray

# What rows of censuses are gathered under, beside the entities, and the score binned under, beside the features: neither
# can be called so.
CENSUS: Final = "#census"
SCORE: Final = "#score"
HOUR_MS: Final = 3_600_000
# A window of the last N transactions is exact to one run a partition; a batch, of at most 10,000 records, touches few.
RUN_OFFSETS: Final = 1024
# Scores are summed in millionths: whole numbers add up the same in any order.
SCORE_UNIT: Final = 1_000_000
# Transactions that are compared with all edges at once: a lone one takes 3 µs so instead of 17, but 256 take 80 instead of
# 44 (19 features, 9 edges).
_AT_ONCE_MAX: Final = 64
# How a census is stored: newest time and sums, then bins.
_HEAD: Final = np.dtype("<i8")
_BIN: Final = np.dtype("<u4")
# Counted of every stream; amounts in hundredths, scores in millionths, amounts times scores in hundredths.
SUMS: Final = (
    "transactions", "rejected", "alerts", "blocks",
    "score", "alert_score", "amount", "amount_score", "alert_amount", "alert_amount_score",
)  # fmt: skip
_REJECTED: Final = 1 + SUMS.index("rejected")


@dataclass(frozen=True)
class Seen:
    """`n` decided transactions of one batch, column by column, those of a partition in offset order.

    `scores` are what was decided with, `champion` what the champion alone said; `firsts` name the places of
    transactions with something to count beside: `new.<entity>` where a key came for the first time, `missing.<field>`.
    """

    partitions: IntArray
    offsets: IntArray
    times_ms: IntArray
    amounts_minor: IntArray
    matrix: npt.NDArray[np.float32]
    champion: FloatArray
    scores: FloatArray
    alerts: BoolArray
    blocks: BoolArray
    firsts: Mapping[str, Any]


@dataclass(frozen=True)
class Counts:
    """A census read: `newest_ms` is the newest event time in it (-1: none), `sums` by name, `bins` of each feature under its
    name, and of the score under `SCORE`.
    """

    newest_ms: int
    sums: Mapping[str, int]
    bins: Mapping[str, IntArray]

    @property
    def transactions(self) -> int:
        return self.sums["transactions"]


class Monitor:
    """What is counted against one reference: its bins, and the layout of a census.

    Parameters
    ----------
    edges
        Ascending inner edges of the bins of every feature, in matrix order; a value v is in bin i where
        `edges[i-1] < v <= edges[i]`. They are float32 values.
    score_edges
        The same for the champion's score.
    extras
        Names of the further counts (see `Seen.firsts`).
    ranges
        Smallest and largest value of features that are fields as sent: `outside.<feature>` counts what lies beyond them.

    Examples
    --------
    >>> monitor = Monitor({"amount": [10.0, 50.0]}, [0.1])
    >>> names = monitor.names(3, [2047, 2048], [HOUR_MS - 1, HOUR_MS])
    >>> [name.removeprefix(monitor.digest) for name in names]
    [':3:h0', ':3:h1', ':3:r1', ':3:r2']
    """

    def __init__(
        self,
        edges: Mapping[str, Sequence[float]],
        score_edges: Sequence[float],
        extras: Sequence[str] = (),
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.features = tuple(edges)
        self._extras = tuple(extras)
        bounds = ranges or {}
        self._ranges = [(self.features.index(name), low, high) for name, (low, high) in bounds.items()]
        self.sums = (*SUMS, *extras, *(f"outside.{name}" for name in bounds))
        sizes = [len(of) + 1 for of in edges.values()]
        self._starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        # Shorter lists are filled up with edges that no value passes, so that one comparison serves all features.
        self._edges = np.full((max(sizes, default=1) - 1, len(sizes)), np.inf, np.float32)
        for at, of in enumerate(edges.values()):
            self._edges[: len(of), at] = of
        self._score_edges = np.asarray(score_edges, np.float64)
        self._cells = int(self._starts[-1]) + len(score_edges) + 1
        told = json.dumps(
            [{name: list(of) for name, of in edges.items()}, list(score_edges), self.sums, RUN_OFFSETS, self._ranges]
        )
        self.digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        self._head = 8 * (1 + len(self.sums))
        self.row_bytes = self._head + 4 * self._cells
        """The size of every census."""

    def hour_name(self, partition: int, hour: int) -> str:
        """The census of an hour since 1970 in a partition."""
        return f"{self.digest}:{partition}:h{hour}"

    def run_name(self, partition: int, run: int) -> str:
        """The census of the offsets from `run * RUN_OFFSETS` on in a partition."""
        return f"{self.digest}:{partition}:r{run}"

    def names(self, partition: int, offsets: Iterable[int], times_ms: Iterable[int]) -> list[str]:
        """The censuses that records with these offsets are counted in, of which transactions have these event times."""
        hours = sorted({time_ms // HOUR_MS for time_ms in times_ms})
        runs = sorted({offset // RUN_OFFSETS for offset in offsets})
        return [self.hour_name(partition, hour) for hour in hours] + [self.run_name(partition, run) for run in runs]

    def count(
        self, rows: Mapping[str, bytes | None], seen: Seen, rejected: Mapping[int, Sequence[int]] | None = None
    ) -> list[tuple[str, bytes]]:
        """The censuses after a batch. `rows` are those before it, by name.

        `rejected` are offsets, by partition, of records that are no transactions: they have no event time and count in
        runs only.
        """
        cells, sums = self._bin(seen), self._sum(seen)
        counted: list[tuple[str, bytes]] = []
        rejected = rejected or {}
        present = set(seen.partitions.tolist())
        for partition in sorted(present | rejected.keys()):
            mine: Any = slice(None) if present == {partition} else seen.partitions == partition
            times_ms, own_cells, own_sums = seen.times_ms[mine], cells[mine], sums[:, mine]
            # Most batches lie in one hour and one run: then both censuses grow by the same.
            whole, newest_ms = self._delta(own_cells, own_sums), int(times_ms.max(initial=-1))
            rejects = Counter(offset // RUN_OFFSETS for offset in rejected.get(partition, ()))
            for of, of_rejected, name in (
                (times_ms // HOUR_MS, Counter[int](), self.hour_name),
                (seen.offsets[mine] // RUN_OFFSETS, rejects, self.run_name),
            ):
                numbers = set(of.tolist())
                for number in sorted(numbers | of_rejected.keys()):
                    delta, newest = whole, newest_ms
                    if numbers != {number}:
                        within = of == number
                        delta = self._delta(own_cells[within], own_sums[:, within])
                        newest = int(times_ms[within].max(initial=-1))
                    census = name(partition, number)
                    counted.append((census, self._added(rows.get(census), newest, *delta, of_rejected[number])))
        return counted

    def read(self, rows: Iterable[bytes | None]) -> Counts:
        """The sum of censuses; those that are not there count nothing."""
        newest_ms, sums, bins = -1, np.zeros(len(self.sums), np.int64), np.zeros(self._cells, np.int64)
        for row in rows:
            if row is not None and len(row) == self.row_bytes:
                head = np.frombuffer(row[: self._head], _HEAD)
                newest_ms = max(newest_ms, int(head[0]))
                sums += head[1:]
                bins += np.frombuffer(row[self._head :], _BIN)
        return self._counts(newest_ms, sums, bins)

    def _counts(self, newest_ms: int, sums: IntArray, bins: IntArray) -> Counts:
        starts = [*self._starts.tolist(), self._cells]
        named = {name: bins[starts[at] : starts[at + 1]] for at, name in enumerate((*self.features, SCORE))}
        return Counts(newest_ms, dict(zip(self.sums, sums.tolist(), strict=True)), named)

    def _bin(self, seen: Seen) -> IntArray:
        """The cells each transaction is counted in, (n, features + 1)."""
        if len(seen.matrix) <= _AT_ONCE_MAX:
            above = (seen.matrix[:, None, :] > self._edges).sum(axis=1, dtype=np.uint8)
        else:
            above = np.zeros(seen.matrix.shape, np.uint8)
            for edges in self._edges:
                above += seen.matrix > edges
        cells = np.empty((len(above), len(self.features) + 1), np.int64)
        np.add(above, self._starts[:-1], out=cells[:, :-1])
        cells[:, -1] = np.searchsorted(self._score_edges, seen.champion, side="left") + self._starts[-1]
        return cells

    def _sum(self, seen: Seen) -> IntArray:
        """What each transaction adds to every sum, (sums, n)."""
        found = np.zeros((len(self.sums), len(seen.offsets)), np.int64)
        score = np.rint(seen.scores * SCORE_UNIT).astype(np.int64)
        amount = seen.amounts_minor
        amount_score = np.rint(amount * seen.scores).astype(np.int64)
        alerts, blocks = seen.alerts, seen.blocks
        rows: tuple[Any, ...] = (1, 0, alerts, blocks, score, score * alerts, amount, amount_score,
                                 amount * alerts, amount_score * alerts)  # fmt: skip
        for at, row in enumerate(rows):
            found[at] = row
        for at, name in enumerate(self._extras, start=len(SUMS)):
            if len(first := seen.firsts.get(name, ())):
                found[at, first] = 1
        for at, (column, low, high) in enumerate(self._ranges, start=len(SUMS) + len(self._extras)):
            values = seen.matrix[:, column]
            found[at] = (values < low) | (values > high)
        return found

    def _delta(self, cells: IntArray, sums: IntArray) -> tuple[IntArray, IntArray]:
        return np.bincount(cells.ravel(), minlength=self._cells), sums.sum(axis=1)

    def _added(self, row: bytes | None, newest_ms: int, bins: IntArray, sums: IntArray, rejected: int) -> bytes:
        if row is None or len(row) != self.row_bytes:
            head, before = np.zeros(1 + len(self.sums), np.int64), np.zeros(self._cells, np.int64)
            head[0] = -1
        else:
            head, before = np.frombuffer(row[: self._head], _HEAD).copy(), np.frombuffer(row[self._head :], _BIN)
        head[0] = max(int(head[0]), newest_ms)
        head[1:] += sums
        head[_REJECTED] += rejected
        return head.astype(_HEAD, copy=False).tobytes() + (before + bins).astype(_BIN).tobytes()

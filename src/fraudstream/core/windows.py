"""Windows over a key's history, kept as rings of tiles: bounded memory, vectorised over all keys of a batch.

A *tile* is one hop of event time; tile number = event_time // hop. A *ring* holds the newest `tiles` tiles of one hop
and its head, the newest tile seen. A *row* is everything kept for one key: the time of its last transaction and its
rings. All numbers are integers (amounts in hundredths), so that sums neither drift nor depend on the order of adding.

A window of `length = k * hop` at a transaction in tile `t` covers the tiles `t-k+1 .. t`: the running tile and the
transaction itself included. A window with a delay (`d * hop`) covers the `k` complete tiles `t-d-k .. t-d-1`: nothing in
it is younger than the delay, hence every label that is at most that late is in it.

A transaction older than its ring (tile <= head - tiles) is decided with what the ring still holds and is not added.
The result of any sequence depends only on the set of transactions and their order per key, never on how the sequence
was cut into batches: `tests/property/test_windows.py` holds this against a brute-force count.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudstream.core.layout import COUNT, FRAUDS, MAXIMUM, SQUARES, SUM, Layout

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_INT64_MAX: Final = 2**63 - 1
# Columns whose additions do not depend on their order, not even at the largest number.
_SUMMABLE: Final = frozenset((COUNT, SUM, FRAUDS))
# In so small a batch it is looked for keys that all differ, as they nearly always do there.
_FEW: Final = 64


class States:
    """The rows of `n` keys, unpacked into native arrays (one per ring and column), ready to be advanced together."""

    def __init__(self, layout: Layout, size: int) -> None:
        self.layout = layout
        self.last_ms: IntArray = np.zeros(size, np.int64)
        self.heads: list[IntArray] = [np.zeros(size, np.int64) for _ in layout.rings]
        self.columns: list[dict[str, IntArray]] = [
            {column: np.zeros((size, ring.tiles), np.int64) for column in ring.columns} for ring in layout.rings
        ]

    def __len__(self) -> int:
        return len(self.last_ms)

    @classmethod
    def from_rows(cls, layout: Layout, rows: Sequence[bytes | None]) -> "States":
        """Unpack stored rows; `None` is a key without history.

        Raises `ValueError` if a row has another length than the layout: the feature list changed under the state.
        """
        blank = bytes(layout.row_bytes)
        filled = [blank if row is None else row for row in rows]
        if any(len(row) != layout.row_bytes for row in filled):
            raise ValueError(f"a stored row is not {layout.row_bytes} bytes long: it belongs to another feature list")
        joined = b"".join(filled)
        packed = np.frombuffer(joined, layout.dtype)
        states = cls.__new__(cls)
        states.layout = layout
        states.last_ms = packed["last_ms"].astype(np.int64) if layout.keeps_last else np.zeros(len(rows), np.int64)
        heads = packed["heads"].astype(np.int64).reshape(len(rows), len(layout.rings))
        states.heads = [np.ascontiguousarray(heads[:, number]) for number in range(len(layout.rings))]
        states.columns = [
            {column: packed[f"ring{number}"][column].astype(np.int64) for column in ring.columns}
            for number, ring in enumerate(layout.rings)
        ]
        return states

    def to_rows(self) -> list[bytes]:
        """The rows as they are stored; inverse of `from_rows`."""
        packed = np.zeros(len(self), self.layout.dtype)
        if self.layout.keeps_last:
            packed["last_ms"] = self.last_ms
        heads = packed["heads"].reshape(len(self), len(self.heads))
        for number, columns in enumerate(self.columns):
            heads[:, number] = self.heads[number]
            tiles = packed[f"ring{number}"]
            for column, values in columns.items():
                tiles[column] = values
        joined = packed.tobytes()
        size = self.layout.row_bytes
        return [joined[start : start + size] for start in range(0, len(joined), size)]

    def grow(self, size: int) -> None:
        """Make room for keys up to `size`; new ones are without history."""
        more = size - len(self)
        if more <= 0:
            return
        self.last_ms = np.concatenate([self.last_ms, np.zeros(more, np.int64)])
        self.heads = [np.concatenate([head, np.zeros(more, np.int64)]) for head in self.heads]
        for ring, columns in zip(self.layout.rings, self.columns, strict=True):
            for column, values in columns.items():
                columns[column] = np.concatenate([values, np.zeros((more, ring.tiles), np.int64)])


@dataclass(frozen=True)
class Observed:
    """What the windows of each transaction held, itself included unless they read `before`.

    `sums` is (reads, n) int64; `idle_ms` is (n,) the time since the key's newest transaction, -1 if there was none (or
    the layout does not keep it).
    """

    sums: IntArray
    idle_ms: IntArray


def observe(
    states: States, key: IntArray, times_ms: IntArray, amounts_minor: IntArray, frauds: IntArray | None = None
) -> Observed:
    """Add `n` transactions to their keys' rows, in order, and read each one's windows just after it was added.

    `key` (n,) indexes `states`; the same key may occur often: its transactions are taken in rounds, in order.
    `frauds` (n,) 0 or 1 adds known verdicts along with the transactions, as a replay of labelled history does: only
    windows with a delay may read them.
    """
    layout = states.layout
    observed = Observed(np.zeros((len(layout.reads), len(key)), np.int64), np.full(len(key), -1, np.int64))
    added: dict[str, IntArray | int] = {COUNT: 1, SUM: amounts_minor, FRAUDS: 0 if frauds is None else frauds}
    in_turn: Sequence[int] = range(len(layout.rings))
    # Where all keys differ, one round does it.
    turns: Iterable[slice | IntArray] = (slice(None),)
    if len(key) > _FEW or len(set(key.tolist())) < len(key):
        in_turn = [
            n for n in in_turn if not _observe_at_once(states, n, key, times_ms, added=added, sums=observed.sums)
        ]
        turns = _rounds(key) if in_turn or layout.keeps_last else ()
    for turn in turns:
        k, t = key[turn], times_ms[turn]
        if layout.keeps_last:
            last = states.last_ms[k]
            observed.idle_ms[turn] = np.where(last > 0, np.maximum(t - last, 0), -1)
            states.last_ms[k] = np.maximum(last, t)
        adding = {column: value if isinstance(value, int) else value[turn] for column, value in added.items()}
        for number in in_turn:
            tile = t // layout.rings[number].hop_ms
            at = _Visit.of(k, tile, _advance(states, number, k, tile))
            _read(states, number, at, observed.sums, turn, before=True)
            _add(states, number, at, adding)
            _read(states, number, at, observed.sums, turn, before=False)
    return observed


def _observe_at_once(
    states: States,
    number: int,
    key: IntArray,
    times_ms: IntArray,
    *,
    added: Mapping[str, "IntArray | int"],
    sums: IntArray,
) -> bool:
    """Observe all transactions of one ring together, if their order cannot matter; False, and nothing done, if it can.

    It cannot where no transaction reads a tile that one of the same batch adds to, as with windows that are days late,
    and no head that moves empties a tile that is read. A busy terminal then costs no rounds.
    """
    ring = states.layout.rings[number]
    reads = [read for read in states.layout.reads if read.ring == number]
    if not _SUMMABLE.issuperset(ring.columns) or not reads or not len(key):
        return False
    tile = times_ms // ring.hop_ms
    if int(tile.max()) - min(read.start for read in reads) >= int(tile.min()):
        return False
    distinct, place = np.unique(key, return_inverse=True)
    newest = np.full(len(distinct), np.iinfo(np.int64).min)
    np.maximum.at(newest, place, tile)
    head = np.maximum(states.heads[number][distinct], newest)[place]
    if bool((tile - max(read.stop for read in reads) < head - ring.tiles).any()):
        return False
    _advance(states, number, distinct, newest)
    at = _Visit.of(key, tile, head)
    _read(states, number, at, sums, slice(None), before=True)
    _read(states, number, at, sums, slice(None), before=False)
    flat = key * ring.tiles + tile % ring.tiles
    for column, cells in states.columns[number].items():
        value = added[column]
        if not isinstance(value, int) or value:
            np.add.at(cells.reshape(-1), flat, value)
    return True


def add_frauds(states: States, key: IntArray, times_ms: IntArray) -> None:
    """Add one fraud to each key at the time of its transaction, where the ring still holds that tile."""
    for turn in _rounds(key):
        k, t = key[turn], times_ms[turn]
        for number, ring in enumerate(states.layout.rings):
            if FRAUDS in ring.columns:
                tile = t // ring.hop_ms
                _add(states, number, _Visit.of(k, tile, _advance(states, number, k, tile)), {FRAUDS: 1})


@dataclass(frozen=True)
class _Visit:
    """Distinct keys, the tile of one transaction of each, and their rings' heads after they were advanced to it.

    `late` if one of the tiles lies before its head.
    """

    k: IntArray
    tile: IntArray
    head: IntArray
    late: bool

    @classmethod
    def of(cls, k: IntArray, tile: IntArray, head: IntArray) -> "_Visit":
        return cls(k, tile, head, bool((tile < head).any()))


def _rounds(key: IntArray) -> Iterator[slice | IntArray]:
    """Positions of the first occurrence of each key, then of the second, and so on."""
    n = len(key)
    if n == 0:
        return
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    if len(starts) == n:
        yield slice(None)
        return
    counts = np.diff(np.concatenate((starts, [n])))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.repeat(starts, counts)
    by_rank = np.argsort(rank, kind="stable")
    yield from np.split(by_rank, np.cumsum(np.bincount(rank))[:-1])


def _advance(states: States, number: int, k: IntArray, tile: IntArray) -> IntArray:
    """Move the heads of the keys `k` (distinct) up to `tile`, emptying the tiles that are entered; the heads."""
    tiles = states.layout.rings[number].tiles
    head = states.heads[number][k]
    (moved,) = (tile > head).nonzero()
    if len(moved) == 0:
        return head
    ahead, before, keys = tile[moved, None], head[moved, None], k[moved]
    # Slot s holds the newest tile <= head that is congruent to s; it is stale if that tile lies beyond the old head.
    holds = ahead - (ahead - np.arange(tiles)) % tiles
    stale_row, stale_slot = np.nonzero(holds > before)
    for values in states.columns[number].values():
        values[keys[stale_row], stale_slot] = 0
    states.heads[number][keys] = tile[moved]
    return np.maximum(head, tile)


def _add(states: States, number: int, at: _Visit, added: Mapping[str, "IntArray | int"]) -> None:
    tiles = states.layout.rings[number].tiles
    k, tile = at.k, at.tile
    held = tile > at.head - tiles if at.late else np.True_
    whole = not at.late or bool(held.all())
    rows, slots = (k, tile % tiles) if whole else (k[held], tile[held] % tiles)
    columns = states.columns[number]
    for column, cells in columns.items():
        if column in added:
            value = added[column]
            cells[rows, slots] += value if whole or isinstance(value, int) else value[held]
        elif SUM in added:
            amount = np.asarray(added[SUM]) if whole else np.asarray(added[SUM])[held]
            if column == SQUARES:
                total = cells[rows, slots] + amount * amount
                # Saturates as BITFIELD does in Redis; both terms are >= 0, so an overflow shows as a negative.
                cells[rows, slots] = np.where(total < 0, _INT64_MAX, total)
            elif column == MAXIMUM:
                cells[rows, slots] = np.maximum(cells[rows, slots], amount)


def _read(states: States, number: int, visit: _Visit, out: IntArray, turn: slice | IntArray, *, before: bool) -> None:
    looks = states.layout.looks[number, before]
    if looks is None:
        return
    tiles = states.layout.rings[number].tiles
    # (tiles, n): sums over the first axis run along the transactions, several times faster than along a window's tiles.
    wanted = visit.tile - looks.back
    flat = wanted % tiles
    flat += visit.k * tiles
    gone = wanted <= visit.head - tiles if visit.late else None
    for column, windows in looks.windows:
        values = states.columns[number][column].reshape(-1).take(flat)
        if gone is not None:
            values[gone] = 0
        total = _TOTALS.get(column, np.add.reduce)
        for at, part in windows:
            out[at, turn] = total(values[part])


def _saturating_sum(window: IntArray) -> IntArray:
    """Column sums of non-negative numbers, at most 2**63 - 1: a thousand amounts of a million fill the squares."""
    high = (window >> 32).sum(axis=0) + ((window & 0xFFFF_FFFF).sum(axis=0) >> 32)
    return np.where(high >= 2**31, _INT64_MAX, window.sum(axis=0))


_TOTALS: Final[Mapping[str, Callable[[IntArray], IntArray]]] = {
    SQUARES: _saturating_sum,
    MAXIMUM: np.maximum.reduce,
}

"""How a key's history is laid out: rings of tiles, the windows that read them, and the bytes of a row.

`core/windows.py` says what rings, tiles and windows are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# Columns of a tile. Every one but the maximum is a sum, so that updates commute.
COUNT: Final = "count"
SUM: Final = "sum"  # of amount_minor
SQUARES: Final = "squares"  # of amount_minor
FRAUDS: Final = "frauds"
MAXIMUM: Final = "maximum"  # of amount_minor; read-modify-write, so only for keys that one partition owns

# Big-endian because Redis' BITFIELD, which increments tiles in place, is.
COLUMN_DTYPES: Final = {COUNT: ">u4", FRAUDS: ">u4", SUM: ">i8", SQUARES: ">i8", MAXIMUM: ">i8"}

# Largest row a feature list may ask for, in bytes: at a million cards and a million terminals this is 8 GB of Redis.
ROW_BYTES_MAX: Final = 4096


@dataclass(frozen=True)
class Ring:
    """Tiles of one hop. `columns` in storage order."""

    hop_ms: int
    tiles: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """One window of one column: the tiles `start .. stop-1` back from the transaction's own (0 = the running tile).

    `before` reads it just before the transaction is added: what the key was used to without it.
    """

    ring: int
    column: str
    start: int
    stop: int
    before: bool = False


@dataclass(frozen=True)
class Looks:
    """The reads of one ring before a transaction is added, or after: all tiles they cover are gathered in one step.

    `back` (tiles, 1) says how far back each gathered tile lies; `windows` are, by column, the reads' numbers and their
    slices of the gathered.
    """

    back: npt.NDArray[np.int64]
    windows: tuple[tuple[str, tuple[tuple[int, slice], ...]], ...]

    @classmethod
    def of(cls, reads: Sequence[Read], ring: int, before: int) -> "Looks | None":
        wanted = [(at, read) for at, read in enumerate(reads) if (read.ring, read.before) == (ring, before)]
        if not wanted:
            return None
        first = min(read.start for _, read in wanted)
        windows: dict[str, list[tuple[int, slice]]] = {}
        for at, read in wanted:
            windows.setdefault(read.column, []).append((at, slice(read.start - first, read.stop - first)))
        back = np.arange(first, max(read.stop for _, read in wanted))[:, None]
        return cls(back, tuple((column, tuple(slices)) for column, slices in windows.items()))


class Layout:
    """What is kept for one key of an entity, and how its row is laid out in bytes.

    Row: int64 last event time in ms (only if `keeps_last`), int64 head of each ring, then ring by ring its tiles, each
    tile with its columns side by side; all big-endian.

    Examples
    --------
    >>> layout = Layout((Ring(hop_ms=86_400_000, tiles=7, columns=("count", "sum")),), (Read(0, "count", 0, 7),))
    >>> layout.row_bytes
    92
    """

    def __init__(self, rings: Sequence[Ring], reads: Sequence[Read], *, keeps_last: bool = False) -> None:
        self.rings = tuple(rings)
        self.reads = tuple(reads)
        self.keeps_last = keeps_last
        self.tile_dtypes = [np.dtype([(column, COLUMN_DTYPES[column]) for column in r.columns]) for r in self.rings]
        last: list[tuple[Any, ...]] = [("last_ms", ">i8")] if keeps_last else []
        tiles = [(f"ring{i}", self.tile_dtypes[i], (ring.tiles,)) for i, ring in enumerate(self.rings)]
        self.dtype = np.dtype([*last, ("heads", ">i8", (len(self.rings),)), *tiles])
        self.row_bytes = int(self.dtype.itemsize)
        self.heads_offset = 8 * keeps_last
        self.heads_bytes = 8 * len(self.rings)
        self.tile_bytes = tuple(int(tile.itemsize) for tile in self.tile_dtypes)
        sizes = [ring.tiles * size for ring, size in zip(self.rings, self.tile_bytes, strict=True)]
        self._ring_offsets = tuple(accumulate(sizes, initial=self.heads_offset + self.heads_bytes))
        self.codes = tuple(self._codes(number) for number in range(len(self.rings)))
        numbers = range(len(self.rings))
        self.looks = {(number, before): Looks.of(self.reads, number, before) for number in numbers for before in (0, 1)}

    def tile_offset(self, ring: int, slot: int) -> int:
        """Byte offset in the row of a ring's tile in `slot` (= tile number mod tiles)."""
        return self._ring_offsets[ring] + slot * self.tile_bytes[ring]

    def _codes(self, ring: int) -> tuple[tuple[str, int, int], ...]:
        """Each column's code of its cell in slot 0, and the step to the next slot: twice the bits before it, + 1 if of 64."""
        first, step = 16 * self.tile_offset(ring, 0), 16 * self.tile_bytes[ring]
        sizes = [np.dtype(COLUMN_DTYPES[column]).itemsize for column in self.rings[ring].columns]
        begins = accumulate(sizes, initial=0)
        return tuple(
            (column, first + 16 * begin + (size == 8), step)
            for column, begin, size in zip(self.rings[ring].columns, begins, sizes, strict=False)
        )

    @staticmethod
    def bytes_needed(rings: Sequence[Ring], *, keeps_last: bool) -> int:
        """The row's length, told without laying it out: a declaration may ask for billions of tiles."""
        tiles = sum(r.tiles * sum(np.dtype(COLUMN_DTYPES[column]).itemsize for column in r.columns) for r in rings)
        return 8 * keeps_last + 8 * len(rings) + tiles

    def describe(self) -> list[tuple[int, int, tuple[str, ...]]]:
        """What decides the bytes of a row."""
        return [(ring.hop_ms, ring.tiles, ring.columns) for ring in self.rings]

    @property
    def horizon_ms(self) -> int:
        """How far back the longest ring reaches: a key idle for longer holds nothing a window could see."""
        return max((ring.hop_ms * ring.tiles for ring in self.rings), default=0)

"""What a batch changes in the state of shared keys, as increments that commute.

A terminal is written by every worker at once. So a worker never writes a terminal's row: it sends the additions to
single tiles. They hold under one condition, that the row's ring heads are still those the worker has seen, or already
those that it leaves: a moved head gives slots to other tiles. Where it has seen no row there must be none, as who makes
a row counts its key as new. The store checks it and refuses the commit otherwise, and the worker gathers again. Heads
move once a hop, additions come with every transaction: refusals are rare.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Final

import numpy as np

from fraudstream.core.layout import COUNT, FRAUDS, SQUARES, SUM, Layout
from fraudstream.core.windows import IntArray, States

_INT64_MAX: Final = 2**63 - 1


@dataclass(frozen=True)
class SharedUpdate:
    """The additions to shared keys that are touched alike: most have one transaction in a batch, in the same tiles.

    `heads_seen` are the head bytes of the rows as gathered (empty: no row); `heads` the bytes they become, empty if they
    stay; `clears` the (offset, length) byte ranges of tiles that are entered anew; `adds` are (`u32`|`i64`, offset in
    bits, amount >= 0), saturating.
    """

    keys: tuple[str, ...]
    heads_seen: bytes
    heads: bytes
    clears: tuple[tuple[int, int], ...]
    adds: tuple[tuple[str, int, int], ...]


def heads_of(row: bytes | None, layout: Layout) -> bytes:
    """The heads of a stored row; empty where there is none."""
    return row[layout.heads_offset : layout.heads_offset + layout.heads_bytes] if row else b""


def heads_bytes(states: States) -> list[bytes]:
    """The heads of every key as they are stored."""
    heads = np.empty((len(states), len(states.heads)), ">i8")
    for number, of_ring in enumerate(states.heads):
        heads[:, number] = of_ring
    packed, size = heads.tobytes(), states.layout.heads_bytes
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def shared_updates(
    keys: Sequence[str],
    rows_seen: Sequence[bytes | None],
    after: States,
    key: IntArray,
    times_ms: IntArray,
    *,
    amounts_minor: IntArray | None,
    frauds: IntArray | None,
) -> list[SharedUpdate]:
    """The updates of `len(keys)` shared keys for `n` transactions (or, with `amounts_minor` None, for frauds alone).

    `after` holds the rows after the batch was observed; `key` (n,) says which key each transaction belongs to.
    """
    layout = after.layout
    cells_of = _cells_of_few if len(key) <= _FEW else _cells_of_many
    heads_after = heads_bytes(after)
    alike: dict[tuple[bytes, bytes, bytes], list[str]] = {}
    for k, cells in cells_of(after, key, times_ms, amounts_minor=amounts_minor, frauds=frauds):
        seen, heads = heads_of(rows_seen[k], layout), heads_after[k]
        if heads == seen:
            heads = b""
        if heads or cells:
            alike.setdefault((seen, heads, cells), []).append(keys[k])
    read_heads = struct.Struct(f">{len(layout.rings)}q").unpack
    updates = []
    for (seen, heads, changed), names in alike.items():
        clears = _clears(layout, read_heads(seen), read_heads(heads)) if heads and seen else ()
        adds = tuple((_KINDS[code & 1], code >> 1, amount) for code, amount in _CELL.iter_unpack(changed))
        updates.append(SharedUpdate(tuple(names), seen, heads, clears, adds))
    return updates


# How BITFIELD writes a cell: 4 bytes or 8. The lowest bit of a cell's code says which, the others where (in bits).
_KINDS: Final = ("u32", "i64")
# A cell's code and what is added to it.
_CELL: Final = struct.Struct("=qq")
# Up to so many transactions are added up one by one: a lone one takes 10 µs so instead of 57, 32 take 51
# instead of 63, and 64 would take 98 instead of 70 (the terminals of the default list).
_FEW: Final = 32


def _cells_of_few(
    after: States, key: IntArray, times_ms: IntArray, *, amounts_minor: IntArray | None, frauds: IntArray | None
) -> Iterator[tuple[int, bytes]]:
    """What `_cells_of_many` tells, without numpy, whose calls are most of the cost of a small batch."""
    layout, keys, times = after.layout, key.tolist(), times_ms.tolist()
    given: dict[str, list[int]] = {}
    if amounts_minor is not None:
        amounts = amounts_minor.tolist()
        given = {COUNT: [1] * len(keys), SUM: amounts, SQUARES: [amount * amount for amount in amounts]}
    if frauds is not None:
        given[FRAUDS] = frauds.tolist()
    cells: dict[int, dict[int, int]] = {k: {} for k in sorted(set(keys))}
    for number, ring in enumerate(layout.rings):
        heads = after.heads[number].tolist()
        columns = [(first, step, given[column]) for column, first, step in layout.codes[number] if column in given]
        for at, (k, time_ms) in enumerate(zip(keys, times, strict=True)):
            tile = time_ms // ring.hop_ms
            if tile <= heads[k] - ring.tiles:
                continue
            of_key, slot = cells[k], tile % ring.tiles
            for first, step, added in columns:
                if amount := added[at]:
                    code = first + step * slot
                    of_key[code] = min(of_key.get(code, 0) + amount, _INT64_MAX)
    for k, of_key in cells.items():
        yield k, b"".join(starmap(_CELL.pack, sorted(of_key.items())))


def _cells_of_many(
    after: States, key: IntArray, times_ms: IntArray, *, amounts_minor: IntArray | None, frauds: IntArray | None
) -> Iterator[tuple[int, bytes]]:
    """What is added to each cell of each key, summed: a terminal's thousand transactions are one addition.

    By key, ascending: the codes and amounts of its cells, packed one after the other.
    """
    layout = after.layout
    # Only keys that occur: one that was gathered for a duplicate must not get a row.
    touched, place = np.unique(key, return_inverse=True)
    width = 16 * layout.row_bytes  # above every code
    owners, amounts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, ring in enumerate(layout.rings):
        tile = times_ms // ring.hop_ms
        held = tile > after.heads[number][key] - ring.tiles
        slot = tile % ring.tiles
        for column, first, step in layout.codes[number]:
            amount = _amount(column, amounts_minor, frauds, len(key))
            wanted = np.flatnonzero(held & (amount != 0))
            owners.append(place[wanted] * width + first + step * slot[wanted])
            amounts.append(amount[wanted])
    owner, amount = np.concatenate(owners), np.concatenate(amounts)
    order = np.argsort(owner, kind="stable")
    owner, amount = owner[order], amount[order]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    total = _saturating_sums(amount, starts) if len(starts) else amount
    cell = owner[starts]
    ends = np.searchsorted(cell, width * np.arange(1, len(touched) + 1))
    packed = np.stack([cell % width, total], axis=1).tobytes()
    begin = 0
    for k, end in zip(touched.tolist(), (ends * _CELL.size).tolist(), strict=True):
        yield k, packed[begin:end]
        begin = end


def _saturating_sums(amounts: IntArray, starts: IntArray) -> IntArray:
    """Sums of the runs that begin at `starts` of amounts >= 0, at most 2**63 - 1."""
    sums: IntArray = np.add.reduceat(amounts, starts)
    if int(amounts.max()) < _INT64_MAX // len(amounts):
        return sums
    high = np.add.reduceat(amounts >> 32, starts) + (np.add.reduceat(amounts & 0xFFFF_FFFF, starts) >> 32)
    return np.where(high >= 2**31, _INT64_MAX, sums)


def _amount(column: str, amounts_minor: IntArray | None, frauds: IntArray | None, n: int) -> IntArray:
    zeros = np.zeros(n, np.int64)
    if column == FRAUDS:
        return zeros if frauds is None else frauds
    if amounts_minor is None:
        return zeros
    if column == COUNT:
        return zeros + 1
    return {SUM: amounts_minor, SQUARES: amounts_minor * amounts_minor}[column]


def _clears(layout: Layout, seen: Sequence[int], after: Sequence[int]) -> tuple[tuple[int, int], ...]:
    clears: list[tuple[int, int]] = []
    for number, before in enumerate(seen):
        tiles = layout.rings[number].tiles
        gap = min(after[number] - before, tiles)
        if gap <= 0:
            continue
        first = (before + 1) % tiles
        tile_bytes = layout.tile_bytes[number]
        until_end = min(gap, tiles - first)
        clears.append((layout.tile_offset(number, first), until_end * tile_bytes))
        if gap > until_end:
            clears.append((layout.tile_offset(number, 0), (gap - until_end) * tile_bytes))
    return tuple(clears)


def apply_update(row: bytes | None, layout: Layout, update: SharedUpdate) -> bytes | None:
    """A key's row after an update, as Redis' script leaves it; None if the heads are neither those that were seen nor those
    that the update leaves.
    """
    heads = heads_of(row, layout)
    there_already = update.heads_seen and heads and heads == update.heads
    if heads != update.heads_seen and not there_already:
        return None
    changed = bytearray(row or bytes(layout.row_bytes))
    if heads == update.heads_seen:
        for offset, length in update.clears:
            changed[offset : offset + length] = bytes(length)
        if update.heads:
            changed[layout.heads_offset : layout.heads_offset + layout.heads_bytes] = update.heads
    for kind, bits, amount in update.adds:
        size, signed = int(kind[1:]) // 8, kind[0] == "i"
        at = bits // 8
        limit = 2 ** (8 * size - signed) - 1
        total = min(int.from_bytes(changed[at : at + size], "big", signed=signed) + amount, limit)
        changed[at : at + size] = total.to_bytes(size, "big", signed=signed)
    return bytes(changed)

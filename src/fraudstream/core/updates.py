"""What a batch changes in the state of shared keys, as increments that commute.

A terminal is written by every worker at once. So a worker never writes a terminal's row: it sends the additions to
single tiles. They hold under one condition, that the row's ring heads are still those the worker has seen (a moved head
gives slots to other tiles); the store checks it and refuses the commit otherwise, and the worker gathers again. Heads
move once a hop, additions come with every transaction: refusals are rare.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fraudstream.core.windows import COLUMN_DTYPES, COUNT, FRAUDS, SQUARES, SUM, IntArray, Layout, States


@dataclass(frozen=True)
class SharedUpdate:
    """The additions to one shared key.

    `heads_seen` are the head bytes of the row as gathered (empty: no row); `heads` the bytes they become, empty if they
    stay; `clears` the (offset, length) byte ranges of tiles that are entered anew; `adds` are (`u32`|`i64`, offset in
    bits, amount >= 0), saturating.
    """

    key: str
    heads_seen: bytes
    heads: bytes
    clears: tuple[tuple[int, int], ...]
    adds: tuple[tuple[str, int, int], ...]


def heads_bytes(states: States) -> list[bytes]:
    """The heads of every key as they are stored."""
    packed = np.stack(states.heads, axis=1).astype(">i8").tobytes()
    size = states.layout.heads_bytes
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
    heads_after = heads_bytes(after)
    # Summed per cell: a terminal with a thousand transactions in a batch still has one addition a tile and column.
    adds: list[dict[tuple[str, int], int]] = [{} for _ in keys]
    for number, ring in enumerate(layout.rings):
        tile = times_ms // ring.hop_ms
        held = tile > after.heads[number][key] - ring.tiles
        for column in ring.columns:
            amount = _amount(column, amounts_minor, frauds, len(key))
            wanted = np.flatnonzero(held & (amount != 0))
            bits = _cell_bits(layout, number, column, tile[wanted] % ring.tiles)
            kind = _bitfield_kind(column)
            for k, at, value in zip(key[wanted].tolist(), bits.tolist(), amount[wanted].tolist(), strict=True):
                cell = (kind, at)
                adds[k][cell] = adds[k].get(cell, 0) + value
    start = layout.heads_offset
    tiles_after = [head.tolist() for head in after.heads]
    read_heads = struct.Struct(f">{len(layout.rings)}q").unpack
    updates = []
    # Only keys that occur: one that was gathered for a duplicate must not get a row.
    for k in np.unique(key).tolist():
        name, row = keys[k], rows_seen[k]
        seen = row[start : start + layout.heads_bytes] if row else b""
        moved = heads_after[k] != seen
        if not (adds[k] or moved):
            continue
        clears = _clears(layout, read_heads(seen), [heads[k] for heads in tiles_after]) if moved and row else ()
        cells = tuple([(kind, at, min(value, 2**63 - 1)) for (kind, at), value in adds[k].items()])
        updates.append(SharedUpdate(name, seen, heads_after[k] if moved else b"", clears, cells))
    return updates


def _amount(column: str, amounts_minor: IntArray | None, frauds: IntArray | None, n: int) -> IntArray:
    zeros = np.zeros(n, np.int64)
    if column == FRAUDS:
        return zeros if frauds is None else frauds
    if amounts_minor is None:
        return zeros
    if column == COUNT:
        return zeros + 1
    return {SUM: amounts_minor, SQUARES: amounts_minor * amounts_minor}[column]


def _bitfield_kind(column: str) -> str:
    base = COLUMN_DTYPES[column]
    return base[1] + str(int(base[2]) * 8)


def _cell_bits(layout: Layout, ring: int, column: str, slots: IntArray) -> IntArray:
    tile_dtype = layout.tile_dtypes[ring]
    assert tile_dtype.fields is not None
    first = layout.tile_offset(ring, 0) + int(tile_dtype.fields[column][1])
    return 8 * (first + slots * int(tile_dtype.itemsize))


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
    """The row after an update, as Redis' script leaves it; None if the heads are no longer those that were seen."""
    start = layout.heads_offset
    seen = row[start : start + layout.heads_bytes] if row else b""
    if seen != update.heads_seen:
        return None
    changed = bytearray(row or bytes(layout.row_bytes))
    for offset, length in update.clears:
        changed[offset : offset + length] = bytes(length)
    if update.heads:
        changed[start : start + layout.heads_bytes] = update.heads
    for kind, bits, amount in update.adds:
        size, signed = int(kind[1:]) // 8, kind[0] == "i"
        at = bits // 8
        limit = 2 ** (8 * size - signed) - 1
        total = min(int.from_bytes(changed[at : at + size], "big", signed=signed) + amount, limit)
        changed[at : at + size] = total.to_bytes(size, "big", signed=signed)
    return bytes(changed)

"""Random histories of a few keys, and what the windows of each transaction hold by their definition."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from fraudstream.core.layout import COLUMN_DTYPES, COUNT, FRAUDS, MAXIMUM, SQUARES, SUM, Layout, Read, Ring
from fraudstream.core.windows import IntArray, States, add_frauds, observe

INT64_MAX = 2**63 - 1
KEYS = 3
# The largest amount the codec's limits allow to be set, in hundredths: three of them fill a column of squares.
AMOUNT_MINOR_MAX = 3_000_000_000
HOPS_MS = (1000, 7000, 60_000)
# The first hours of 1970 have tile 0, which is also the head of an empty ring.
STARTS_MS = (0, 1_700_000_000_000)


class Visit(NamedTuple):
    """A transaction of a key, or with `amount_minor` None the fraud verdict on one at that time."""

    key: int
    time_ms: int
    amount_minor: int | None
    fraud: int


@st.composite
def layouts(draw: st.DrawFn, *, shared: bool = False) -> Layout:
    """Any layout of up to three rings; `shared` ones hold only what commutes."""
    columns = [c for c in COLUMN_DTYPES if not (shared and c == MAXIMUM)]
    rings, reads = [], []
    for number, hop_ms in enumerate(draw(st.lists(st.sampled_from(HOPS_MS), min_size=1, max_size=3, unique=True))):
        tiles = draw(st.integers(1, 6))
        kept = draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))
        # Squares and maximum are kept along with the sum they come from only if a list asks for it: any subset is legal.
        rings.append(Ring(hop_ms, tiles, tuple(kept)))
        for column in draw(st.lists(st.sampled_from(kept), max_size=3)):
            start = draw(st.integers(0, tiles - 1))
            reads.append(Read(number, column, start, draw(st.integers(start + 1, tiles)), draw(st.booleans())))
    return Layout(rings, reads, keeps_last=not shared and draw(st.booleans()))


@st.composite
def visits(draw: st.DrawFn, *, verdicts: bool = False, size_max: int = 25) -> list[Visit]:
    """A history: mostly in order, now and then far too late or far ahead; with `verdicts`, late frauds in between."""
    now_ms = draw(st.sampled_from(STARTS_MS)) + draw(st.integers(0, 100_000))
    history = []
    steps = st.one_of(st.integers(0, 3000), st.integers(0, 40_000), st.integers(-400_000, 400_000))
    amounts = st.one_of(st.integers(0, 20_000), st.just(AMOUNT_MINOR_MAX))
    for _ in range(draw(st.integers(0, size_max))):
        step = draw(steps)
        at_ms = max(0, now_ms + step)
        # A late one does not turn the clock back, one far ahead does not always put it forward.
        now_ms = at_ms if step >= 0 and draw(st.booleans()) else now_ms
        amount = None if verdicts and draw(st.integers(0, 3)) == 0 else draw(amounts)
        history.append(Visit(draw(st.integers(0, KEYS - 1)), at_ms, amount, draw(st.integers(0, 1))))
    return history


def replay(states: States, history: Sequence[Visit]) -> tuple[IntArray, IntArray]:
    """Run a history of transactions and verdicts; the sums and idle times of the transactions."""
    sums, idle = [np.zeros((len(states.layout.reads), 0), np.int64)], [np.zeros(0, np.int64)]
    start = 0
    while start < len(history):
        stop = start + 1
        is_verdict = history[start].amount_minor is None
        while stop < len(history) and (history[stop].amount_minor is None) == is_verdict:
            stop += 1
        part = history[start:stop]
        if is_verdict:
            add_frauds(states, keys_of(part), times_of(part))
        else:
            seen = observe(states, keys_of(part), times_of(part), amounts_of(part), frauds_of(part))
            sums.append(seen.sums)
            idle.append(seen.idle_ms)
        start = stop
    return np.concatenate(sums, axis=1), np.concatenate(idle)


def by_definition(layout: Layout, history: Sequence[Visit]) -> tuple[list[list[int]], list[int]]:
    """The sums and idle times of every transaction, each counted from the plain list of what came before it."""
    sums: list[list[int]] = []
    idle = []
    for at, visit in enumerate(history):
        if visit.amount_minor is None:
            continue
        past = [other for other in history[: at + 1] if other.key == visit.key]
        sums.append([_window(layout.rings[read.ring], read, past) for read in layout.reads])
        # Time 0 is "never".
        before = [other.time_ms for other in past[:-1] if other.amount_minor is not None and other.time_ms > 0]
        idle.append(max(0, visit.time_ms - max(before)) if before and layout.keeps_last else -1)
    return sums, idle


def _window(ring: Ring, read: Read, past: Sequence[Visit]) -> int:
    # A verdict is no event in a ring that does not count frauds.
    felt = [visit for visit in past if visit.amount_minor is not None or FRAUDS in ring.columns]
    head = max(visit.time_ms // ring.hop_ms for visit in felt)
    own = past[-1].time_ms // ring.hop_ms
    inside: dict[int, list[Visit]] = {}
    for visit in felt[:-1] if read.before else felt:
        tile = visit.time_ms // ring.hop_ms
        if own - read.stop < tile <= own - read.start and tile > head - ring.tiles:
            inside.setdefault(tile, []).append(visit)
    cells = [_cell(read.column, visits) for visits in inside.values()]
    if read.column == MAXIMUM:
        return max(cells, default=0)
    return min(sum(cells), INT64_MAX)


def _cell(column: str, inside: Sequence[Visit]) -> int:
    amounts = [visit.amount_minor for visit in inside if visit.amount_minor is not None]
    if column == COUNT:
        return len(amounts)
    if column == FRAUDS:
        return sum(1 if visit.amount_minor is None else visit.fraud for visit in inside)
    if column == MAXIMUM:
        return max(amounts, default=0)
    return min(sum(a * a if column == SQUARES else a for a in amounts), INT64_MAX) if column in (SUM, SQUARES) else 0


def keys_of(history: Sequence[Visit]) -> IntArray:
    return np.array([visit.key for visit in history], np.int64)


def times_of(history: Sequence[Visit]) -> IntArray:
    return np.array([visit.time_ms for visit in history], np.int64)


def amounts_of(history: Sequence[Visit]) -> IntArray:
    return np.array([visit.amount_minor or 0 for visit in history], np.int64)


def frauds_of(history: Sequence[Visit]) -> IntArray:
    return np.array([visit.fraud for visit in history], np.int64)

"""Rings of tiles against a plain list of transactions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core import updates
from fraudstream.core.layout import COUNT, SQUARES, Layout, Read, Ring
from fraudstream.core.updates import SharedUpdate, apply_update, shared_updates
from fraudstream.core.windows import States, observe
from tests.support.histories import (
    AMOUNT_MINOR_MAX,
    INT64_MAX,
    KEYS,
    Visit,
    amounts_of,
    by_definition,
    frauds_of,
    keys_of,
    layouts,
    replay,
    times_of,
    visits,
)

NAMES = [f"k{number}" for number in range(KEYS)]


def updates_of(history: list[Visit], rows: list[bytes | None], after: States) -> list[SharedUpdate]:
    """The updates that a worker would send for a batch of transactions or, if the first is one, of verdicts."""
    verdicts = bool(history) and history[0].amount_minor is None
    return shared_updates(
        NAMES,
        rows,
        after,
        keys_of(history),
        times_of(history),
        amounts_minor=None if verdicts else amounts_of(history),
        frauds=np.ones(len(history), np.int64) if verdicts else frauds_of(history),
    )


def apply_all(layout: Layout, rows: list[bytes | None], updates: list[SharedUpdate]) -> list[bytes | None]:
    """The rows after a worker's updates, none of which may be refused."""
    changed = dict(zip(NAMES, rows, strict=True))
    for update in updates:
        for key in update.keys:
            row = apply_update(changed[key], layout, update)
            assert row is not None, "the heads moved"
            changed[key] = row
    return [changed[name] for name in NAMES]


def stored(layout: Layout, history: list[Visit]) -> list[bytes | None]:
    """The rows a history leaves; None for keys it does not touch."""
    states = States(layout, KEYS)
    replay(states, history)
    touched = {visit.key for visit in history}
    return [row if key in touched else None for key, row in enumerate(states.to_rows())]


@given(layouts(), visits(verdicts=True))
def test_every_window_of_every_transaction_is_what_its_definition_counts(layout: Layout, history: list[Visit]) -> None:
    """At every prefix the sums and idle times equal those counted from the plain list, verdicts in between included."""
    sums, idle = replay(States(layout, KEYS), history)
    expected_sums, expected_idle = by_definition(layout, history)
    assert sums.T.tolist() == expected_sums
    assert idle.tolist() == expected_idle


@given(layouts(), visits(verdicts=True), st.data())
def test_batches_may_be_cut_anywhere(layout: Layout, history: list[Visit], data: st.DataObject) -> None:
    """However a history is cut, with rows stored and read in between, numbers and rows are those of a single batch."""
    whole = States(layout, KEYS)
    sums, idle = replay(whole, history)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=5)))
    rows: list[bytes | None] = [None] * KEYS
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, len(history)], strict=True):
        states = States.from_rows(layout, rows)
        parts.append(replay(states, history[start:stop]))
        rows = list(states.to_rows())
    assert np.concatenate([part[0] for part in parts], axis=1).tolist() == sums.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == idle.tolist()
    assert rows == whole.to_rows()


@given(layouts(), st.data())
def test_packing_is_the_inverse_of_unpacking(layout: Layout, data: st.DataObject) -> None:
    """Rows of any bytes unpack and pack to themselves."""
    size = layout.row_bytes
    rows = data.draw(st.lists(st.binary(min_size=size, max_size=size), max_size=3))
    assert States.from_rows(layout, rows).to_rows() == rows


@given(layouts(), visits())
def test_unpacking_is_the_inverse_of_packing(layout: Layout, history: list[Visit]) -> None:
    """States that went through their rows are the same in every array."""
    states = States(layout, KEYS)
    replay(states, history)
    again = States.from_rows(layout, states.to_rows())
    assert again.last_ms.tolist() == (states.last_ms.tolist() if layout.keeps_last else [0] * KEYS)
    assert [head.tolist() for head in again.heads] == [head.tolist() for head in states.heads]
    for back, columns in zip(again.columns, states.columns, strict=True):
        assert {name: cells.tolist() for name, cells in back.items()} == {
            name: cells.tolist() for name, cells in columns.items()
        }


@given(layouts(shared=True), visits(verdicts=True), visits(), st.booleans())
def test_updates_leave_the_rows_that_observing_leaves(
    layout: Layout, before: list[Visit], batch: list[Visit], verdicts: bool
) -> None:
    """Increments and clears, applied to the stored row, give byte for byte the row that was advanced in memory."""
    if verdicts:
        batch = [visit._replace(amount_minor=None) for visit in batch]
    rows = stored(layout, before)
    after = States.from_rows(layout, rows)
    replay(after, batch)
    changed = apply_all(layout, rows, updates_of(batch, rows, after))
    blank = bytes(layout.row_bytes)
    assert [row or blank for row in changed] == after.to_rows()


@given(layouts(shared=True), visits(), visits(), st.booleans())
def test_additions_of_a_small_batch_are_those_of_a_large_one(
    layout: Layout, before: list[Visit], batch: list[Visit], verdicts: bool
) -> None:
    """Added up one by one, as in a small batch, every key's cells are byte for byte what numpy makes of them together."""
    after = States.from_rows(layout, stored(layout, before))
    replay(after, batch)
    told = (after, keys_of(batch), times_of(batch))
    amounts = None if verdicts else amounts_of(batch)
    one_by_one = list(updates._cells_of_few(*told, amounts_minor=amounts, frauds=frauds_of(batch)))
    assert one_by_one == list(updates._cells_of_many(*told, amounts_minor=amounts, frauds=frauds_of(batch)))


@given(layouts(shared=True), visits(size_max=10), visits(size_max=10), visits(size_max=10))
def test_updates_of_two_workers_commute_while_no_head_moves(
    layout: Layout, before: list[Visit], one: list[Visit], other: list[Visit]
) -> None:
    """Two workers that gathered the same rows and stay below their heads may commit in either order, unaware of it."""
    rows = stored(layout, before)
    newest = {key: max((v.time_ms for v in before if v.key == key), default=-1) for key in range(KEYS)}
    one = [v._replace(time_ms=min(v.time_ms, newest[v.key])) for v in one if newest[v.key] >= 0]
    other = [v._replace(time_ms=min(v.time_ms, newest[v.key])) for v in other if newest[v.key] >= 0]
    sent = []
    for batch in (one, other):
        after = States.from_rows(layout, rows)
        replay(after, batch)
        sent.append(updates_of(batch, rows, after))
    in_order = apply_all(layout, apply_all(layout, rows, sent[0]), sent[1])
    assert in_order == apply_all(layout, apply_all(layout, rows, sent[1]), sent[0])
    both = States.from_rows(layout, rows)
    replay(both, one + other)
    assert [row or bytes(layout.row_bytes) for row in in_order] == both.to_rows()


@given(layouts(shared=True), visits(), visits())
def test_an_update_is_refused_once_another_worker_moved_the_head(
    layout: Layout, before: list[Visit], batch: list[Visit]
) -> None:
    """An update made for other heads than the row has is refused, whether it is older, newer or for no row at all."""
    rows = stored(layout, before)
    after = States.from_rows(layout, rows)
    replay(after, batch)
    longest = max(ring.hop_ms for ring in layout.rings)
    for name, update in [(name, one) for one in updates_of(batch, rows, after) for name in one.keys]:
        key = NAMES.index(name)
        moved = States.from_rows(layout, [rows[key]])
        newest = int(max(head[0] * ring.hop_ms for head, ring in zip(moved.heads, layout.rings, strict=True)))
        newest = max([newest, *(visit.time_ms for visit in batch)])  # past what the update itself would leave
        observe(moved, *(np.array([value]) for value in (0, newest + 2 * longest, 100)))
        assert apply_update(moved.to_rows()[0], layout, update) is None


@given(layouts(shared=True), visits(), visits(), visits())
def test_an_update_holds_where_another_worker_moved_the_heads_to_the_same_place(
    layout: Layout, before: list[Visit], one: list[Visit], other: list[Visit]
) -> None:
    """Two batches gathered from the same rows that leave the same heads add up to both, whichever comes first."""
    before = [*before, *(Visit(key, 0, 1, 0) for key in range(KEYS))]  # a row of each: making one is not shared
    rows = stored(layout, before)
    newest = max(visit.time_ms for visit in (*before, *one, *other, Visit(0, 0, 1, 0)))
    last = [Visit(key, newest, 1, 0) for key in range(KEYS)]
    one, other = [*one, *last], [*other, *last]
    sent = []
    for batch in (one, other):
        after = States.from_rows(layout, rows)
        replay(after, batch)
        sent.append(updates_of(batch, rows, after))
    both = States.from_rows(layout, rows)
    replay(both, one + other)
    for first, second in (sent, sent[::-1]):
        assert apply_all(layout, apply_all(layout, rows, first), second) == both.to_rows()


def test_clearing_knows_that_tile_zero_was_used() -> None:
    """A row whose transactions lie in the first hop of 1970 is cleared as any other when its head moves on."""
    layout = Layout((Ring(1000, 2, (COUNT,)),), (Read(0, COUNT, 0, 2),))
    rows = stored(layout, [Visit(0, 500, 1, 0)])
    batch = [Visit(0, 4500, 1, 0)]
    after = States.from_rows(layout, rows)
    replay(after, batch)
    assert apply_all(layout, rows, updates_of(batch, rows, after))[0] == after.to_rows()[0]


def test_sums_of_squares_stop_at_the_largest_integer() -> None:
    """Squares that no longer fit stay at the largest number, within a tile and over a window, and never turn negative."""
    layout = Layout((Ring(1000, 3, (SQUARES,)),), (Read(0, SQUARES, 0, 1), Read(0, SQUARES, 0, 3)))
    history = [Visit(0, 1000 * (at // 2), AMOUNT_MINOR_MAX, 0) for at in range(6)]
    sums, _ = replay(States(layout, 1), history)
    assert sums[0].tolist() == [AMOUNT_MINOR_MAX**2, INT64_MAX] * 3
    assert sums[1].tolist() == [AMOUNT_MINOR_MAX**2, *[INT64_MAX] * 5]


def test_a_row_of_another_feature_list_is_refused() -> None:
    """A stored row of another length than the layout's is told as such instead of being read askew."""
    layout = Layout((Ring(1000, 3, (COUNT,)),), ())
    with pytest.raises(ValueError, match="another feature list"):
        States.from_rows(layout, [b"\0" * 7])


def test_room_can_be_made_for_more_keys() -> None:
    """Keys added later begin without history, and the others keep theirs."""
    layout = Layout((Ring(1000, 2, (COUNT,)),), (Read(0, COUNT, 0, 2),))
    states = States(layout, 1)
    replay(states, [Visit(0, 1000, 5, 0)])
    states.grow(KEYS)
    states.grow(1)
    assert len(states) == KEYS
    sums, _ = replay(states, [Visit(2, 1000, 5, 0), Visit(0, 1500, 5, 0)])
    assert sums.tolist() == [[1, 2]]


def test_two_rows_that_only_together_have_the_right_length_are_refused() -> None:
    """Each row must have the layout's length, not only all of them together."""
    layout = Layout((Ring(1000, 1, (COUNT,)),), ())
    with pytest.raises(ValueError, match="another feature list"):
        States.from_rows(layout, [b"\0" * (layout.row_bytes - 1), b"\0" * (layout.row_bytes + 1)])

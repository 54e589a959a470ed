"""What every state store promises, in memory as in Redis. How Redis keeps it: test_redis_store.py."""

from dataclasses import replace

import numpy as np
import pytest

from fraudstream.adapters.redis_keys import RETRY_HORIZON_MS, StoreSettings
from fraudstream.core.engine import Arrival, ask, decide
from fraudstream.core.ports import NO_OFFSET, Advance, CommitStatus, LabelStatus, Sighting, StateStore
from fraudstream.core.windows import States, observe
from tests.contract.conftest import Forget, StoreFactory
from tests.support.desk import (
    DAY_MS,
    EDGE_MS,
    FEATURES,
    HOUR_MS,
    NOON_MS,
    Desk,
    everything,
    label,
    question,
    transaction,
)

CARD, TERMINAL = FEATURES.entities


def terminal_states(store: StateStore, terminal: str = "w1") -> States:
    return States.from_rows(TERMINAL.layout, store.rows({"terminal": [terminal]})["terminal"])


def frauds(store: StateStore, terminal: str = "w1") -> list[int]:
    """The frauds a terminal's rings hold, ring by ring."""
    return [int(c["frauds"].sum()) for c in terminal_states(store, terminal).columns if "frauds" in c]


def look(store: StateStore) -> object:
    """All that the store holds about what these tests use."""
    return everything(store, ["c1", "c2"], ["w1", "w2"], ["t0", "t1", "t2", "t3"])


# --- leases ------------------------------------------------------------------------------------------------------------


def test_fences_grow_and_watermarks_stay(store: StateStore) -> None:
    """Each lease of a partition has a larger fence and finds the last applied offset; partitions know nothing of others."""
    first = store.take_lease(3)
    desk = Desk(store, 3)
    desk.process(transaction("t1"), transaction("t2"))
    last = store.take_lease(3)
    assert first.fence < desk.lease.fence < last.fence
    assert (first.watermark, last.watermark) == (NO_OFFSET, 1)
    assert store.take_lease(4).watermark == NO_OFFSET


def test_no_fence_is_given_twice_although_the_store_lost_its_data(open_store: StoreFactory, forget: Forget) -> None:
    """A lease of before the loss is older than any after it: its holder is told that it lost the partition."""
    store = open_store()
    desk = Desk(store)
    late = desk.prepare(transaction("t1"))
    forget()
    owner = Desk(store)
    assert owner.lease.fence > desk.lease.fence
    assert desk.commit(late.commit) is CommitStatus.FENCED


def test_a_worker_that_lost_its_partition_changes_nothing(store: StateStore) -> None:
    """The commit of a stale fence is refused whole, even for a batch that was gathered before the fence moved."""
    zombie = Desk(store)
    late = zombie.prepare(transaction("t1"))
    owner = Desk(store)
    before = look(store)
    assert zombie.commit(late.commit) is CommitStatus.FENCED
    assert look(store) == before
    owner.process(transaction("t1"))
    assert zombie.commit(late.commit) is CommitStatus.FENCED


def test_a_commit_whose_answer_was_lost_is_applied_once(store: StateStore) -> None:
    """Sent again word for word, a commit is answered as applied and changes nothing."""
    desk = Desk(store)
    outcome = desk.prepare(transaction("t1"))
    assert store.commit(outcome.commit) is CommitStatus.APPLIED
    after = look(store)
    assert store.commit(outcome.commit) is CommitStatus.APPLIED
    assert look(store) == after


def test_a_batch_gathered_again_after_a_lost_answer_repeats_its_decisions(store: StateStore) -> None:
    """A worker that starts its batch over finds its own decisions, repeats them and counts no duplicate."""
    desk = Desk(store)
    batch = [transaction("t1"), transaction("t2")]
    first = desk.prepare(*batch)
    assert store.commit(first.commit) is CommitStatus.APPLIED
    after = look(store)
    again = desk.prepare(*batch)
    assert (again.repeated, again.decided, again.duplicates) == (first.decided, [], 0)
    assert desk.commit(again.commit) is CommitStatus.APPLIED
    assert look(store) == after


def test_a_store_that_forgot_a_fence_says_so(store: StateStore) -> None:
    """A fence newer than the store's was given by what the store was before it lost data: rewound, not fenced."""
    desk = Desk(store)
    desk.lease = replace(desk.lease, fence=desk.lease.fence + 1)
    before = look(store)
    assert desk.commit(desk.prepare(transaction("t1")).commit) is CommitStatus.REWOUND
    assert look(store) == before


@pytest.mark.parametrize("seen", [NO_OFFSET, 5])
def test_a_store_whose_watermark_is_another_refuses(store: StateStore, seen: int) -> None:
    """A commit that expects another watermark than the store has, older or newer, is refused whole."""
    desk = Desk(store)
    desk.process(transaction("t1"), transaction("t2"))
    before = look(store)
    desk.lease = replace(desk.lease, watermark=seen)
    outcome = desk.prepare(transaction("t3"), first_offset=7)
    assert desk.commit(outcome.commit) is CommitStatus.REWOUND
    assert look(store) == before


def test_a_batch_of_several_partitions_is_applied_whole(store: StateStore) -> None:
    """Each partition's watermark moves, what they share is counted once each, and sent again it changes nothing."""
    zero, one = Desk(store, 0), Desk(store, 1)
    one.process(transaction("t0"))
    batches = (zero, [transaction("t1"), transaction("t2")]), (one, [transaction("t3", card="c2")])
    commit = Desk.prepare_together(*batches).commit
    assert store.commit(commit) is CommitStatus.APPLIED
    assert (store.take_lease(0).watermark, store.take_lease(1).watermark) == (1, 1)
    assert store.counts()["decided"] == 4
    assert [decision is not None for decision in store.gather_decisions(["t1", "t2", "t3"])] == [True] * 3


def test_a_batch_of_several_partitions_whose_answer_was_lost_is_applied_once(store: StateStore) -> None:
    """Sent again, together or each partition by itself, it is answered as applied and changes nothing."""
    zero, one = Desk(store, 0), Desk(store, 1)
    commit = Desk.prepare_together((zero, [transaction("t1")]), (one, [transaction("t2", card="c2")])).commit
    assert store.commit(commit) is CommitStatus.APPLIED
    after = look(store)
    assert store.commit(commit) is CommitStatus.APPLIED
    for desk, batch in ((zero, transaction("t1")), (one, transaction("t2", card="c2"))):
        assert desk.commit(desk.prepare(batch).commit) is CommitStatus.APPLIED
    assert look(store) == after


@pytest.mark.parametrize("stale", [0, 1])
@pytest.mark.parametrize("how", ["fenced", "rewound", "applied"])
def test_a_batch_of_several_partitions_leaves_nothing_where_one_is_not_as_expected(
    store: StateStore, stale: int, how: str
) -> None:
    """Whichever partition it is, the answer is a conflict: each then has its own answer by itself."""
    desks = [Desk(store, 0), Desk(store, 1)]
    lost = desks[stale]
    if how == "fenced":
        store.take_lease(stale)
    elif how == "rewound":
        lost.lease = replace(lost.lease, watermark=5)
    commit = Desk.prepare_together((desks[0], [transaction("t1")]), (desks[1], [transaction("t2", card="c2")])).commit
    if how == "applied":
        assert store.commit(lost.prepare(transaction("t3", card="c3")).commit) is CommitStatus.APPLIED
    before = look(store), store.watermarks()
    assert store.commit(commit) is CommitStatus.CONFLICT
    assert (look(store), store.watermarks()) == before


def test_a_batch_of_several_partitions_that_all_have_new_owners_is_fenced(store: StateStore) -> None:
    """All the same is no conflict."""
    desks = [Desk(store, 0), Desk(store, 1)]
    commit = Desk.prepare_together((desks[0], [transaction("t1")]), (desks[1], [transaction("t2")])).commit
    for partition in (0, 1):
        store.take_lease(partition)
    assert store.commit(commit) is CommitStatus.FENCED


def test_a_batch_without_transactions_moves_the_watermark_and_counts(store: StateStore) -> None:
    """Records that are all dead letters leave their offset and their counters."""
    desk = Desk(store)
    empty = desk.prepare()
    commit = replace(empty.commit, advances=[Advance(desk.lease, 9)], counts={"rejected.tombstone": 10})
    assert desk.commit(commit) is CommitStatus.APPLIED
    assert store.take_lease(0).watermark == 9
    assert store.counts() == {"rejected.tombstone": 10}


# --- rows --------------------------------------------------------------------------------------------------------------


def test_rows_are_those_of_one_pass_in_memory(store: StateStore) -> None:
    """After batches of one partition every row is, byte for byte, what observing all of it at once leaves."""
    stream = [
        transaction(f"t{n}", at_ms=NOON_MS + n * 40 * 60_000, card=f"c{n % 2}", terminal=f"w{n % 3}", minor=100 * n)
        for n in range(30)
    ]
    desk = Desk(store)
    for start in range(0, 30, 7):
        desk.process(*stream[start : start + 7])
    times = np.array([t.event_time_ms for t in stream])
    amounts = np.array([t.amount_minor for t in stream])
    for entity, keys, size in ((CARD, [n % 2 for n in range(30)], 2), (TERMINAL, [n % 3 for n in range(30)], 3)):
        states = States(entity.layout, size)
        observe(states, np.array(keys), times, amounts)
        prefix = "c" if entity is CARD else "w"
        assert store.rows({entity.name: [f"{prefix}{n}" for n in range(size)]})[entity.name] == states.to_rows()


def test_keys_without_history_have_no_row(store: StateStore) -> None:
    """Unknown keys are answered with None, entities without keys with an empty list, in gather as in rows."""
    Desk(store).process(transaction("t1"))
    rows = store.rows({"card": ["c1", "nobody"], "terminal": []})
    assert [row is None for row in rows["card"]] == [False, True]
    assert rows["terminal"] == []
    gathered = store.gather({"card": [], "terminal": ["nobody"]}, [])
    assert (gathered.rows, gathered.decisions, gathered.labels) == ({"card": [], "terminal": [None]}, [], [])


def test_two_workers_add_to_one_terminal(store: StateStore) -> None:
    """While no head moves, two workers that gathered the same rows may both commit, and both are counted."""
    one, other = Desk(store, 0), Desk(store, 1)
    one.process(transaction("t0"))
    first, second = one.prepare(transaction("t1", minor=300)), other.prepare(transaction("t2", card="c2", minor=500))
    assert other.commit(second.commit) is CommitStatus.APPLIED
    assert one.commit(first.commit) is CommitStatus.APPLIED
    states = terminal_states(store)
    assert [int(columns["count"].sum()) for columns in states.columns] == [3, 3]
    assert int(states.columns[1]["sum"].sum()) == 2000 + 300 + 500


@pytest.mark.parametrize("hours_later", [1, 30], ids=["the next tile", "a jump over the ring"])
def test_a_moved_head_is_a_conflict_and_leaves_nothing_behind(store: StateStore, hours_later: int) -> None:
    """If another worker moved a terminal's head since the gather, nothing of the batch is applied; gathered again, all."""
    one, other = Desk(store, 0), Desk(store, 1)
    one.process(transaction("t0"))
    stale = one.prepare(transaction("t1"), transaction("t3", terminal="w2"))
    other.process(transaction("t2", card="c2", at_ms=NOON_MS + hours_later * HOUR_MS))
    before = look(store)
    assert one.commit(stale.commit) is CommitStatus.CONFLICT
    assert look(store) == before
    one.process(transaction("t1"), transaction("t3", terminal="w2"))
    expected = States(TERMINAL.layout, 1)
    times = np.array([NOON_MS, NOON_MS + hours_later * HOUR_MS, NOON_MS])
    observe(expected, np.zeros(3, np.int64), times, np.array([2000, 2000, 2000]))
    assert store.rows({"terminal": ["w1"]})["terminal"] == expected.to_rows()


@pytest.mark.parametrize("hours_later", [1, 30], ids=["the next tile", "a jump over the ring"])
def test_two_workers_that_move_a_terminals_head_to_the_same_place_add_up(store: StateStore, hours_later: int) -> None:
    """The second one finds the heads where it leaves them: its additions hold, and nothing is cleared a second time."""
    one, other = Desk(store, 0), Desk(store, 1)
    one.process(transaction("t0"))
    later_ms = NOON_MS + hours_later * HOUR_MS
    first = one.prepare(transaction("t1", at_ms=later_ms))
    second = other.prepare(transaction("t2", card="c2", at_ms=later_ms))
    assert one.commit(first.commit) is CommitStatus.APPLIED
    assert other.commit(second.commit) is CommitStatus.APPLIED
    expected = States(TERMINAL.layout, 1)
    observe(expected, np.zeros(3, np.int64), np.array([NOON_MS, later_ms, later_ms]), np.array([2000, 2000, 2000]))
    assert store.rows({"terminal": ["w1"]})["terminal"] == expected.to_rows()


def test_two_workers_that_both_make_a_terminals_first_row(store: StateStore) -> None:
    """A row that came into being since the gather is a conflict, with the same heads too: it is counted as new once."""
    one, other = Desk(store, 0), Desk(store, 1)
    first, second = one.prepare(transaction("t1")), other.prepare(transaction("t2", card="c2"))
    assert one.commit(first.commit) is CommitStatus.APPLIED
    assert other.commit(second.commit) is CommitStatus.CONFLICT
    other.process(transaction("t2", card="c2"))
    assert int(terminal_states(store).columns[0]["count"].sum()) == 2


def test_a_hot_terminal_fits_one_batch(store: StateStore) -> None:
    """2,000 transactions of one terminal over many tiles, in one batch, are all counted."""
    stream = [transaction(f"t{n}", at_ms=NOON_MS + n * 10_000, card=f"c{n}") for n in range(2000)]
    Desk(store).process(*stream)
    expected = States(TERMINAL.layout, 1)
    times = np.array([t.event_time_ms for t in stream])
    observe(expected, np.zeros(2000, np.int64), times, np.full(2000, 2000))
    assert store.rows({"terminal": ["w1"]})["terminal"] == expected.to_rows()
    assert store.counts()["decided"] == 2000


def test_sums_that_no_longer_fit_stay_at_the_largest_number(store: StateStore) -> None:
    """Squares of the largest amounts saturate in the store as they do in memory, in one batch and over several."""
    most = 3_000_000_000
    desk = Desk(store)
    desk.process(transaction("t0", minor=most))
    desk.process(transaction("t1", minor=most), transaction("t2", minor=most))
    expected = States(TERMINAL.layout, 1)
    observe(expected, np.zeros(3, np.int64), np.full(3, NOON_MS), np.full(3, most))
    assert store.rows({"terminal": ["w1"]})["terminal"] == expected.to_rows()
    assert 2**63 - 1 in terminal_states(store).columns[1]["squares"]


def test_warm_rows_are_there_for_the_first_transaction(store: StateStore) -> None:
    """Rows that a warm-up wrote are gathered and added to, those of owned and of shared keys."""
    rows = {}
    for entity in (CARD, TERMINAL):
        states = States(entity.layout, 1)
        observe(states, np.array([0, 0]), np.array([NOON_MS, NOON_MS]), np.array([100, 100]))
        rows[entity.name] = states.to_rows()[0]
    store.load_rows("card", {"c1": rows["card"]})
    store.load_rows("terminal", {"w1": rows["terminal"]})
    assert store.gather({"card": ["c1"], "terminal": ["w1"]}, []).rows == {k: [row] for k, row in rows.items()}
    decided = Desk(store).process(transaction("t1")).decided
    features = dict(zip(FEATURES.names, np.frombuffer(decided[0].features, "<f4").tolist(), strict=True))
    assert (features["count"], features["terminal_count"]) == (3.0, 3.0)


def test_ids_may_be_any_text(store: StateStore) -> None:
    """Ids with spaces, colons, braces and letters of any script are kept apart and found again."""
    names = ["t 1", "t:1", "t{1}", "№ 1", "取引", "t" * 128]
    desk = Desk(store)
    desk.process(*(transaction(name, card=f"card {name}", terminal=f"terminal {name}") for name in names))
    found = store.gather_decisions(names)
    assert [d.transaction_id for d in found if d] == names
    assert [d.card_id for d in found if d] == [f"card {name}" for name in names]
    assert desk.label(*(label(name) for name in names)) == [LabelStatus.JOINED] * len(names)
    rows = store.rows({"terminal": [f"terminal {name}" for name in names]})["terminal"]
    assert len(set(rows)) == 1
    assert None not in rows


# --- decisions ---------------------------------------------------------------------------------------------------------


def test_a_stored_decision_comes_back_as_it_was(store: StateStore) -> None:
    """Looked up by id alone or gathered with its event time, a decision is equal in every field, reasons included."""
    decided = Desk(store).process(transaction("t1", minor=99_900), transaction("t2")).decided
    assert decided[0].action == "review"
    assert decided[0].reasons
    assert store.decision("t1") == decided[0]
    assert store.gather_decisions(["t2", "none", "t1"]) == [decided[1], None, decided[0]]
    assert store.gather_decisions([]) == []
    gathered = store.gather({}, [Sighting("t2", NOON_MS), Sighting("none", NOON_MS)])
    assert gathered.decisions == [decided[1], None]


def test_what_is_taken_for_new_is_not_looked_up_and_never_decided_twice(store: StateStore) -> None:
    """A retry that was taken for new is gathered without its decision; its commit conflicts and leaves nothing behind."""
    desk = Desk(store)
    decided = desk.process(transaction("t1")).decided
    arrivals = [Arrival(1, transaction("t1", card="c2", terminal="w2")), Arrival(2, transaction("t2"))]
    before = look(store)
    believed = ask(desk.features, arrivals, new_above={0: 0}, monitor=desk.model.monitor)
    gathered = store.gather(believed.keys, believed.sightings)
    assert gathered.decisions == [None, None]
    advances = [Advance(desk.lease, 2)]
    commit = decide(desk.features, desk.model, believed, gathered, advances=advances, now_ms=NOON_MS, counts={}).commit
    assert store.commit(commit) is CommitStatus.CONFLICT
    assert look(store) == before
    known = ask(desk.features, arrivals, new_above={0: 1})
    assert store.gather(known.keys, known.sightings).decisions == [decided[0], None]


def test_the_first_decision_wins_also_across_partitions(store: StateStore) -> None:
    """A transaction that another partition has decided is a duplicate: no decision, no row, one count."""
    one, other = Desk(store, 0), Desk(store, 1)
    first = one.process(transaction("t1")).decided
    second = other.process(transaction("t1", card="c2", terminal="w2"))
    assert (second.decided, second.repeated, second.duplicates) == ([], [], 1)
    assert store.decision("t1") == first[0]
    assert store.rows({"card": ["c2"], "terminal": ["w2"]}) == {"card": [None], "terminal": [None]}
    assert store.counts()["duplicates"] == 1


def test_a_decision_stored_since_the_gather_is_a_conflict_and_leaves_nothing_behind(store: StateStore) -> None:
    """If one transaction of a batch was decided elsewhere in the meantime, none of the batch is stored."""
    one, other = Desk(store, 0), Desk(store, 1)
    stale = other.prepare(*(transaction(f"t{n}", card="c2", terminal="w2") for n in (0, 1, 2)))
    one.process(transaction("t1"))
    before = look(store)
    assert other.commit(stale.commit) is CommitStatus.CONFLICT
    assert look(store) == before
    again = other.process(*(transaction(f"t{n}", card="c2", terminal="w2") for n in (0, 1, 2)))
    assert [d.transaction_id for d in again.decided] == ["t0", "t2"]
    assert again.duplicates == 1


@pytest.mark.parametrize("first_is_later", [False, True])
def test_two_copies_decided_at_once_on_both_sides_of_an_edge_conflict(store: StateStore, first_is_later: bool) -> None:
    """Gathered before either was stored, the second is refused although its generation is another, and then a duplicate."""
    one, other = Desk(store, 0), Desk(store, 1)
    times_ms = [EDGE_MS - 10 * 60_000, EDGE_MS + 10 * 60_000]
    if first_is_later:
        times_ms.reverse()
    first = one.prepare(transaction("t1", at_ms=times_ms[0], card="c1", terminal="w1"))
    late = other.prepare(transaction("t1", at_ms=times_ms[1], card="c2", terminal="w2"))
    assert one.commit(first.commit) is CommitStatus.APPLIED
    before = look(store)
    assert other.commit(late.commit) is CommitStatus.CONFLICT
    assert look(store) == before
    assert other.process(transaction("t1", at_ms=times_ms[1], card="c2", terminal="w2")).duplicates == 1


@pytest.mark.parametrize("late_ms", [RETRY_HORIZON_MS, -RETRY_HORIZON_MS, 1, -1, 0])
@pytest.mark.parametrize("at_ms", [EDGE_MS, EDGE_MS - 1, EDGE_MS + RETRY_HORIZON_MS, EDGE_MS + RETRY_HORIZON_MS - 1])
def test_a_retry_with_another_time_is_recognised_over_a_generations_edge(
    store: StateStore, at_ms: int, late_ms: int
) -> None:
    """The same id within the retry horizon of the first event time is a duplicate, whichever generation it falls into."""
    desk = Desk(store)
    desk.process(transaction("t1", at_ms=at_ms))
    retry = desk.process(transaction("t1", at_ms=at_ms + late_ms))
    assert (retry.decided, retry.duplicates) == ([], 1)


def test_of_two_decisions_with_one_id_the_nearest_is_told_and_the_earliest_found(store: StateStore) -> None:
    """An id that came again far away in time was decided twice: a gather tells the one of its generation, a look-up the
    earlier one.
    """
    desk = Desk(store)
    (later,) = desk.process(transaction("t1", at_ms=EDGE_MS + 2 * HOUR_MS)).decided
    (earlier,) = desk.process(transaction("t1", at_ms=EDGE_MS - 2 * HOUR_MS)).decided
    times = (EDGE_MS + HOUR_MS // 2, EDGE_MS - HOUR_MS // 2)
    assert store.gather({}, [Sighting("t1", at_ms) for at_ms in times]).decisions == [later, earlier]
    assert store.decision("t1") == earlier


def test_other_settings_of_size_still_find_old_decisions(open_store: StoreFactory) -> None:
    """A worker that starts with another expected volume or retention finds what was stored before, and stores beside it."""
    desk = Desk(open_store(StoreSettings(transactions_per_day=1_000_000)))
    old = desk.process(*(transaction(f"t{n}") for n in range(50))).decided
    for settings in (StoreSettings(transactions_per_day=10), StoreSettings(retention_ms=90 * DAY_MS)):
        later = Desk(open_store(settings))
        assert later.store.gather_decisions([d.transaction_id for d in old]) == old
        assert later.process(transaction("t1")).duplicates == 1
        assert later.label(label(f"t{settings.transactions_per_day % 7}")) == [LabelStatus.JOINED]


# --- labels ------------------------------------------------------------------------------------------------------------


def test_a_label_is_joined_once(store: StateStore) -> None:
    """A fraud is added to its terminal's tiles once; the same verdict again is a duplicate, another one only counted."""
    desk = Desk(store)
    desk.process(transaction("t1"), transaction("t2"))
    assert frauds(store) == [0, 0]
    assert desk.label(label("t1")) == [LabelStatus.JOINED]
    assert frauds(store) == [1, 1]
    assert desk.label(label("t1"), label("t1", is_fraud=False)) == [LabelStatus.DUPLICATE, LabelStatus.CHANGED]
    assert desk.label(label("t2", is_fraud=False)) == [LabelStatus.JOINED]
    assert desk.label(label("t2"), label("t2", is_fraud=False)) == [LabelStatus.CHANGED, LabelStatus.DUPLICATE]
    assert frauds(store) == [1, 1]


def test_one_label_twice_in_a_call_is_joined_once(store: StateStore) -> None:
    """Labels of one call see each other."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    assert desk.label(label("t1"), label("t1"), label("early"), label("early"), label("early", is_fraud=False)) == [
        LabelStatus.JOINED,
        LabelStatus.DUPLICATE,
        LabelStatus.PARKED,
        LabelStatus.DUPLICATE,
        LabelStatus.CHANGED,
    ]
    assert frauds(store) == [1, 1]


def test_labels_of_one_terminal_join_in_one_call(store: StateStore) -> None:
    """Frauds of one terminal in several tiles, one after the other, are all counted at once."""
    desk = Desk(store)
    desk.process(*(transaction(f"t{n}", at_ms=NOON_MS + n * 1800_000) for n in range(6)))
    assert desk.label(*(label(f"t{n}") for n in range(6))) == [LabelStatus.JOINED] * 6
    assert frauds(store) == [6, 6]


def test_a_head_moved_under_a_label_is_a_conflict(store: StateStore) -> None:
    """A label whose terminal moved on since it was looked up is tried again, without a trace of the first try."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    steps = desk.prepare_labels(label("t1"))
    desk.process(transaction("t2", at_ms=NOON_MS + 5 * HOUR_MS))
    before = look(store)
    assert desk.settle(steps) == []
    assert look(store) == before
    assert desk.label(label("t1")) == [LabelStatus.JOINED]


def test_a_label_far_too_late_is_joined_without_a_tile(store: StateStore) -> None:
    """A fraud whose tiles the terminal has left behind is joined, and changes no row."""
    desk = Desk(store)
    desk.process(transaction("t1"), transaction("t2", at_ms=NOON_MS + 30 * DAY_MS))
    rows = store.rows({"terminal": ["w1"]})
    assert desk.label(label("t1")) == [LabelStatus.JOINED]
    assert store.rows({"terminal": ["w1"]}) == rows
    assert desk.label(label("t1")) == [LabelStatus.DUPLICATE]


def test_an_early_label_waits_and_joins_in_the_commit(store: StateStore) -> None:
    """A label before its transaction is parked; the transaction's commit counts the fraud, and the label is then done."""
    desk = Desk(store)
    assert desk.label(label("t1"), label("t2", is_fraud=False)) == [LabelStatus.PARKED] * 2
    gathered = store.gather({}, question(transaction("t1"), transaction("t3"), transaction("t2")).sightings)
    assert [one.is_fraud if one else None for one in gathered.labels] == [True, None, False]
    assert gathered.labels[0] == label("t1")
    desk.process(transaction("t1"), transaction("t2"))
    assert frauds(store) == [1, 1]
    assert desk.label(label("t1"), label("t2")) == [LabelStatus.DUPLICATE, LabelStatus.CHANGED]
    assert store.gather({}, [Sighting("t1", NOON_MS)]).labels == [None]
    assert frauds(store) == [1, 1]


def test_an_early_label_keeps_its_first_verdict(store: StateStore) -> None:
    """While a label waits, the same one again is a duplicate and another verdict is told as a change."""
    desk = Desk(store)
    assert desk.label(label("t1", is_fraud=False)) == [LabelStatus.PARKED]
    assert desk.label(label("t1", is_fraud=False), label("t1")) == [LabelStatus.DUPLICATE, LabelStatus.CHANGED]
    desk.process(transaction("t1"))
    assert frauds(store) == [0, 0]


def test_a_label_parked_while_its_transaction_was_being_decided_is_not_missed(store: StateStore) -> None:
    """A commit that did not see a label of its batch is a conflict; gathered again, it joins it."""
    desk = Desk(store)
    blind = desk.prepare(transaction("t1"), transaction("t2"))
    assert desk.label(label("t2")) == [LabelStatus.PARKED]
    before = look(store)
    assert desk.commit(blind.commit) is CommitStatus.CONFLICT
    assert look(store) == before
    desk.process(transaction("t1"), transaction("t2"))
    assert frauds(store) == [1, 1]


def test_labels_of_other_transactions_do_not_hold_a_commit_up(store: StateStore) -> None:
    """A label parked in the meantime for another batch is no conflict, not even when this batch joins one of its own."""
    desk = Desk(store)
    desk.label(label("t1"))
    outcome = desk.prepare(transaction("t1"), transaction("t2"))
    assert desk.label(label("t9")) == [LabelStatus.PARKED]
    assert desk.commit(outcome.commit) is CommitStatus.APPLIED
    assert frauds(store) == [1, 1]


def test_a_label_whose_transaction_was_decided_meanwhile_is_tried_again(store: StateStore) -> None:
    """A label that found no decision is not parked if there is one by now."""
    desk = Desk(store)
    steps = desk.prepare_labels(label("t1"))
    desk.process(transaction("t1"))
    assert desk.settle(steps) == []
    assert desk.label(label("t1")) == [LabelStatus.JOINED]


def test_there_is_room_for_so_many_early_labels(open_store: StoreFactory) -> None:
    """Beyond the limit a label without a decision is an orphan; a joined one makes room again."""
    desk = Desk(open_store(StoreSettings(parked_labels_max=2)))
    statuses = desk.label(label("t1"), label("t2"), label("t3"), label("t2"))
    assert statuses == [LabelStatus.PARKED, LabelStatus.PARKED, LabelStatus.ORPHAN, LabelStatus.DUPLICATE]
    desk.process(transaction("t1"))
    assert desk.label(label("t3"), label("t4")) == [LabelStatus.PARKED, LabelStatus.ORPHAN]


def test_early_labels_do_not_wait_for_ever(open_store: StoreFactory) -> None:
    """A label that has waited its time makes room for others, and is counted."""
    desk = Desk(open_store(StoreSettings(parked_labels_max=1, parked_ttl_ms=0)))
    assert desk.label(label("t1")) == [LabelStatus.PARKED]
    assert desk.label(label("t2")) == [LabelStatus.PARKED]
    assert desk.store.counts() == {"labels.expired": 1, "labels.parked": 2}
    desk.process(transaction("t1"), transaction("t2"))
    assert frauds(desk.store) == [1, 1]
    assert desk.label(label("t3")) == [LabelStatus.PARKED]
    assert desk.store.counts()["labels.expired"] == 1  # the label of t2 was joined, not given up


# --- counters ----------------------------------------------------------------------------------------------------------


def test_counters_add_up(store: StateStore) -> None:
    """Counters of all partitions' applied commits are summed; refused commits count nothing."""
    one, other = Desk(store, 0), Desk(store, 1)
    assert store.counts() == {}
    one.process(transaction("t1"), transaction("t1"), transaction("t2", minor=90_000))
    other.process(transaction("t3", card="c2", terminal="w2"))
    assert store.counts() == {"decided": 3, "duplicates": 1, "action.allow": 2, "action.review": 1}

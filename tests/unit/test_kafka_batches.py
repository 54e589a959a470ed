"""The bookkeeping of micro-batches, against oracles that look at every single offset."""

from types import SimpleNamespace

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fraudstream.adapters.kafka_batches import Backlog, OffsetRun, PartitionProgress, stalled


@st.composite
def batches_and_finishing_order(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Batches of ascending offsets with holes inside and between them, and the order in which some are finished."""
    offset = draw(st.integers(0, 50))
    batches = []
    for _ in range(draw(st.integers(1, 12))):
        offsets = []
        for _ in range(draw(st.integers(1, 5))):
            offset += draw(st.integers(0, 3))  # offsets that compaction or a transaction marker took
            offsets.append(offset)
            offset += 1
        batches.append(offsets)
    finished = draw(st.permutations(range(len(batches))))
    return batches, finished[: draw(st.integers(0, len(batches)))]


def run_end_by_looking_at_every_offset(batches: list[list[int]], finished: set[int]) -> int | None:
    """One past the highest delivered offset that has no unfinished delivered offset at or below it; None: no such."""
    done = {offset for index in finished for offset in batches[index]}
    delivered = sorted(offset for batch in batches for offset in batch)
    end = None
    for offset in delivered:
        if offset not in done:
            break
        end = offset + 1
    return end


@given(batches_and_finishing_order(), st.data())
def test_committable_offset_is_the_end_of_the_unbroken_run(
    case: tuple[list[list[int]], list[int]], data: st.DataObject
) -> None:
    """At every moment the committable offset is what a look at every single delivered offset finds."""
    batches, order = case
    run = OffsetRun(origin=batches[0][0])
    finished: set[int] = set()
    delivered, committed = 0, None
    for index in order:
        while delivered <= index:
            run.deliver(batches[delivered][-1])
            delivered += 1
        assert run.finish(batches[index][-1])
        finished.add(index)
        expected = run_end_by_looking_at_every_offset(batches[:delivered], finished)
        assert run.committable == (expected if expected != committed else None)
        assert run.resume_at == (batches[0][0] if expected is None else expected)
        assert run.batches_open == delivered - len(finished)
        if expected is not None and data.draw(st.booleans()):
            run.mark_committed(committed := expected)
            assert run.committable is None


def test_nothing_is_committable_before_a_batch_is_finished() -> None:
    """Where delivery begins is no offset to commit: no record there has been worked on."""
    run = OffsetRun(origin=500)
    run.deliver(509)
    assert run.committable is None
    assert run.resume_at == 500


def test_commit_never_moves_back() -> None:
    """After a start below the group's commit, nothing is committable until the run has passed that commit."""
    run = OffsetRun(origin=100, committed=150)
    run.deliver(129)
    run.deliver(169)
    run.finish(129)
    assert (run.committable, run.resume_at) == (None, 130)
    run.finish(169)
    assert run.committable == 170


def test_finishing_what_is_not_open_has_no_effect() -> None:
    """A batch that was never delivered, or is finished already, is refused and changes nothing."""
    run = OffsetRun(origin=0)
    run.deliver(9)
    assert not run.finish(4)
    assert run.finish(9)
    assert not run.finish(9)
    assert (run.committable, run.batches_open) == (10, 0)


def record(offset: int, timestamp: int, tp: TP) -> SimpleNamespace:
    return SimpleNamespace(topic=tp.topic, partition=tp.partition, offset=offset, timestamp=timestamp)


T0, T1, T2 = (TP("t", partition) for partition in range(3))


@given(
    st.dictionaries(st.sampled_from([T0, T1, T2]), st.lists(st.integers(0, 99), min_size=1, max_size=40), min_size=1),
    st.integers(1, 7),
    st.integers(0, 40),
)
def test_backlog_hands_out_each_record_once_in_order_of_its_partition(
    timestamps: dict[TP, list[int]], records_max: int, cut: int
) -> None:
    """Whatever the times say, every record comes out once, in offset order within its partition, in limited batches."""
    backlog = Backlog()
    for tp, times in timestamps.items():
        records = [record(offset, timestamp, tp) for offset, timestamp in enumerate(times)]
        for fetched in filter(None, (records[:cut], records[cut:])):
            backlog.add(tp, fetched)
    seen: dict[TP, list[int]] = {}
    while batch := backlog.take(timestamps, records_max):
        assert len(batch) <= records_max
        for each in batch:
            seen.setdefault(TP(each.topic, each.partition), []).append(each.offset)
    assert seen == {tp: list(range(len(times))) for tp, times in timestamps.items()}


def test_backlog_advances_the_partitions_times_together() -> None:
    """The partition whose next record is oldest goes first, so merged batches come nearly in order of time."""
    backlog = Backlog()
    backlog.add(T0, [record(offset, 1000 + offset, T0) for offset in range(4)])
    backlog.add(T1, [record(offset, offset, T1) for offset in range(4)])
    order = [[each.partition for each in backlog.take({T0, T1}, 3)] for _ in range(3)]
    assert order == [[1, 1, 1], [1, 0, 0], [0, 0]]


def test_backlog_starves_no_partition() -> None:
    """A partition whose records claim to be older than all others' cannot hold them back for ever."""
    backlog = Backlog()
    backlog.add(T0, [record(offset, 0, T0) for offset in range(1000)])
    backlog.add(T1, [record(0, 10**12, T1)])
    turns = 0
    while (batch := backlog.take({T0, T1}, 1)) and batch[0].partition != T1.partition:
        turns += 1
    assert turns <= Backlog.PASSES_MAX * 2


def test_backlog_keeps_the_records_of_a_paused_partition() -> None:
    """Records of a partition that is not active stay where they are until it is."""
    backlog = Backlog()
    backlog.add(T0, [record(0, 0, T0)])
    assert backlog.take({T1}, 10) == []
    assert backlog.size(T0) == 1
    assert len(backlog.take({T0}, 10)) == 1


IDLE = PartitionProgress(
    delivered=9, acked=9, committed=9, batches_open=0, records_waiting=0, moved_age_s=900.0, fetch_age_s=0.1, lag=0
)


def test_idle_partition_is_not_stalled() -> None:
    """A partition without new records, looked at all the time, is well however long nothing came."""
    assert stalled({T0: IDLE}, polled_age_s=0.1, limit_s=30) == []


def test_batch_that_does_not_end_is_a_stall() -> None:
    """An open batch beyond the limit is named by its partition; that nobody asks for records meanwhile is no news."""
    at = replace(IDLE, batches_open=4, moved_age_s=31.0, fetch_age_s=31.0)
    assert stalled({T0: at, T1: IDLE}, 31.0, 30) == ["t[0]: the batch in work has not ended for 31 s"]
    assert stalled({T0: replace(at, moved_age_s=29.0)}, 29.0, 30) == []


def test_partition_that_is_not_fetched_is_a_stall() -> None:
    """A partition with nothing at hand and no answer from the broker is named, busy as the others may be."""
    quiet, busy = replace(IDLE, fetch_age_s=31.0), replace(IDLE, batches_open=4, moved_age_s=0.1)
    assert stalled({T0: quiet, T1: busy}, 0.1, 30) == ["t[0]: the broker last answered 31 s ago"]
    assert stalled({T0: replace(quiet, records_waiting=5), T1: busy}, 0.1, 30) == []


def test_nobody_asking_for_records_is_a_stall() -> None:
    """A worker that has asked for no record within the limit, and has no batch open, is stalled."""
    assert stalled({}, 31.0, 30) == ["records were last asked for 31 s ago"]

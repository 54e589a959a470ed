"""The learner's state: fenced, written whole with its offset, never in two histories."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from fraudstream.adapters.memory_learner import MemoryLearnerStore
from fraudstream.adapters.redis_learner import MARKS_TTL_MS, RedisLearnerStore
from fraudstream.core.ports import NO_OFFSET, CommitStatus, LearnerCommit, LearnerLease, LearnerStore, Sighting
from fraudstream.errors import StateUnavailable

OpenStore = Callable[[], LearnerStore]
WEEK_MS = 7 * 86_400_000


@pytest.fixture(params=["memory", "redis"])
def open_store(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Stores of several processes on the same data."""
    if request.param == "memory":
        one = MemoryLearnerStore()
        yield lambda: one
        return
    url = request.getfixturevalue("redis_url")
    opened: list[RedisLearnerStore] = []

    def open_one() -> LearnerStore:
        opened.append(RedisLearnerStore(url, transactions_per_day=1000))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> LearnerStore:
    """One store."""
    return open_store()


def commit(lease: LearnerLease, watermark: int, *seen: str, **parts: bytes) -> LearnerCommit:
    return LearnerCommit(lease, watermark, parts, [Sighting(name, WEEK_MS) for name in seen])


def test_nothing_is_learned_at_first(store: LearnerStore) -> None:
    """No parts, no offset, nothing seen, nothing to serve."""
    lease = store.take()
    assert (lease.watermark, lease.parts) == (NO_OFFSET, {})
    assert list(store.seen(lease, [Sighting("t1", 0)])) == [False]
    assert store.seen(lease, []) == []


def test_a_commit_is_read_back_whole(open_store: OpenStore) -> None:
    """Another process finds parts, offset and marks as they were written, bytes untouched."""
    store = open_store()
    assert store.commit(commit(store.take(), 41, "t1", "t2", model=b"\x00\xff", serving=b"")) is CommitStatus.APPLIED
    other = open_store()
    lease = other.take()
    assert (lease.watermark, lease.parts) == (41, {"model": b"\x00\xff", "serving": b""})
    asked = [Sighting("t1", WEEK_MS), Sighting("t3", WEEK_MS), Sighting("t2", WEEK_MS + 1)]
    assert list(other.seen(lease, asked)) == [True, False, True]


def test_a_later_learner_fences_the_earlier(open_store: OpenStore) -> None:
    """Who took the lease before can neither commit nor drop the state."""
    first, second = open_store(), open_store()
    old = first.take()
    new = second.take()
    assert new.fence > old.fence
    assert first.commit(commit(old, 5, model=b"old")) is CommitStatus.FENCED
    assert first.begin_anew(old, from_offset=0) is None
    assert second.commit(commit(new, 7, model=b"new")) is CommitStatus.APPLIED
    assert second.take().parts == {"model": b"new"}


def test_a_state_that_is_not_where_it_was_left_takes_no_commit(store: LearnerStore) -> None:
    """Also the same commit twice: whoever lost the answer reads the state back first."""
    lease = store.take()
    assert store.commit(commit(lease, 5, "t1", model=b"a")) is CommitStatus.APPLIED
    assert store.commit(commit(lease, 5, "t1", model=b"a")) is CommitStatus.REWOUND
    assert store.commit(commit(replace(lease, watermark=9), 12, model=b"c")) is CommitStatus.REWOUND
    assert store.take().parts == {"model": b"a"}


def test_beginning_anew_forgets_what_was_seen(store: LearnerStore) -> None:
    """A rebuild learns every example again: parts and marks of the epoch before do not count."""
    lease = store.take()
    store.commit(commit(lease, 5, "t1", model=b"a"))
    begun = store.begin_anew(lease, from_offset=0)
    assert begun is not None
    assert (begun.watermark, begun.parts) == (NO_OFFSET, {})
    assert list(store.seen(begun, [Sighting("t1", WEEK_MS)])) == [False]
    assert store.commit(commit(begun, 2, "t2", model=b"b")) is CommitStatus.APPLIED
    assert (store.take().parts, store.take().watermark) == ({"model": b"b"}, 2)


def test_beginning_anew_from_here_skips_what_came_before(store: LearnerStore) -> None:
    """The offset goes on from where it is asked to."""
    begun = store.begin_anew(store.take(), from_offset=100)
    assert begun is not None
    assert store.take().watermark == 99


def test_a_reader_is_told_what_is_new(open_store: OpenStore) -> None:
    """The newest parts once, then nothing until they change; a rebuild is news as well."""
    writer, reader = open_store(), open_store()
    lease = writer.take()
    first = reader.read("", ["serving"])
    assert first is not None
    assert first[1] == {}
    writer.commit(commit(lease, 3, serving=b"s", model=b"m"))
    second = reader.read(first[0], ["serving", "absent"])
    assert second is not None
    assert second[1] == {"serving": b"s"}
    assert reader.read(second[0], ["serving"]) is None
    writer.begin_anew(lease, from_offset=4)
    third = reader.read(second[0], ["serving"])
    assert third is not None
    assert third[1] == {}


def test_marks_leave_after_their_time(redis_url: str, redis_client: redis.Redis) -> None:
    """Each mark lies in a hash with a time to live; the state itself stays."""
    store = RedisLearnerStore(redis_url)
    store.commit(commit(store.take(), 5, "t1", "t2", model=b"a"))
    names = sorted(str(name, "ascii") for name in redis_client.keys("*"))
    marks = [name for name in names if ":learner:seen:" in name]
    assert [name for name in names if name not in marks] == [
        "fraudstream:{0}:learner:fence",
        "fraudstream:{0}:learner:state",
    ]
    assert len(marks) == 2
    assert all(0 < MARKS_TTL_MS - redis_client.pttl(name) + 1 < 60_000 for name in marks)
    store.close()


def test_a_lost_redis_takes_no_commit(redis_url: str, redis_client: redis.Redis) -> None:
    """A fence that Redis forgot is no fence; without Redis the store says so."""
    store = RedisLearnerStore(redis_url)
    lease = store.take()
    redis_client.flushdb()
    assert store.commit(commit(lease, 5, model=b"a")) is CommitStatus.REWOUND
    store.close()
    with pytest.raises(StateUnavailable):
        RedisLearnerStore("redis://127.0.0.1:1").take()

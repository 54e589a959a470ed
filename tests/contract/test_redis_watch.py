"""The watch's place in Redis: one holder at a time, a state that only it writes, and the learner's figures of quality."""

import time

import pytest
import redis

from fraudstream.adapters.redis_learner import RedisLearnerStore
from fraudstream.adapters.redis_watch import STATE_TTL_MS, RedisWatch
from fraudstream.core.ports import CommitStatus, LearnerCommit
from fraudstream.core.quality import QUALITY
from fraudstream.errors import StateUnavailable


def test_one_worker_holds_the_watch_until_it_stops_renewing(redis_url: str) -> None:
    """Whoever is first keeps it by looking again; a lease that ran out is another's."""
    one, other = RedisWatch(redis_url, "w"), RedisWatch(redis_url, "w")
    assert one.hold("a", 60_000)
    assert not other.hold("b", 60_000)
    assert one.hold("a", 50)
    time.sleep(0.1)
    assert other.hold("b", 60_000)
    assert not one.save("a", b"late")
    assert one.load() is None
    one.close()
    other.close()


def test_the_state_is_kept_with_a_time_to_live(redis_url: str, redis_client: redis.Redis) -> None:
    """What the holder saved is what anyone loads."""
    watch = RedisWatch(redis_url, "w")
    assert watch.hold("a", 60_000)
    assert watch.save("a", b"\x00state")
    assert watch.load() == b"\x00state"
    assert 0 < STATE_TTL_MS - redis_client.pttl("w:{0}:drift") < 60_000  # type: ignore[operator]
    watch.close()


def test_figures_of_quality_are_read_from_the_learners_hash(redis_url: str) -> None:
    """As the learner's commit wrote them; a field that was emptied is gone, and other fields are not looked at."""
    learner, watch = RedisLearnerStore(redis_url, prefix="w"), RedisWatch(redis_url, "w")
    assert watch.quality() == {}
    lease = learner.take()
    parts = {"state": b"{}", f"{QUALITY}fraud 1|champion|-1": b"x", f"{QUALITY}fraud 1|champion|3": b""}
    assert learner.commit(LearnerCommit(lease, 0, parts, [])) is CommitStatus.APPLIED
    assert watch.quality() == {"fraud 1|champion|-1": b"x"}
    learner.close()
    watch.close()


def test_a_redis_that_lost_the_scripts_is_given_them_again(redis_url: str, redis_client: redis.Redis) -> None:
    """Watch and learner go on after a restart of Redis that forgot what it had loaded."""
    learner, watch = RedisLearnerStore(redis_url, prefix="w"), RedisWatch(redis_url, "w")
    lease = learner.take()
    assert watch.hold("a", 60_000)
    redis_client.script_flush()
    assert watch.save("a", b"state")
    redis_client.script_flush()
    assert learner.commit(LearnerCommit(lease, 0, {"state": b"{}"}, [])) is CommitStatus.APPLIED
    learner.close()
    watch.close()


def test_without_redis_every_call_says_so() -> None:
    """The watch waits; it never ends a worker."""
    watch = RedisWatch("redis://127.0.0.1:1/0", "w", timeout_s=0.2)
    for call in (lambda: watch.hold("a", 1), watch.load, lambda: watch.save("a", b""), watch.quality):
        with pytest.raises(StateUnavailable):
            call()
    watch.close()

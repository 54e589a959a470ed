"""How the store on Redis keeps its promises when Redis is away, full, emptied or set up wrongly, and what it costs there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from redis.connection import AbstractConnection

from fraudstream.adapters.redis_keys import CENSUS_TTL_MS, Keys, StoreSettings, row_ttl_ms
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.codec import ModelIdentity
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Advance, Commit, CommitStatus, LabelStatus, LabelStep, Lease
from fraudstream.embedded import start_redis
from fraudstream.errors import SettingsError, StateUnavailable
from fraudstream.events import Contribution, Decision
from fraudstream.testing import Driver, card_transaction
from tests.support.decisions import a_decision
from tests.support.desk import DAY_MS, FEATURES, HOUR_MS, NOON_MS, Desk, label, transaction
from tests.support.documented_keys import undocumented
from tests.support.servers import Redis

SETTINGS = StoreSettings()
KEYS = Keys(SETTINGS)
# These have no time-to-live: a handful of keys that do not grow with the number of transactions.
LASTING = (
    "partition:", "counters", "meta", "models", "labels:parked", "labels:settled", "decisions:generations", "partitions", "examples:due",
)  # fmt: skip

Configure = Callable[[str, str], None]


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_url, FEATURES)
    yield store
    store.close()


@pytest.fixture
def configure(redis_client: redis.Redis) -> Iterator[Configure]:
    """CONFIG SET for the length of a test."""
    before: dict[str, str] = {}

    def set_option(name: str, value: str) -> None:
        before.setdefault(name, str(redis_client.config_get(name)[name]))
        redis_client.config_set(name, value)

    yield set_option
    for name, value in before.items():
        redis_client.config_set(name, value)


def names(client: redis.Redis) -> list[str]:
    return sorted(key.decode() if isinstance(key, bytes) else key for key in client.keys("*"))


def decision(number: int, features: int, *, alert: bool = False) -> Decision:
    """A decision as large as real ones are: ids of 12 characters, features that fill their four bytes."""
    random = np.random.default_rng(number)
    reasons = tuple(
        Contribution(f"FEATURE_{n}", f"terminal's frauds of the last week {n}", 1.5 / n) for n in (1, 2, 3, 4)
    )
    score = float(random.random(dtype=np.float32))
    return Decision(
        transaction_id=f"tx-{number:09d}",
        card_id=f"card-{number % 5000:07d}",
        terminal_id=f"shop-{number % 10_000:07d}",
        event_time_ms=NOON_MS + 10 * number,
        decided_at_ms=NOON_MS + 10 * number + 35,
        amount=round(float(random.lognormal(3, 1)), 2),
        action="review" if alert else "allow",
        score=score,
        champion_score=score,
        threshold=0.5,
        model_name="champion",
        model_version="20240701-1",
        features_digest="f" * 64,
        features=random.random(features, np.float32).tobytes(),
        reasons=reasons if alert else (),
        partition=number % 4,
        offset=number,
    )


# --- what is kept, and for how long ------------------------------------------------------------------------------------


def test_every_key_that_grows_with_the_traffic_has_a_time_to_live(store: RedisStore, redis_client: redis.Redis) -> None:
    """Rows live for their longest window and a day, decisions for the retention and a generation; few other keys stay."""
    desk = Desk(store)
    desk.label(label("t1"), label("t9"))
    desk.process(transaction("t1"), transaction("t2", card="c2", terminal="w2"))
    desk.label(label("t2"))
    old = a_decision(transaction_id="old", event_time_ms=NOON_MS - 90 * DAY_MS)
    desk.settle([LabelStep(9, label("old"), old, late=True)])
    expected = {
        "labels": SETTINGS.late_retention_ms + KEYS.generation_ms,
        "row": row_ttl_ms(FEATURES),
        "decisions": SETTINGS.retention_ms + KEYS.generation_ms,
        "census": CENSUS_TTL_MS,
    }
    assert undocumented(redis_client, "fraudstream") == []
    for name in names(redis_client):
        kind = name.removeprefix("fraudstream:{0}:")
        ttl_ms = redis_client.pttl(name)
        if kind.startswith(LASTING):
            assert ttl_ms == -1, name
        else:
            assert 0 < expected[kind.split(":")[0]] - ttl_ms + 1 < 60_000, name
    assert len([name for name in names(redis_client) if ":row:" in name]) == 4


def test_an_idle_key_leaves_after_its_longest_window_or_the_cap_of_idle_times(store: RedisStore) -> None:
    """A row that keeps the time of the last transaction lives at least as long as that can be told from never."""
    only_idle = FeatureSet.parse("""
        entities.card = "card_id"
        features.idle = { entity = "card", aggregate = "seconds_since_last" }
    """)
    assert row_ttl_ms(only_idle) == 31 * DAY_MS
    assert row_ttl_ms(FEATURES) == 31 * DAY_MS  # its windows reach back 4 days
    assert row_ttl_ms(FeatureSet.parse("features.amount = { field = 'amount' }")) == DAY_MS


def test_a_shared_row_is_given_time_when_its_head_moves(store: RedisStore, redis_client: redis.Redis) -> None:
    """A terminal's row lives on with each new tile; additions to old tiles leave its time as it is."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    (row,) = (name for name in names(redis_client) if ":row:terminal" in name)
    redis_client.pexpire(row, 50_000)
    desk.process(transaction("t2"))
    assert 0 < redis_client.pttl(row) <= 50_000
    desk.process(transaction("t3", at_ms=NOON_MS + HOUR_MS))
    assert redis_client.pttl(row) > DAY_MS


def test_a_slot_that_was_dropped_and_is_made_again_has_a_time_to_live(
    store: RedisStore, redis_client: redis.Redis
) -> None:
    """A decision whose slot had expired, or was lost, does not leave a key that stays for ever."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    slot = KEYS.decision(KEYS.generation(NOON_MS), b"t1")
    redis_client.delete(slot)
    desk.process(transaction("t1"))
    assert redis_client.pttl(slot) > SETTINGS.retention_ms


def test_an_undone_commit_leaves_no_slot(store: RedisStore, redis_client: redis.Redis) -> None:
    """Decisions that were taken back after a conflict leave no empty key and no name behind."""
    one, other = Desk(store, 0), Desk(store, 1)
    stale = other.prepare(*(transaction(f"t{n}", card="c2", terminal="w2") for n in range(20)), transaction("t99"))
    one.process(transaction("t99"))
    before = names(redis_client)
    assert other.commit(stale.commit) is CommitStatus.CONFLICT
    assert names(redis_client) == before


def test_a_label_for_a_dropped_decision_leaves_no_verdict(store: RedisStore, redis_client: redis.Redis) -> None:
    """If the decision expired between look-up and join, the label is looked at again instead of making its slot anew."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    steps = desk.prepare_labels(label("t1"))
    slot = KEYS.decision(KEYS.generation(NOON_MS), b"t1")
    redis_client.delete(slot)
    assert desk.settle(steps) == []
    assert not redis_client.exists(slot)
    assert desk.label(label("t1")) == [LabelStatus.PARKED]


def test_labels_join_although_the_terminals_row_is_gone(store: RedisStore, redis_client: redis.Redis) -> None:
    """Labels of a terminal that was idle until its row left still end as joined, all in one call."""
    desk = Desk(store)
    desk.process(*(transaction(f"t{n}", at_ms=NOON_MS + n * HOUR_MS) for n in range(3)))
    (row,) = (name for name in names(redis_client) if ":row:terminal" in name)
    redis_client.delete(row)
    assert desk.label(*(label(f"t{n}") for n in range(3))) == [LabelStatus.JOINED] * 3
    assert redis_client.pttl(row) > 0


def test_expired_generations_are_looked_at_no_more(store: RedisStore, redis_client: redis.Redis) -> None:
    """Names of generations leave with their decisions, so that a look-up by id stays as short as the retention."""
    desk = Desk(store)
    redis_client.zadd(KEYS.generations, {b"17": 1000})
    desk.process(transaction("t1"))
    assert redis_client.zrange(KEYS.generations, 0, -1) == [b"%d" % KEYS.generation(NOON_MS)]


# --- memory ------------------------------------------------------------------------------------------------------------


def test_a_decision_takes_at_most_250_bytes(redis_url: str, redis_client: redis.Redis, configure: Configure) -> None:
    """With 40 features, ids of 12 characters, one alert in a hundred and full slots: 250 bytes, the slot's share included.

    A tenth more is granted to a server on jemalloc, which rounds up to its size classes.
    """
    configure("hash-max-listpack-value", "1024")
    count = 8_000
    # Slots as full as at the end of a generation, with the settings' expected volume met exactly.
    settings = StoreSettings(transactions_per_day=count * DAY_MS // KEYS.generation_ms)
    store = RedisStore(redis_url, FEATURES, settings)
    lease = store.take_lease(0)
    for start in range(0, count, 500):
        decisions = [decision(n, 40, alert=n % 100 == 0) for n in range(start, start + 500)]
        commit = Commit([Advance(lease, start + 499)], decisions, [], [], [], 0)
        assert store.commit(commit) is CommitStatus.APPLIED
        lease = Lease(0, lease.fence, start + 499)
    slots = [key for key in redis_client.scan_iter("*:decisions:*", count=1000) if redis_client.type(key) == b"hash"]
    entries = sum(redis_client.hlen(slot) for slot in slots)
    assert entries == count
    assert {redis_client.object("encoding", slot) for slot in slots} == {b"listpack"}
    total = sum(redis_client.memory_usage(slot, samples=0) or 0 for slot in slots)
    rounds_up = redis_client.info("memory")["mem_allocator"].startswith("jemalloc")
    assert total / count <= (275 if rounds_up else 250)
    store.close()


def test_a_row_takes_little_more_than_its_bytes(redis_url: str, redis_client: redis.Redis) -> None:
    """Cards and terminals of the default list cost their row and at most 250 bytes for key, times and rounding up."""
    features = FeatureSet.default()
    store = RedisStore(redis_url, features)
    desk = Desk(store, features=features)
    for days in (0, 1, 2):
        desk.process(*(transaction(f"t{days}-{n}", at_ms=NOON_MS + days * DAY_MS, card=f"c{n}") for n in range(50)))
    for entity in features.entities:
        keys = list(redis_client.scan_iter(f"*:row:{entity.name}:*"))
        assert keys
        for key in keys:
            size = redis_client.memory_usage(key, samples=0) or 0
            assert entity.layout.row_bytes < size <= entity.layout.row_bytes + 250, key
    store.close()


# --- round trips -------------------------------------------------------------------------------------------------------


def test_a_micro_batch_is_one_round_trip_to_gather_and_one_to_commit(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it holds: new and known cards, retries, early labels, records that are none. Also one that comes again."""
    features = FeatureSet.default()
    sent: list[int] = []
    send = AbstractConnection.send_packed_command

    def counting(self: AbstractConnection, command: Any, check_health: bool = True) -> None:
        sent.append(1)
        send(self, command, check_health)

    store = RedisStore(redis_url, features)
    with Driver(store=store, features=features) as driver:
        driver.label("t5", is_fraud=True)
        driver.pipe(
            *(card_transaction(transaction_id=f"w{n}") for n in range(3))
        )  # connects, loads scripts, names its model
        driver.append(*(card_transaction(transaction_id=f"t{n}", card_id=f"c{n}") for n in range(200)))
        driver.append(card_transaction(transaction_id="t7"), b"{", key="c1")
        monkeypatch.setattr(AbstractConnection, "send_packed_command", counting)
        done = driver.run(acknowledge=False)
        assert done is not None
        assert (done.decided, done.duplicates, done.rejected) == (200, 1, 1)
        assert len(sent) == 2
        sent.clear()
        again = driver.run()
        assert again is not None
        assert (again.repeated, len(sent)) == (200, 2)
    store.close()


# --- Redis in trouble --------------------------------------------------------------------------------------------------


def test_a_redis_that_forgot_the_scripts_is_told_again(store: RedisStore, redis_client: redis.Redis) -> None:
    """After SCRIPT FLUSH, as after a restart or a failover, every call works as before."""
    desk = Desk(store)
    redis_client.script_flush()
    outcome = desk.prepare(transaction("t1"))
    redis_client.script_flush()
    assert desk.commit(outcome.commit) is CommitStatus.APPLIED
    redis_client.script_flush()
    steps = desk.prepare_labels(label("t1"), label("t2"))
    redis_client.script_flush()
    assert desk.settle(steps) == [LabelStatus.JOINED, LabelStatus.PARKED]
    redis_client.script_flush()
    assert store.decision("t1") is not None


def test_an_evicting_redis_is_refused(store: RedisStore, configure: Configure) -> None:
    """A memory policy that drops keys would drop state: the check says what to set."""
    store.check()
    configure("maxmemory-policy", "allkeys-lru")
    with pytest.raises(SettingsError, match=r"allkeys-lru\): set it to noeviction"):
        store.check()


def test_an_unreachable_redis_is_told_with_its_address(unused_port: int) -> None:
    """Nobody listens: every method raises StateUnavailable, whose text names address and cause."""
    store = RedisStore(f"redis://127.0.0.1:{unused_port}/0", FEATURES, timeout_s=1)
    for call in (store.check, lambda: store.take_lease(0), lambda: store.decision("t1"), store.counts):
        with pytest.raises(StateUnavailable, match=rf"Redis: .*127\.0\.0\.1:{unused_port}.*refused"):
            call()


@pytest.fixture
def unused_port() -> int:
    from fraudstream.embedded.process import free_ports

    (port,) = free_ports(1)
    return port


def test_a_redis_that_does_not_answer_is_waited_for_no_longer_than_set(tmp_path: Path) -> None:
    """A stopped Redis raises StateUnavailable after the time-out; when it goes on, the same commit is applied once."""
    with start_redis(tmp_path) as server:
        store = RedisStore(server.url, FEATURES, timeout_s=0.3)
        desk = Desk(store)
        outcome = desk.prepare(transaction("t1"))
        server.pause()
        with pytest.raises(StateUnavailable, match="Redis: Timeout"):
            store.commit(outcome.commit)
        server.resume()
        patient = RedisStore(server.url, FEATURES, timeout_s=30)
        assert patient.commit(outcome.commit) is CommitStatus.APPLIED
        assert patient.counts() == {"decided": 1, "action.allow": 1}
        assert patient.take_lease(0).watermark == 0
        patient.close()
        store.close()


def test_a_full_redis_takes_a_commit_whole_or_not_at_all(
    store: RedisStore, redis_client: redis.Redis, configure: Configure
) -> None:
    """Out of memory, a commit raises and leaves nothing behind; with room again, the same commit is applied."""
    desk = Desk(store)
    outcome = desk.prepare(*(transaction(f"t{n}", card=f"c{n}") for n in range(50)))
    before = names(redis_client)
    configure("maxmemory", "1")
    with pytest.raises(StateUnavailable, match="maxmemory"):
        store.commit(outcome.commit)
    assert names(redis_client) == before
    configure("maxmemory", "0")
    assert desk.commit(outcome.commit) is CommitStatus.APPLIED


def test_a_redis_that_was_emptied_is_noticed_and_filled_again(
    store: RedisStore, redis_server: Redis, redis_client: redis.Redis
) -> None:
    """Without its data, fences included, a commit is refused as rewound; a new lease begins at the beginning."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    lost = desk.prepare(transaction("t2"))
    redis_client.flushdb()
    assert desk.commit(lost.commit) is CommitStatus.REWOUND
    assert names(redis_client) == []
    desk = Desk(store)
    assert desk.lease.watermark == -1
    outcome = desk.process(transaction("t1"), transaction("t2"))
    other = RedisStore(redis_server.url, FEATURES)
    assert other.gather_decisions(["t1", "t2"]) == outcome.decided
    other.close()


def test_a_models_number_is_never_given_to_two(
    store: RedisStore, redis_server: Redis, redis_client: redis.Redis
) -> None:
    """If Redis lost the table of models under a worker, its next commit conflicts, and then names its model rightly."""
    desk = Desk(store)
    desk.process(transaction("t1"))
    redis_client.delete(KEYS.models, KEYS.models_last)
    other = RedisStore(redis_server.url, FEATURES)
    stranger = ModelIdentity("stranger", "9", "0" * 64)
    assert other._model_ref(stranger) == 1  # the number that the worker believes to be its model's
    stale = desk.prepare(transaction("t2"))
    assert desk.commit(stale.commit) is CommitStatus.CONFLICT
    outcome = desk.process(transaction("t2"))
    fresh = RedisStore(redis_server.url, FEATURES)
    assert fresh.decision("t2") == outcome.decided[0]
    for one in (other, fresh):
        one.close()


def test_looking_into_an_empty_redis_settles_nothing(store: RedisStore, redis_client: redis.Redis) -> None:
    """Who asks for a decision before the first worker must not fix the slots that workers then live with."""
    assert store.decision("t1") is None
    assert store.counts() == {}
    assert names(redis_client) == []

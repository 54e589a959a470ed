"""Both stores through the same random histories of two workers: every answer and every byte must be the same."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraudstream.adapters.memory import MemoryStore
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.core.engine import Outcome
from fraudstream.core.ports import LabelStep, StateStore
from fraudstream.events import Label, Transaction
from tests.support.decisions import a_decision
from tests.support.desk import DAY_MS, EDGE_MS, FEATURES, HOUR_MS, Desk, everything, label, transaction
from tests.support.servers import Redis

WORKERS = (0, 1)
NAMES = [f"t{n}" for n in range(12)]
CARDS = [f"c{worker}{n}" for worker in WORKERS for n in range(2)]
TERMINALS = ["w1", "w2"]
OLD = a_decision(event_time_ms=EDGE_MS - 90 * DAY_MS)  # what an index of late labels finds


class Step(NamedTuple):
    """What a worker does next, with what."""

    worker: int
    verb: str
    transactions: Sequence[Transaction] = ()
    labels: Sequence[Label] = ()
    late: bool = False


@st.composite
def steps(draw: st.DrawFn) -> Step:
    worker = draw(st.sampled_from(WORKERS))
    verb = draw(st.sampled_from(["gather", "gather", "commit", "commit", "look", "join", "lease"]))
    if verb == "gather":
        # Around the edge of a generation, over several tiles, now and then days ahead; ids are used again and again.
        at_ms = st.one_of(st.integers(-2 * HOUR_MS, 3 * HOUR_MS), st.integers(0, 8 * DAY_MS))
        one = st.builds(
            lambda name, at, card, terminal, minor: transaction(
                name, at_ms=EDGE_MS + at, card=f"c{worker}{card}", terminal=terminal, minor=minor
            ),
            st.sampled_from(NAMES), at_ms, st.integers(0, 1), st.sampled_from(TERMINALS), st.integers(0, 90_000),
        )  # fmt: skip
        return Step(worker, verb, transactions=draw(st.lists(one, max_size=5)))
    if verb == "look":
        one_label = st.builds(
            lambda name, is_fraud: label(name, is_fraud=is_fraud), st.sampled_from(NAMES), st.booleans()
        )
        return Step(worker, verb, labels=draw(st.lists(one_label, min_size=1, max_size=4)), late=draw(st.booleans()))
    return Step(worker, verb)


class World:
    """One store with two workers and what each has under way."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.desks = [Desk(store, worker) for worker in WORKERS]
        self.gathered: dict[int, Outcome] = {}
        self.looked: dict[int, list[LabelStep]] = {}

    def take(self, step: Step) -> Any:
        """Do a step; everything that the caller could see of it but the fence, which is the time of day."""
        desk = self.desks[step.worker]
        if step.verb == "lease":
            # What was gathered before stays under way: the batch of a zombie.
            desk.lease = self.store.take_lease(step.worker)
            return desk.lease.watermark
        if step.verb == "gather":
            outcome = self.gathered[step.worker] = desk.prepare(*step.transactions)
            (advance,) = outcome.commit.advances
            unfenced = replace(advance, lease=replace(advance.lease, fence=0))
            return replace(outcome, commit=replace(outcome.commit, advances=[unfenced]))
        if step.verb == "look":
            found = desk.prepare_labels(*step.labels)
            if step.late:
                found = [replace(one, decision=OLD, late=True) if one.decision is None else one for one in found]
            self.looked[step.worker] = found
            return found
        if step.verb == "join":
            # They stay under way, too: a worker that was killed before it acknowledged settles them again.
            return desk.settle(self.looked.get(step.worker, []))
        # A commit stays under way: the next one sends it again, as a worker whose answer was lost does.
        if step.worker not in self.gathered:
            return None
        commit = self.gathered[step.worker].commit
        status = self.store.commit(commit)
        if status.value == "applied":
            (advance,) = commit.advances
            desk.lease = replace(advance.lease, watermark=max(desk.lease.watermark, advance.watermark))
        return status


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps(), min_size=30, max_size=60))
def test_both_stores_answer_and_hold_the_same(
    redis_server: Redis, redis_client: redis.Redis, history: list[Step]
) -> None:
    """Conflicts, zombies, lost answers and early labels of two workers end the same way, byte for byte."""
    redis_client.flushdb()
    on_redis = RedisStore(redis_server.url, FEATURES)
    worlds = [World(MemoryStore(FEATURES)), World(on_redis)]
    for step in history:
        in_memory, in_redis = (world.take(step) for world in worlds)
        assert in_memory == in_redis, step
    assert everything(worlds[0].store, CARDS, TERMINALS, NAMES) == everything(on_redis, CARDS, TERMINALS, NAMES)
    on_redis.close()

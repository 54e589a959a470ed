"""The Faust apps: one per role, so that labelling never competes with scoring for a group's partitions.

The agents are a few lines: they hand a micro-batch to its service in a thread of its own, wait out what is away, and
acknowledge last. Nothing may escape an agent: Faust acknowledges the event of an agent that raised.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import faust
from faust.types import TP, EventT

from fraudstream.adapters.faust_worker import faust_settings
from fraudstream.adapters.kafka_transport import MicroBatchTransport
from fraudstream.core.ports import NO_OFFSET
from fraudstream.outage import Outage
from fraudstream.roles import (
    Role,
    Runner,
    by_partition,
    end,
    or_end,
    records_expired,
    records_of,
    resume,
    start_offset,
    still_current,
)
from fraudstream.services.degraded import Guesser
from fraudstream.services.health import Health
from fraudstream.services.labelling import Labeller
from fraudstream.services.scoring import Ending, Processed, Scorer
from fraudstream.settings import KafkaSettings, Settings

if TYPE_CHECKING:  # it loads river, which only a worker that learns needs
    from fraudstream.services.learning import Learner

log = logging.getLogger("fraudstream.worker")

# How long a worker that was fenced waits to hear that the partition is another's now. Hearing nothing, it owns it still:
# the other one was late (it took the lease of an assignment that had passed), and nobody would ever write it again.
FENCED_RETRY_S: Final = 1.0
# One batch at a time: what comes meanwhile joins the next one instead of queueing behind it as a batch of its own. At 300
# records/s in 4 partitions the median wait fell from 40 to 15 ms; a backlog was drained no slower.
BATCHES_OPEN_MAX: Final = 1
# How long the example of an early label waits for a label role that has nothing else to do.
EXAMPLES_DUE_EVERY_S: Final = 1.0
# What stands still for longer than this, and than a session, is neither a rebalance nor a slow batch.
STALLED_S_MIN: Final = 10.0


def score_role(settings: Settings, scorer: Scorer, health: Health, guesser: Guesser | None = None) -> Role:
    """The app that decides transactions; with a `guesser` provisionally while the store is away."""
    scoring = _Scoring(settings, scorer, health, Outage(settings, scorer, health, guesser))
    return _role("score", settings, health, scoring.start, scoring.batch, left=scoring.left, settled=scorer.watermark)


@dataclass
class _Scoring:
    """What the score role does with an assignment and with a batch."""

    settings: Settings
    scorer: Scorer
    health: Health
    outage: Outage

    async def start(self, role: Role, committed: Mapping[TP, int | None]) -> dict[TP, int]:
        starts: dict[TP, int] = {}
        for tp, offset in committed.items():
            lease = await self.outage.call(role, lambda: True, partial(self.scorer.take, tp.partition))
            if lease is None:
                self.outage.ahead.assigned(tp.partition, offset)
                continue
            where = start_offset(tp, offset, lease.watermark, self.settings.on_state_lost)
            if where is not None:
                starts[tp] = where
        self.health.partitions["score"] = sorted(tp.partition for tp in committed)
        log.info("scoring partitions %s", self.health.partitions["score"])
        return starts

    async def batch(self, role: Role, event: EventT[Any]) -> bool:
        batches = by_partition(records_of(event))
        work = partial(self.scorer.process_all, {tp.partition: records for tp, records in batches.items()})
        ended = await self.outage.call(role, still_current(role, event), work)
        if ended is None:
            return await self.outage.go_ahead(role, event)
        for done in ended:
            for name in ("decided", "alerts", "duplicates", "repeated", "rejected"):
                self.health.totals[name] += getattr(done, name)
        undone = {done.partitions[0]: done for done in ended if done.ending is not Ending.DONE}
        if fenced := [partition for partition, done in undone.items() if done.ending is Ending.FENCED]:
            log.warning("partitions %s were taken by another worker: their batch is dropped here", fenced)
            await asyncio.sleep(FENCED_RETRY_S)
        # First the leases of all, then the seeks: with the first of these the event is no longer wanted.
        starts = {
            tp: await self._resume_at(role, event, undone[tp.partition], records[0].offset)
            for tp, records in batches.items()
            if tp.partition in undone
        }
        for tp, where in starts.items():
            if where is not None:
                await resume(role, tp, batches[tp][0].offset, where, self.settings.on_state_lost)
        if None in starts.values():
            return await self.outage.go_ahead(role, event)
        return not undone

    async def _resume_at(self, role: Role, event: EventT[Any], done: Processed, first: int) -> int | None:
        (partition,) = done.partitions
        if done.ending is Ending.REWOUND:
            log.error("Redis is not where partition %d left it: it lost data, or an answer of it", partition)
            return done.resume_at
        retake = partial(self.scorer.retake, partition, first)
        resume_at = await self.outage.call(role, still_current(role, event), retake)
        if resume_at is not None:
            log.warning("partition %d is this worker's still: its lease is taken again", partition)
        return resume_at

    def left(self, partition: int) -> None:
        self.scorer.release(partition)
        self.outage.ahead.revoked(partition)


def label_role(settings: Settings, labeller: Labeller, health: Health) -> Role:
    """The app that joins labels."""
    runner = Runner(health, settings.outage_s_max)

    async def start(_role: Role, committed: Mapping[TP, int | None]) -> dict[TP, int]:
        starts: dict[TP, int] = {}
        for tp, offset in committed.items():
            settled = await runner.call("label", lambda: True, partial(labeller.take, tp.partition))
            assert settled is not None
            where = start_offset(tp, offset, settled, settings.on_state_lost)
            if where is not None:
                starts[tp] = where
        health.partitions["label"] = sorted(tp.partition for tp in committed)
        log.info("labelling partitions %s", health.partitions["label"])
        return starts

    async def batch(role: Role, event: EventT[Any]) -> bool:
        current = still_current(role, event)
        for tp, records in by_partition(records_of(event)).items():
            done = await runner.call("label", current, partial(labeller.process, records))
            if done is None:
                return False
            if done.resume_at is not None:
                log.error("Redis is not where labels[%d] left it: it lost data", tp.partition)
                # What this worker had settled is no longer what the store has: it would find the same again. Before the seek,
                # after which nothing is wanted for this event.
                await runner.call("label", current, partial(labeller.take, tp.partition))
                await resume(role, tp, records[0].offset, done.resume_at, settings.on_state_lost)
                return False
            health.totals.update({f"labels_{name}": n for name, n in done.tally.items()})
        return True

    role = _role("label", settings, health, start, batch, settled=labeller.settled)

    async def examples_due() -> None:
        try:
            await runner.call("examples", lambda: not role.app.should_stop, labeller.publish_due)
        except Exception as error:  # noqa: BLE001 - as in an agent
            await end(role, error)

    role.app.timer(EXAMPLES_DUE_EVERY_S)(examples_due)
    return role


def learn_role(settings: Settings, learner: "Callable[[], Learner]", health: Health) -> Role:
    """The app that learns from examples. What counts is where its state in the store is, not Kafka's offset.

    `learner` gives the one learner; it is made at the first call, in the thread of the service.
    """
    runner = Runner(health, settings.outage_s_max)

    async def start(_role: Role, committed: Mapping[TP, int | None]) -> dict[TP, int]:
        starts: dict[TP, int] = {}
        for tp in committed:
            resume_at = await runner.call("learn", lambda: True, lambda: learner().take())
            assert resume_at is not None
            starts[tp] = resume_at
            log.info("learning from offset %d", resume_at)
        health.partitions["learn"] = sorted(tp.partition for tp in committed)
        return starts

    async def batch(role: Role, event: EventT[Any]) -> bool:
        records, current = records_of(event), still_current(role, event)
        done = await runner.call("learn", current, lambda: learner().process(records))
        if done is None:
            return False
        resume_at = done.resume_at
        if done.ending is Ending.FENCED:
            log.warning("another learner began: this batch is dropped here")
            await asyncio.sleep(FENCED_RETRY_S)
            resume_at = await runner.call("learn", current, lambda: learner().take())
        if done.ending is not Ending.DONE:
            if resume_at is not None:
                log.warning("examples are read again from offset %d", resume_at)
                (tp,) = by_partition(records)  # the topic has one partition
                await role.app.consumer.seek(tp, resume_at)
            return False
        health.totals.update({f"examples_{name}": n for name, n in done.tally.items()})
        return True

    async def expired(tp: TP, wanted: int, first: int, log_end: int) -> int:
        if wanted == 0:  # everything there is was asked for
            log.warning("examples before offset %d are gone: what is learned begins there", first)
            return 0
        lost = await records_expired(tp, wanted, first, log_end, settings.on_offsets_expired)
        if wanted > log_end:  # another log: the state's offset would hide its examples until it is reached
            await runner.call("learn", lambda: True, lambda: learner().begin_anew(first))
        return lost

    return _role("learn", settings, health, start, batch, left=lambda _partition: learner().release(), expired=expired)


def _role(
    name: str,
    settings: Settings,
    health: Health,
    start: Any,
    batch: Any,
    *,
    left: Callable[[int], None] = lambda _partition: None,
    settled: Callable[[int], int] = lambda _partition: NO_OFFSET,
    expired: Callable[[TP, int, int, int], Awaitable[int]] | None = None,
) -> Role:
    kafka = settings.kafka
    topics = {"score": settings.topics.transactions, "label": settings.topics.labels, "learn": settings.topics.examples}
    # One group per role: members of a group have to subscribe to the same topics, and roles can run apart.
    app = faust.App(
        f"{kafka.group}-{name}",
        **faust_settings(kafka.bootstrap_servers, session_timeout_s=kafka.session_timeout_s),
        **_credentials(kafka),
    )

    async def assigned(committed: Mapping[TP, int | None]) -> dict[TP, int]:
        starts: dict[TP, int] = await or_end(role, start(role, committed))
        return starts

    async def gone(tp: TP, wanted: int, first: int, log_end: int) -> None:
        policy = settings.on_offsets_expired
        skip = expired or partial(records_expired, policy=policy, settled=settled(tp.partition))
        health.totals["expired"] += await or_end(role, skip(tp, wanted, first, log_end))

    transport = MicroBatchTransport(
        app,
        records_max=settings.batch_records_max,
        batches_open_max=BATCHES_OPEN_MAX,
        fetch_wait_max_ms=kafka.fetch_wait_max_ms,
        on_assigned=assigned,
        on_expired=gone,
    )
    app.transport = transport
    role = Role(name, app, transport)

    async def idle(*told: Any, **_: Any) -> None:
        """More workers than partitions: this one has its place in the group, and nothing to do."""
        if not told[1]:
            health.partitions[name] = []

    async def revoked(*told: Any, **_: Any) -> None:
        health.partitions.pop(name, None)
        for tp in told[1]:
            left(tp.partition)

    app.on_partitions_assigned.connect(idle, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)
    limit_s = max(STALLED_S_MIN, kafka.session_timeout_s)
    # Before the first assignment there is no consumer to ask.
    health.checks[name] = lambda: transport.stalled(limit_s) if name in health.partitions else []

    @app.agent(app.topic(topics[name], key_serializer="raw", value_serializer="raw"), name=name)
    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            try:
                done = not transport.is_current(event) or await batch(role, event)
            except Exception as error:  # noqa: BLE001 - whatever escapes here would be acknowledged by Faust and lost
                await end(role, error)
                return
            if done:
                await stream.ack(event)
            else:
                transport.release(event)

    return role


def _credentials(kafka: KafkaSettings) -> dict[str, Any]:
    if kafka.security_protocol == "PLAINTEXT":
        return {}
    import ssl  # noqa: PLC0415 - needed by few

    context = ssl.create_default_context(cafile=kafka.ssl_ca_file) if kafka.security_protocol.endswith("SSL") else None
    if kafka.security_protocol == "SSL":
        return {"broker_credentials": faust.SSLCredentials(context)}
    return {
        "broker_credentials": faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    }

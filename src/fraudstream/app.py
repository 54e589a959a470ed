"""The Faust apps: one per role, so that labelling never competes with scoring for a group's partitions.

The agents are a few lines: they hand a micro-batch to its service in a thread of its own, wait out what is away, and
acknowledge last. Nothing may escape an agent: Faust acknowledges the event of an agent that raised.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import faust
from faust.types import TP, EventT

from fraudstream.adapters.faust_worker import faust_settings
from fraudstream.adapters.kafka_transport import MicroBatchTransport
from fraudstream.core.ports import NO_OFFSET
from fraudstream.errors import BrokerUnavailable, FraudstreamError, StateUnavailable
from fraudstream.services.health import Health
from fraudstream.services.labelling import Labeller
from fraudstream.services.scoring import Ending, Scorer
from fraudstream.settings import KafkaSettings, Settings, StateLost

log = logging.getLogger("fraudstream.worker")
R = TypeVar("R")

# Between attempts while Redis or Kafka is away: short at first, as most outages are, then a steady knock.
RETRY_S_FIRST: Final = 0.1
RETRY_S_MAX: Final = 5.0
# How long a worker that was fenced waits to hear that the partition is another's now. Hearing nothing, it owns it still:
# the other one was late (it took the lease of an assignment that had passed), and nobody would ever write it again.
FENCED_RETRY_S: Final = 1.0
# One batch at a time: what comes meanwhile joins the next one of its partition instead of queueing behind it as a batch
# of its own. At 300 records/s in 4 partitions the median wait fell from 40 to 15 ms; a backlog was drained no slower.
BATCHES_OPEN_MAX: Final = 1
# How long the example of an early label waits for a label role that has nothing else to do.
EXAMPLES_DUE_EVERY_S: Final = 1.0
# What stands still for longer than this, and than a session, is neither a rebalance nor a slow batch.
STALLED_S_MIN: Final = 10.0


class StateLostError(FraudstreamError):
    """The store knows nothing of a partition that Kafka says was read before."""


class GivenUpError(FraudstreamError):
    """Redis or Kafka stayed away longer than the limit."""


@dataclass
class Role:
    """A role at work: its Faust app and its transport."""

    name: str
    app: faust.App
    transport: MicroBatchTransport


class Runner:
    """Runs service calls in one thread, again and again while what they need is away."""

    def __init__(self, health: Health, outage_s_max: float) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="service")
        self._health = health
        self._outage_s_max = outage_s_max

    async def call(self, what: str, still_wanted: Callable[[], bool], work: Callable[[], R]) -> R | None:
        """The result of `work`; None once it is no longer wanted. Raises `GivenUpError` past the limit."""
        began_s, pause_s = time.monotonic(), RETRY_S_FIRST
        while still_wanted():
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            except (StateUnavailable, BrokerUnavailable) as error:
                away_s = time.monotonic() - began_s
                if away_s > self._outage_s_max:
                    raise GivenUpError(f"{what}: given up after {away_s:.0f} s: {error}") from error
                if what not in self._health.troubles:
                    log.warning("%s waits: %s", what, error)
                self._health.troubles[what] = f"{what} waits: {error}"
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_S_MAX)
            else:
                if self._health.troubles.pop(what, None):
                    log.warning("%s goes on after %.1f s", what, time.monotonic() - began_s)
                return result
        self._health.troubles.pop(what, None)
        return None


def score_role(settings: Settings, scorer: Scorer, health: Health) -> Role:
    """The app that decides transactions."""
    runner = Runner(health, settings.outage_s_max)

    async def start(committed: Mapping[TP, int | None]) -> dict[TP, int]:
        starts: dict[TP, int] = {}
        for tp, offset in committed.items():
            lease = await runner.call("score", lambda: True, lambda partition=tp.partition: scorer.take(partition))  # type: ignore[misc] # mypy cannot infer a lambda with a default
            assert lease is not None
            where = start_offset(tp, offset, lease.watermark, settings.on_state_lost)
            if where is not None:
                starts[tp] = where
        health.partitions["score"] = sorted(tp.partition for tp in committed)
        log.info("scoring partitions %s", health.partitions["score"])
        return starts

    async def batch(role: Role, event: EventT[Any]) -> bool:
        records = _records(event)
        partition = records[0].partition
        current = _current(role, event)
        done = await runner.call("score", current, lambda: scorer.process(partition, records))
        if done is None:
            return False
        if done.ending is Ending.REWOUND and done.resume_at is not None:
            log.error("Redis is not where partition %d left it: it lost data, or an answer of it", partition)
            await _resume(role, records[0], done.resume_at, settings.on_state_lost)
            return False
        if done.ending is Ending.FENCED:
            log.warning("partition %d was taken by another worker: its batch is dropped here", partition)
            await asyncio.sleep(FENCED_RETRY_S)
            resume_at = await runner.call("score", current, lambda: scorer.retake(partition, records[0].offset))
            if resume_at is not None:
                log.warning("partition %d is this worker's still: its lease is taken again", partition)
                await _resume(role, records[0], resume_at, settings.on_state_lost)
            return False
        for name in ("decided", "alerts", "duplicates", "repeated", "rejected"):
            health.totals[name] += getattr(done, name)
        return True

    return _role("score", settings, health, start, batch, left=scorer.release)


def label_role(settings: Settings, labeller: Labeller, health: Health) -> Role:
    """The app that joins labels."""
    runner = Runner(health, settings.outage_s_max)

    async def start(committed: Mapping[TP, int | None]) -> dict[TP, int]:
        health.partitions["label"] = sorted(tp.partition for tp in committed)
        log.info("labelling partitions %s", health.partitions["label"])
        return {}

    async def batch(role: Role, event: EventT[Any]) -> bool:
        tally = await runner.call("label", _current(role, event), lambda: labeller.process(_records(event)))
        if tally is None:
            return False
        health.totals.update({f"labels_{name}": n for name, n in tally.items()})
        return True

    role = _role("label", settings, health, start, batch)

    async def examples_due() -> None:
        try:
            await runner.call("examples", lambda: not role.app.should_stop, labeller.publish_due)
        except Exception as error:  # noqa: BLE001 - as in an agent
            await _end(role, error)

    role.app.timer(EXAMPLES_DUE_EVERY_S)(examples_due)
    return role


def start_offset(tp: TP, committed: int | None, watermark: int, policy: StateLost) -> int | None:
    """Where a partition is read from: the older of what Kafka and the store say was done; None: as Kafka says.

    Raises `StateLostError` if the store is empty where Kafka's offset says it must not be, unless a policy says to
    accept that (go on without the lost state) or to replay the topic from its beginning.
    """
    if watermark != NO_OFFSET:
        return None if committed is None else min(committed, watermark + 1)
    if not committed:
        return None
    if policy == "stop":
        raise StateLostError(
            f"Redis has no state of {tp.topic}[{tp.partition}], but {committed} records were processed before: restore "
            "it, or set FRAUDSTREAM_ON_STATE_LOST to replay (decide the topic again) or accept (go on without)"
        )
    return 0 if policy == "replay" else None


async def _resume(role: Role, first: Any, resume_at: int, policy: StateLost) -> None:
    """Read on where the store needs it, or as the policy says if it knows nothing of the partition any more."""
    tp = TP(first.topic, first.partition)
    where = start_offset(tp, first.offset, resume_at - 1, policy)
    if where is not None:
        log.warning("partition %d is read again from offset %d", tp.partition, where)
        await role.app.consumer.seek(tp, where)


def _role(
    name: str,
    settings: Settings,
    health: Health,
    start: Any,
    batch: Any,
    *,
    left: Callable[[int], None] = lambda _partition: None,
) -> Role:
    kafka = settings.kafka
    topic = settings.topics.transactions if name == "score" else settings.topics.labels
    # One group per role: members of a group have to subscribe to the same topics, and roles can run apart.
    app = faust.App(
        f"{kafka.group}-{name}",
        **faust_settings(kafka.bootstrap_servers, session_timeout_s=kafka.session_timeout_s),
        **_credentials(kafka),
    )

    async def assigned(committed: Mapping[TP, int | None]) -> dict[TP, int]:
        try:
            starts: dict[TP, int] = await start(committed)
        except FraudstreamError as error:
            await _end(role, error)
            raise
        return starts

    transport = MicroBatchTransport(
        app,
        records_max=settings.batch_records_max,
        batches_open_max=BATCHES_OPEN_MAX,
        fetch_wait_max_ms=kafka.fetch_wait_max_ms,
        on_assigned=assigned,
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

    @app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), name=name)
    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            try:
                done = not transport.is_current(event) or await batch(role, event)
            except Exception as error:  # noqa: BLE001 - whatever escapes here would be acknowledged by Faust and lost
                await _end(role, error)
                return
            if done:
                await stream.ack(event)
            else:
                transport.release(event)

    return role


def _records(event: EventT[Any]) -> list[Any]:
    """The records of a micro-batch; Faust's type does not know that a value can be a list."""
    return cast(list[Any], event.value)


def _current(role: Role, event: EventT[Any]) -> Callable[[], bool]:
    return lambda: role.transport.is_current(event) and not role.app.should_stop


async def _end(role: Role, error: Exception) -> None:
    """End the worker with exit code 1: the batch was not acknowledged and is delivered again."""
    if isinstance(error, FraudstreamError):
        log.critical("%s ends: %s", role.name, error)
    else:
        log.critical("%s ends by a fault of its own", role.name, exc_info=error)
    await role.app.crash(error)


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

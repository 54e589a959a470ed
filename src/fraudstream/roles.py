"""What the roles' apps share: a role at work, calls that outlast an outage, where to read on, how to end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import faust
from faust.types import TP, EventT

from fraudstream.adapters.kafka_transport import MicroBatchTransport
from fraudstream.core.ports import NO_OFFSET
from fraudstream.errors import BrokerUnavailable, FraudstreamError, StateUnavailable, StillBuilding
from fraudstream.services.health import Health
from fraudstream.settings import OffsetsExpired, StateLost

log = logging.getLogger("fraudstream.worker")
R = TypeVar("R")

# Between attempts while Redis or Kafka is away: short at first, as most outages are, then a steady knock.
RETRY_S_FIRST: Final = 0.1
RETRY_S_MAX: Final = 5.0


class StateLostError(FraudstreamError):
    """The store knows nothing of a partition that Kafka says was read before."""


class GivenUpError(FraudstreamError):
    """Redis or Kafka stayed away longer than the limit."""


class OffsetsExpiredError(FraudstreamError):
    """The broker no longer holds what was to be read next."""


class StalledError(FraudstreamError):
    """A role made no progress for longer than the limit, and no outage explains it."""


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

    async def call(
        self, what: str, still_wanted: Callable[[], bool], work: Callable[[], R], *, patience_s: float | None = None
    ) -> R | None:
        """The result of `work`; None once it is no longer wanted. Raises `GivenUpError` past the limit.

        With `patience_s` a store that stays away for longer raises `StateUnavailable`: there is something else to do.
        """
        began_s, pause_s = time.monotonic(), RETRY_S_FIRST
        while still_wanted():
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            except (StateUnavailable, BrokerUnavailable) as error:
                away_s = time.monotonic() - began_s
                if patience_s is not None and away_s >= patience_s and isinstance(error, StateUnavailable):
                    raise
                if away_s > self._outage_s_max and not isinstance(error, StillBuilding):
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


def start_offset(tp: TP, committed: int | None, watermark: int, policy: StateLost) -> int | None:
    """Where a partition is read from: the older of what Kafka and the store say was done; None: as Kafka says.

    Where the store knows of records and Kafka of none, from offset 0 and not from whatever the log begins with by now: what
    was deleted before it was read is told then (`records_expired`).

    Raises `StateLostError` if the store is empty where Kafka's offset says it must not be, unless a policy says to
    accept that (go on without the lost state) or to replay the topic from its beginning.
    """
    if watermark != NO_OFFSET:
        return min(committed or 0, watermark + 1)
    if not committed:
        return None
    if policy == "stop":
        raise StateLostError(
            f"Redis has no state of {tp.topic}[{tp.partition}], but {committed} records were processed before: restore "
            "it, or set FRAUDSTREAM_ON_STATE_LOST to replay (decide the topic again) or accept (go on without)"
        )
    return 0 if policy == "replay" else None


async def records_expired(
    tp: TP, wanted: int, first: int, log_end: int, policy: OffsetsExpired, *, settled: int = NO_OFFSET
) -> int:
    """How many records are lost where the broker holds only the offsets from `first` below `log_end`.

    Read from the very beginning, as nothing was committed, only what lies past `settled` can be lost: the store has the
    rest. Raises `OffsetsExpiredError` unless the policy says to go on.
    """
    where = f"{tp.topic}[{tp.partition}]"
    if wanted == 0:
        wanted = min(first, settled + 1)
        if 0 < wanted == first:
            log.info("%s: read from offset %d, where the log begins", where, first)
            return 0
    if wanted < first:
        lost = first - wanted
        what = f"offsets {wanted} to {first - 1} of {where} were deleted before they were read"
    else:
        lost = 0
        what = f"{where} ends at offset {log_end}, and was read up to {wanted}: its log was cut, or it was made anew"
    if policy == "stop":
        raise OffsetsExpiredError(
            f"{what}; restore them, or set FRAUDSTREAM_ON_OFFSETS_EXPIRED=earliest to go on at offset {first}"
        )
    log.error("%s: read on at offset %d", what, first)
    return lost


async def resume(role: Role, tp: TP, first: int, resume_at: int, policy: StateLost) -> None:
    """Read on where the store needs it, or as the policy says if it knows nothing of the partition any more.

    `first` is the first offset that is not done.
    """
    where = start_offset(tp, first, resume_at - 1, policy)
    if where is not None:
        log.warning("partition %d is read again from offset %d", tp.partition, where)
        await role.app.consumer.seek(tp, where)


def records_of(event: EventT[Any]) -> list[Any]:
    """The records of a micro-batch; Faust's type does not know that a value can be a list."""
    return cast(list[Any], event.value)


def by_partition(records: Iterable[Any]) -> dict[TP, list[Any]]:
    """The records of a micro-batch, those of each partition in their order."""
    found: dict[TP, list[Any]] = {}
    for record in records:
        found.setdefault(TP(record.topic, record.partition), []).append(record)
    return found


def still_current(role: Role, event: EventT[Any]) -> Callable[[], bool]:
    """A question for `Runner.call`: does the event still have to be worked on, here?"""
    return lambda: role.transport.is_current(event) and not role.app.should_stop


async def or_end(role: Role, work: Awaitable[R]) -> R:
    """The result of `work`; an error that a person has to act on ends the worker."""
    try:
        return await work
    except FraudstreamError as error:
        await end(role, error)
        raise


async def end(role: Role, error: Exception) -> None:
    """End the worker with exit code 1: the batch was not acknowledged and is delivered again."""
    if isinstance(error, FraudstreamError):
        log.critical("%s ends: %s", role.name, error)
    else:
        log.critical("%s ends by a fault of its own", role.name, exc_info=error)
    await role.app.crash(error)

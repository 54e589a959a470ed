"""A worker process: builds the parts, runs the apps of its roles, tells how it is."""

import asyncio
import gc
import logging
from collections.abc import Sequence

import faust
from mode import Service

from fraudstream.adapters.faust_worker import run_worker
from fraudstream.app import label_role, learn_role, score_role
from fraudstream.roles import Role, StalledError, end
from fraudstream.services import startup
from fraudstream.services.health import Health
from fraudstream.services.reporting import report
from fraudstream.services.watchdog import LOOK_EVERY_S, Standstill, Watchdog
from fraudstream.settings import Settings

log = logging.getLogger("fraudstream.start")


def check(settings: Settings) -> None:
    """Open everything a worker needs and close it. Raises a `FraudstreamError` that says what is wrong."""
    startup.build(settings).close()


def worker(settings: Settings) -> int:
    """Run until told to stop; the exit code. Raises a `FraudstreamError` if it cannot start."""
    parts = startup.build(settings)
    health = Health(settings.roles)
    roles: list[Role] = []
    if "score" in settings.roles:
        roles.append(score_role(settings, parts.scorer, health, parts.guesser))
    if "label" in settings.roles:
        roles.append(label_role(settings, parts.labeller, health))
    if parts.late_labels:
        parts.late_labels.indexer.tell = health.teller("late labels")
        parts.late_labels.indexer.start()
    if parts.watching:
        parts.watching.start(health)
    if parts.online.learner is not None:
        roles.append(learn_role(settings, parts.online.learner, health))
    for publisher in (*parts.publishers, *parts.online.publishers):
        publisher.stopping = lambda: any(role.app.should_stop for role in roles)
    if settings.health_file:
        settings.health_file.unlink(missing_ok=True)  # a former worker's would say that this one is ready
    log.info("roles %s, brokers %s", ", ".join(role.name for role in roles), settings.kafka.bootstrap_servers)
    # What lives now lives on: keep the collector from walking over models and modules again and again.
    gc.collect()
    gc.freeze()
    parts.online.start()
    first, *others = [role.app for role in roles]
    try:
        return run_worker(first, *others, _reporter(settings, health), _watch(settings, health, roles))
    finally:
        parts.close()


def _watch(settings: Settings, health: Health, roles: Sequence[Role]) -> faust.Service:
    limit_s = settings.stalled_s_max
    watchdog = Watchdog(limit_s)

    class Watch(Service):
        async def on_start(self) -> None:
            watchdog.start()

        @Service.task
        async def _look(self) -> None:
            standstills = {role.name: Standstill(limit_s) for role in roles}
            while not any(role.app.should_stop for role in roles):
                await self.sleep(LOOK_EVERY_S)
                watchdog.beat()
                for role in roles:
                    found = health.standing(role.name)
                    if standstills[role.name].look(found):
                        await end(role, StalledError(f"no progress for {limit_s:.0f} s: {'; '.join(found)}"))
            watchdog.ending()

        async def on_stop(self) -> None:
            watchdog.ending()

    return Watch()


def _reporter(settings: Settings, health: Health) -> faust.Service:
    class Reporter(Service):
        @Service.task
        async def _tell(self) -> None:
            task = asyncio.ensure_future(report(health, settings.health_file))
            await self.wait_for_stopped()
            task.cancel()

    return Reporter()

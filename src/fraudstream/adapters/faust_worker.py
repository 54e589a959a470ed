"""How this system sets Faust, and how it runs a Faust worker inside a command of its own."""

import asyncio
import io
import os
import tempfile
from typing import Any

import faust
import uvloop
from faust.tables import TableManager

SESSION_TIMEOUT_S = 10.0
"""How long after a crash another worker takes over. Faust has 60. Apache Kafka refuses less than 6."""


class _NoTables(TableManager):
    """Faust's table manager without its second of waiting for tables: this system has none."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class _Worker(faust.Worker):
    """Faust's worker without its second of sleep after everything has ended."""

    async def _sentinel_task(self) -> None:
        await asyncio.sleep(0)


def faust_settings(bootstrap_servers: str, *, session_timeout_s: float = SESSION_TIMEOUT_S) -> dict[str, Any]:
    """The settings of a Faust app with the micro-batch transport, to be passed to `faust.App(group, **settings)`.

    Parameters
    ----------
    bootstrap_servers
        `host:port`, several with commas between them.
    session_timeout_s
        See SESSION_TIMEOUT_S. Tansu lets a worker's first join take half of it, so embedded settings take 6.
    """
    return {
        "broker": [f"kafka://{server.strip()}" for server in bootstrap_servers.split(",")],
        "broker_session_timeout": session_timeout_s,
        "broker_heartbeat_interval": session_timeout_s / 5,  # a member learns of a rebalance by its next heartbeat
        # How long a rebalance waits for a member that is still at its batch; past it, the member is out of the group.
        "broker_rebalance_timeout": max(2 * session_timeout_s, 20.0),
        "broker_request_timeout": 40.0,  # has to exceed the session's
        "broker_commit_interval": 1.0,
        "broker_commit_every": 1_000_000,  # records; Faust's 10,000 would commit 30 times a second under full load
        "broker_max_poll_interval": 600.0,  # one batch longer than that, and another worker takes the partition
        "consumer_auto_offset_reset": "earliest",
        "stream_wait_empty": True,  # a rebalance and the worker's end wait for the batch in work; False loses it
        "topic_disable_leader": True,  # these two: Faust creates no topic and makes no administrative call
        "topic_allow_declare": False,
        "table_standby_replicas": 0,  # no tables: aiokafka's own assignor, and no table metadata in each join
        "TableManager": _NoTables,
        # Faust makes an empty directory for the tables we do not have, by default in the working directory.
        "datadir": f"{tempfile.gettempdir()}/fraudstream-faust-{os.getuid()}",
        "web_enabled": False,  # it would bind all interfaces; `faust worker` ignores this, `run_worker` does not
    }


def run_worker(app: faust.App, *services: faust.Service, use_uvloop: bool = True) -> int:
    """Run the app until SIGTERM, SIGINT or a crash; return the exit code: 0, or 1 after a crash.

    Logging stays as the caller has set it up. Blocks; owns the process's event loop.
    """
    if use_uvloop:
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # a policy, so that the consumer's thread has one too
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Faust prints the stack of a crash there, after it was logged.
    unseen = io.StringIO()
    worker = _Worker(
        app, *services, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False, stderr=unseen
    )
    worker.spinner = None  # Faust's progress bar
    try:
        worker.execute_from_commandline()
    except SystemExit as exit_:
        return int(exit_.code or 0)

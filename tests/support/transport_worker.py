"""A worker process for the transport's tests and benchmark: counts, and tells what it saw in lines on stdout.

assigned <json: partition -> committed offset>
batch <partition> <first offset> <last offset> <records> <ms since the newest record was made>
acked <partition> <last offset>
stale <partition> <first offset>
holding <partition> <first offset>
revoked <json: partitions>
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import faust
from faust.types import TP

from fraudstream.adapters.faust_worker import faust_settings, run_worker
from fraudstream.adapters.kafka_transport import MicroBatchTransport
from fraudstream.roles import by_partition


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap_servers")
    parser.add_argument("topic")
    parser.add_argument("group")
    parser.add_argument("--records-max", type=int, default=1024)
    parser.add_argument("--session-timeout-s", type=float, default=6)
    parser.add_argument("--commit-interval-s", type=float, default=0.3)
    parser.add_argument("--max-poll-interval-s", type=float, default=600)
    parser.add_argument("--work-ms", type=float, default=0, help="per batch")
    parser.add_argument("--hold-after", type=int, default=-1, help="hold the first batch after so many records")
    parser.add_argument("--hold-s", type=float, default=3600)
    parser.add_argument("--start", default="{}", help="JSON: partition -> offset, returned by the first on_assigned")
    parser.add_argument("--seek-after", type=int, default=-1, help="seek all to 0 once, after so many records")
    parser.add_argument("--release-after", type=int, default=-1, help="give back one batch, after so many records")
    parser.add_argument("--crash-after", type=int, default=-1, help="app.crash, after so many records")
    parser.add_argument("--raise-after", type=int, default=-1, help="raise in the agent, after so many records")
    parser.add_argument("--fail-start", action="store_true", help="on_assigned raises")
    parser.add_argument("--disturb", choices=["partitions", "flow"], help="pause and resume all the time")
    parser.add_argument("--asyncio", action="store_true", help="asyncio's own loop, not uvloop")
    return parser.parse_args()


async def disturb(app: faust.App, how: str) -> None:
    consumer: Any = app.consumer
    while not app.should_stop:
        await asyncio.sleep(0.4 if how == "flow" else 0.03)
        if not app.transport.progress() or any(at.acked is None for at in app.transport.progress().values()):
            continue  # where to begin is not known yet
        if app.rebalancing or not consumer.flow_active or not consumer.assignment():
            continue
        if how == "flow":
            consumer.stop_flow()
            await asyncio.sleep(0.01)
            if not app.rebalancing and not app.should_stop:
                consumer.resume_flow()
        else:
            paused = {tp for tp in consumer.assignment() if (tp.partition + int(time.monotonic() * 30)) % 2}
            consumer.pause_partitions(paused)
            await asyncio.sleep(0.02)
            if not app.rebalancing and not app.should_stop:
                consumer.resume_partitions(paused & consumer.assignment())


async def watch(app: faust.App, transport: MicroBatchTransport) -> None:
    last: list[str] = []
    while not app.should_stop:
        now = [line.split(":")[0] for line in transport.stalled(limit_s=0.5)]
        if now != last:
            say("stalled", compact(now))
            last = now
        await asyncio.sleep(0.05)


class Agent:
    """What the agent does with each batch: counts it, and does once what the options ask for."""

    def __init__(self, app: faust.App, transport: MicroBatchTransport, options: argparse.Namespace) -> None:
        self._app, self._transport, self._options = app, transport, options
        self._seen = 0
        self._done: set[str] = set()

    def _once(self, name: str) -> bool:
        after: int = getattr(self._options, f"{name}_after")
        due = 0 <= after <= self._seen and name not in self._done
        if due:
            self._done.add(name)
        return due

    async def run(self, stream: Any) -> None:
        async for event in stream.noack().events():
            batches = by_partition(event.value)
            if self._transport.is_current(event):
                for tp, records in batches.items():
                    age_ms = time.time() * 1000 - records[-1].timestamp
                    told = tp.partition, records[0].offset, records[-1].offset, len(records), f"{age_ms:.1f}"
                    say("batch", *told)
                self._seen += len(event.value)
                if not await self._work(event):
                    continue
                for tp, records in batches.items():
                    say("acked", tp.partition, records[-1].offset)
            else:
                for tp, records in batches.items():
                    say("stale", tp.partition, records[0].offset)
            await stream.ack(event)

    async def _work(self, event: Any) -> bool:
        """Whether the batch is done."""
        if self._once("hold"):
            say("holding", event.value[0].partition, event.value[0].offset)
            await asyncio.sleep(self._options.hold_s)
        if self._once("crash"):
            await self._app.crash(RuntimeError("asked for"))
            return False
        if self._once("raise"):
            raise RuntimeError("asked for")
        if self._once("release"):
            self._transport.release(event)
            return False
        if self._once("seek"):
            for tp in self._app.consumer.assignment():
                await self._app.consumer.seek(tp, 0)
        if self._options.work_ms:
            await asyncio.sleep(self._options.work_ms / 1000)
        return True


def main() -> int:
    options = arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = faust_settings(options.bootstrap_servers, session_timeout_s=options.session_timeout_s)
    settings |= {
        "broker_commit_interval": options.commit_interval_s,
        "broker_max_poll_interval": options.max_poll_interval_s,
    }
    app = faust.App(options.group, **settings)
    start: dict[str, int] = json.loads(options.start)

    async def on_assigned(committed: Mapping[TP, int | None]) -> Mapping[TP, int]:
        say("assigned", compact({tp.partition: offset for tp, offset in sorted(committed.items())}))
        if options.fail_start:
            raise RuntimeError("asked for")
        wanted = {tp: start[str(tp.partition)] for tp in committed if str(tp.partition) in start}
        start.clear()
        return wanted

    transport = MicroBatchTransport(app, records_max=options.records_max, on_assigned=on_assigned)
    app.transport = transport

    async def on_revoked(app: Any, revoked: set[TP], **_: Any) -> None:
        say("revoked", compact(sorted(tp.partition for tp in revoked)))

    app.on_partitions_revoked.connect(on_revoked)
    app.task(partial(watch, app, transport))
    if options.disturb:
        app.task(partial(disturb, app, options.disturb))
    app.agent(app.topic(options.topic, value_serializer="raw"))(Agent(app, transport, options).run)
    return run_worker(app, use_uvloop=not options.asyncio)


if __name__ == "__main__":
    sys.exit(main())

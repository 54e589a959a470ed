"""Records per second through a Faust agent that only counts: plain Faust against micro-batches; and a lone record's way.

    python benchmarks/bench_transport.py [--records 300000] [--kafka auto|apache|tansu] [--only micro-batch ...]

One worker, one broker, one machine. Each worker is a process of its own; its time is taken from its first record to its
last one, its CPU time from the start of consumption to the end, all threads.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiokafka
import faust
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from fraudstream.adapters.faust_worker import faust_settings, run_worker
from fraudstream.adapters.kafka_transport import MicroBatchTransport
from fraudstream.embedded import start_kafka

PARTITIONS = 4
LONE_RECORDS = 40
KINDS = ("plain", "micro-batch", "micro-batch, asyncio's loop", "aiokafka alone")


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Count:
    """Counts records and tells, at the last one, what it took."""

    def __init__(self, wanted: int) -> None:
        self._wanted, self._seen, self._start_s, self._cpu_s = wanted, 0, 0.0, 0.0
        self.events = 0

    def add(self, records: int, newest_ms: int | None) -> bool:
        if self._seen == 0:
            self._start_s, self._cpu_s = time.monotonic(), cpu_s()
        self._seen += records
        self.events += 1
        if newest_ms is not None:
            emit({"age_ms": time.time() * 1000 - newest_ms})
        if self._seen < self._wanted:
            return False
        took_s = max(time.monotonic() - self._start_s, 1e-9)
        emit({"records": self._seen, "events": self.events, "s": took_s, "cpu_s": cpu_s() - self._cpu_s,
              "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})  # fmt: skip
        return True


def emit(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def worker(options: argparse.Namespace) -> int:
    """The process that is measured."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    count = Count(options.records)
    if options.worker == "aiokafka alone":
        return asyncio.run(bare(options, count))
    app = faust.App(f"bench-{os.getpid()}", **faust_settings(options.bootstrap_servers, session_timeout_s=6))
    topic = app.topic(options.topic, value_serializer="raw")

    async def plain(stream: Any) -> None:
        async for event in stream.noack().events():
            count.add(1, int(event.message.timestamp * 1000) if options.lone else None)
            await stream.ack(event)

    async def batches(stream: Any) -> None:
        async for event in stream.noack().events():
            count.add(len(event.value), event.value[-1].timestamp if options.lone else None)
            await stream.ack(event)

    if options.worker == "plain":
        app.agent(topic)(plain)
    else:
        app.transport = MicroBatchTransport(app)
        app.agent(topic)(batches)
    return run_worker(app, use_uvloop="asyncio" not in options.worker)


async def bare(options: argparse.Namespace, count: Count) -> int:
    consumer = aiokafka.AIOKafkaConsumer(
        options.topic, bootstrap_servers=options.bootstrap_servers, group_id=f"bench-{os.getpid()}",
        session_timeout_ms=6000, auto_offset_reset="earliest", fetch_max_wait_ms=100,
    )  # fmt: skip
    await consumer.start()
    done = False
    while not done:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            done = count.add(len(records), records[-1].timestamp if options.lone else None)
    await consumer.stop()
    return 0


def run(kind: str, bootstrap_servers: str, topic: str, records: int, lone: Producer | None = None) -> dict[str, Any]:
    """Start a worker on the topic; return what it told, with the ages of lone records under `ages_ms`."""
    command = [sys.executable, __file__, "--worker", kind, "--topic", topic, "--bootstrap-servers", bootstrap_servers,
               "--records", str(records), *(["--lone"] if lone else [])]  # fmt: skip
    ages: list[float] = []
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                told = json.loads(line)
                if "s" in told:
                    return {**told, "ages_ms": ages, "total_s": time.monotonic() - begun}
                ages.append(told["age_ms"])
                if lone is not None:
                    time.sleep(random.Random(len(ages)).uniform(0.01, 0.6))
                    lone.produce(topic, value=b"x" * 230, partition=len(ages) % PARTITIONS)
                    lone.flush(10)
        finally:
            process.kill()
    raise SystemExit(f"the worker {kind!r} ended early")


def transaction(number: int, rng: random.Random) -> bytes:
    """About 230 bytes, as compressible as transactions are."""
    return json.dumps({
        "transaction_id": f"tx-{rng.getrandbits(64):016x}-{number:09d}", "event_time": 1_700_000_000_000 + number * 10,
        "card_id": f"card-{number % 50_000:010d}", "terminal_id": f"terminal-{rng.randrange(5_000):08d}",
        "amount": round(rng.lognormvariate(3.5, 1), 2), "currency": "EUR", "channel": "pos", "country": "DE",
    }).encode()  # fmt: skip


def fill(producer: Producer, topic: str, records: int) -> None:
    rng = random.Random(1)
    for number in range(records):
        producer.produce(topic, value=transaction(number, rng), key=b"card-%d" % (number % 50_000))
        if number % 1_000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0


def report(kind: str, told: dict[str, Any]) -> None:
    rate, cpu_us = told["records"] / told["s"], told["cpu_s"] / told["records"] * 1e6
    print(f"{kind:28} {rate:>9,.0f} records/s  {cpu_us:7.2f} µs CPU/record  {told['events']:>7,} events  "
          f"{told['rss_mb']:4.0f} MB", flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--kafka", choices=["auto", "apache", "tansu"], default="auto")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    for hidden in ("--worker", "--topic", "--bootstrap-servers"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--lone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options)
    with tempfile.TemporaryDirectory() as folder, start_kafka(Path(folder), prefer=options.kafka) as kafka:
        servers = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0}
        admin = AdminClient(servers)
        for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in ("full", "lone")]).values():
            made.result(30)
        fill(Producer({**servers, "partitioner": "murmur2_random", "compression.type": "lz4", "linger.ms": 20}),
             "full", options.records)  # fmt: skip
        print(f"{kafka.kind}, {options.records:,} records in {PARTITIONS} partitions, load {os.getloadavg()[0]:.1f}")
        for kind in options.only:
            report(kind, run(kind, kafka.bootstrap_servers, "full", options.records))
        for kind in options.only:
            lone = Producer({**servers, "linger.ms": 0})
            topic = f"lone-{KINDS.index(kind)}"
            admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
            lone.produce(topic, value=b"first", partition=0)
            lone.flush(10)
            told = run(kind, kafka.bootstrap_servers, topic, LONE_RECORDS, lone)
            ages = sorted(told["ages_ms"][1:])
            print(f"{kind:28} lone record: median {statistics.median(ages):.1f} ms, worst of {len(ages)} {ages[-1]:.1f} ms",
                  flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A benchmark from start to figures: make the world, start the parts, measure one thing after the other."""

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from fraudstream.benchmark import measure, records, stages, world
from fraudstream.benchmark.system import Parts, Servers, System
from fraudstream.errors import SettingsError

HALF: Final = "half"
# No worker is that fast; it bounds the records kept for a run at half of what was measured.
PER_S_MAX: Final = 60_000
LIBRARIES: Final = ("fraudstream", "faust-streaming", "aiokafka", "confluent-kafka", "redis", "numpy", "onnxruntime")


class Options(Struct, frozen=True):
    """What is measured. `rates` are transactions per second, or "half" of the throughput measured before."""

    transactions: int = 200_000
    rates: tuple[str, ...] = ()
    seconds: float = 20.0
    workers: int = 1
    partitions: int = 8
    stages: bool = False
    size: world.Size = world.Size()
    parts: Parts = Parts()
    registry: Path | None = None
    directory: Path | None = None


def run(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; the figures as plain data. Raises a `FraudstreamError` that says what went wrong and where the logs are."""
    wanted_rates = checked_rates(options.rates)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="fraudstream-benchmark-"))
    say("simulating cards and training a model on their history")
    latency_records = sum(_needed(PER_S_MAX / 2 if r is None else r, options.seconds) for r in wanted_rates)
    of_stages = stages.needed(stages.counts_for(options.transactions)) if options.stages else 0
    needed = options.transactions + latency_records + of_stages
    made = world.make(directory / "world", options.size, needed, options.registry)
    try:
        with contextlib.ExitStack() as stack:
            servers = Servers(options.parts, directory, stack)
            stack.callback(servers.client.close)
            system = System(
                servers, made, directory / "run", partitions=options.partitions, transactions=options.transactions
            )
            stack.callback(system.remove)
            figures = _measured(options, wanted_rates, system, made, say)
    except BaseException:
        say(f"logs are kept in {directory}")
        raise
    if options.directory is None:
        shutil.rmtree(directory, ignore_errors=True)
    return figures


def checked_rates(rates: Sequence[str]) -> list[float | None]:
    """Numbers above 0; None for half of the throughput. Raises `SettingsError`.

    Examples
    --------
    >>> checked_rates(["2000", "half"])
    [2000.0, None]
    """
    found: list[float | None] = []
    for text in rates:
        try:
            rate = None if text == HALF else float(text)
        except ValueError:
            rate = 0.0
        if rate is not None and not 0 < rate <= PER_S_MAX:
            raise SettingsError(f"--rate {text}: a number of transactions per second up to {PER_S_MAX:,}, or {HALF}")
        found.append(rate)
    return found


def _measured(
    options: Options, rates: list[float | None], system: System, made: world.World, say: Callable[[str], None]
) -> dict[str, Any]:
    servers = system.servers
    system.create_topics()
    say("loading the history of cards and terminals into Redis, filling the topic")
    system.warm_up()
    live, faster = made.live, options.size.faster
    sent = records.read(live, 0, options.transactions, faster=faster)
    records.fill(servers.bootstrap_servers, system.topics["transactions"], sent)
    figures: dict[str, Any] = {"machine": machine(servers), "options": _told(options)}
    say(f"starting {options.workers} worker{'s' if options.workers > 1 else ''}")
    redis_in, redis_out = servers.redis_bytes()
    began_s = time.monotonic()
    for _ in range(options.workers):
        system.start_worker()
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(system.wait_ready, began_s)
        throughput = measure.throughput(
            system, servers.bootstrap_servers, system.topics, options.transactions,
            by_reading=servers.kind == "tansu", began_s=began_s,
        )  # fmt: skip
        throughput["ready_s"] = round(ready.result(), 2)
    figures["throughput"] = throughput
    count = options.transactions
    throughput["bytes"] = {
        "record": round(sum(map(len, sent.values)) / count),
        "answer": throughput.pop("answer_bytes"),
        "redis_in": round((servers.redis_bytes()[0] - redis_in) / count),
        "redis_out": round((servers.redis_bytes()[1] - redis_out) / count),
    }
    samples = throughput["memory"]["worker-0"]
    throughput["worker_mb_per_million"] = measure.slope_mb_per_million(samples, options.transactions)
    say(f"{throughput['per_s']:,} transactions/s")
    figures["latency"] = []
    at = options.transactions
    for number, wanted in enumerate(rates):
        rate = wanted or throughput["per_s"] / 2
        say(f"latency at {rate:,.0f} transactions/s for {options.seconds:g} s")
        found = measure.latency(
            servers.bootstrap_servers, system.topics, live,
            faster=faster, first=at, rate=rate, seconds=options.seconds, seed=options.size.seed + number, seen=at, cpu_s=system.cpu_s,
        )  # fmt: skip
        figures["latency"].append(found | {"half_of_maximum": wanted is None})
        at += _needed(rate, options.seconds)
    system.stop()
    if options.stages:
        say("each stage alone")
        counts = stages.counts_for(options.transactions)
        figures["stages"] = stages.measure(system, records.read(live, at, stages.needed(counts), faster=faster), counts)
    return figures


def machine(servers: Servers) -> dict[str, Any]:
    """What the figures were measured on."""
    told: Any = servers.client.info("server")
    server = "valkey" if "valkey_version" in told else "redis"
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "broker": servers.kind,
        "store": f"{server} {told.get(f'{server}_version')}",
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _needed(rate: float, seconds: float) -> int:
    return measure.lead_records(rate) + round(rate * seconds)


def _told(options: Options) -> dict[str, Any]:
    return {
        "transactions": options.transactions,
        "workers": options.workers,
        "partitions": options.partitions,
        "cards": options.size.cards,
        "terminals": options.size.terminals,
        "seed": options.size.seed,
        "event_rate": options.size.event_rate,
        "append_only": options.parts.append_only,
    }

"""From measured costs to the size of a cluster: arithmetic alone, so that every number on the page can be redone."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from fraudstream.benchmark.report import table
from fraudstream.errors import SettingsError

# A core that is busy for more than this share answers late: the queue before it grows as 1 / (1 - share).
BUSY_MAX: Final = 0.6
# Room to add workers later without moving cards to other partitions, which would split their history.
PARTITIONS_PER_WORKER: Final = 2
# Two copies beside the leader's: what is written once is sent twice more between brokers.
REPLICAS: Final = 3
# Not measured, as one machine has no followers: fetching and appending a copy taken as half of the leader's work.
COPY_COST: Final = 0.5
GB: Final = 1e9


class Costs(Struct, frozen=True):
    """What one transaction costs, as measured: processor time in µs, bytes on the wire (before compression for Kafka's
    records), and bytes kept in Redis a card, a terminal and a stored decision.
    """

    worker_us: float
    redis_us: float
    kafka_us: float
    record_bytes: float
    answer_bytes: float
    redis_in_bytes: float
    redis_out_bytes: float
    card_bytes: float = 880
    terminal_bytes: float = 1_000
    decision_bytes: float = 200


class Cluster(Struct, frozen=True):
    """A cluster for `per_s` transactions a second. Cores and shards are those needed at `BUSY_MAX`."""

    per_s: int
    workers: int
    partitions: int
    redis_shards: int
    kafka_cores: int
    kafka_in_mbit: int  # records and answers, with the copies between brokers
    kafka_out_mbit: int
    redis_mbit: int  # both ways, all shards together
    redis_state_gb: float
    redis_decisions_gb_per_hour: float


def costs_of(figures: Mapping[str, Any]) -> Costs:
    """The costs in the figures of a benchmark. Raises `SettingsError` if they are of another form."""
    try:
        found = figures["throughput"]
        cpu, size = found["cpu_us"], found["bytes"]
        worker_us, redis_us, kafka_us = (round(float(cpu[part]), 1) for part in ("worker", "redis", "kafka"))
        sizes = [float(size[name]) for name in ("record", "answer", "redis_in", "redis_out")]
        return Costs(worker_us, redis_us, kafka_us, *sizes)
    except (KeyError, TypeError) as error:
        raise SettingsError(f"these figures cannot be planned with ({error!r} is missing): measure again") from error


def cluster(per_s: int, costs: Costs, *, cards: int, terminals: int) -> Cluster:
    """The smallest cluster that stays below `BUSY_MAX` everywhere.

    Examples
    --------
    >>> costs = Costs(30, 12, 15, 170, 800, 2_000, 1_800)
    >>> planned = cluster(100_000, costs, cards=10_000_000, terminals=500_000)
    >>> planned.workers, planned.partitions, planned.redis_shards, planned.kafka_cores
    (5, 16, 2, 5)
    >>> planned.redis_decisions_gb_per_hour
    72.0
    """
    workers = _cores(per_s * costs.worker_us)
    shards = _cores(per_s * costs.redis_us)
    # Each shard serves a group of partitions of its own, all of equal size.
    partitions = _round_up(PARTITIONS_PER_WORKER * workers, shards * 8)
    written = costs.record_bytes + costs.answer_bytes
    return Cluster(
        per_s=per_s,
        workers=workers,
        partitions=partitions,
        redis_shards=shards,
        kafka_cores=_cores(per_s * costs.kafka_us * (1 + COPY_COST * (REPLICAS - 1))),
        kafka_in_mbit=_mbit(per_s * written * REPLICAS),
        kafka_out_mbit=_mbit(per_s * (costs.record_bytes + costs.answer_bytes + written * (REPLICAS - 1))),
        redis_mbit=_mbit(per_s * (costs.redis_in_bytes + costs.redis_out_bytes)),
        redis_state_gb=round((cards * costs.card_bytes + shards * terminals * costs.terminal_bytes) / GB, 1),
        redis_decisions_gb_per_hour=round(per_s * 3600 * costs.decision_bytes / GB, 1),
    )


def costs_told(costs: Costs) -> str:
    """The costs as a Markdown table."""
    rows = [
        ["worker, CPU", f"{costs.worker_us:g} µs"],
        ["Redis, CPU", f"{costs.redis_us:g} µs"],
        ["broker, CPU", f"{costs.kafka_us:g} µs"],
        ["record in", f"{costs.record_bytes:g} bytes"],
        ["decision, and alerts by their share", f"{costs.answer_bytes:g} bytes"],
        ["to Redis", f"{costs.redis_in_bytes:g} bytes"],
        ["from Redis", f"{costs.redis_out_bytes:g} bytes"],
        ["kept a card", f"{costs.card_bytes:g} bytes"],
        ["kept a terminal", f"{costs.terminal_bytes:g} bytes"],
        ["kept a decision", f"{costs.decision_bytes:g} bytes"],
    ]
    return table(["a transaction", "measured"], rows)


def clusters_told(costs: Costs, rates: Sequence[int], *, cards: int, terminals: int) -> str:
    """A cluster for each rate as a Markdown table."""
    planned = [cluster(rate, costs, cards=cards, terminals=terminals) for rate in rates]
    rows = [
        ["worker processes, a core each", *(c.workers for c in planned)],
        ["partitions of `transactions`", *(c.partitions for c in planned)],
        ["Redis primaries, one per partition group", *(c.redis_shards for c in planned)],
        [f"broker cores, {REPLICAS} replicas", *(c.kafka_cores for c in planned)],
        ["network into the brokers, Mbit/s", *(c.kafka_in_mbit for c in planned)],
        ["network out of the brokers, Mbit/s", *(c.kafka_out_mbit for c in planned)],
        ["network workers to Redis and back, Mbit/s", *(c.redis_mbit for c in planned)],
        [f"Redis, {cards:,} cards and {terminals:,} terminals, GB", *(c.redis_state_gb for c in planned)],
        ["Redis, stored decisions an hour of retention, GB", *(c.redis_decisions_gb_per_hour for c in planned)],
    ]
    return table(["", *(f"{c.per_s:,} transactions/s" for c in planned)], rows)


def read(file: Path) -> dict[str, Any]:
    """Figures that a benchmark wrote. Raises `SettingsError`."""
    try:
        figures: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file}: {error}; fraudstream benchmark --json writes such a file") from error
    return figures


def _cores(us_per_s: float) -> int:
    return math.ceil(us_per_s / 1e6 / BUSY_MAX)


def _round_up(number: int, step: int) -> int:
    return step * math.ceil(number / step)


def _mbit(bytes_per_s: float) -> int:
    return math.ceil(8 * bytes_per_s / 1e6)

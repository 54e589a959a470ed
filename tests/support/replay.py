"""A stretch of history through the real system, held against the backtest of the same stretch.

Labels are joined before the first transaction is sent, so that the comparison does not depend on which of two topics is
read faster: windows that read frauds look only at what is older than the labels are late, in the backtest as live.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import Producer
from sklearn.metrics import average_precision_score, roc_auc_score

from fraudstream.codec import decode_decision
from tests.support.kafka import consume
from tests.support.system import System, run_ok
from tests.support.waiting import wait_until


@dataclass
class Replayed:
    """What a replay came to."""

    transactions: int
    decisions: int
    distinct: int
    live_auc: float
    live_ap: float
    backtest_auc: float
    backtest_ap: float
    decisions_per_s: float
    redis_cpu_us: float
    counts: dict[str, int]


def replay(system: System, file: Path, registry: Path, since: str, until: str, *, timeout_s: float = 300) -> Replayed:
    """Backtest [since, until) of a labelled file, then send it through Kafka, one worker and Redis."""
    report = system.directory / "backtest.json"
    common = ("--registry", str(registry))
    run_ok(
        "fraudstream", "evaluate", "--transactions", str(file), "--from", since, "--until", until, *common,
        "--json", str(report), timeout_s=timeout_s,
    )  # fmt: skip
    backtest = json.loads(report.read_text("utf-8"))
    run_ok("fraudstream", "warm-up", "--transactions", str(file), "--until", since, env=system.env)
    truth = _truth(file, since, until)
    _send_labels(system, truth)
    labeller = system.start_worker(FRAUDSTREAM_ROLES='["label"]')
    parked = f"{system.prefix}:{{0}}:labels:parked"
    wait_until(lambda: system.client.hlen(parked) == len(truth), timeout_s, f"{len(truth)} labels wait")
    labeller.stop()
    system.start_worker(FRAUDSTREAM_ROLES='["score"]')
    system.wait_ready()
    redis_began = _cpu_s(system)
    words = (
        "fraudstream-replay", str(file), "-b", system.bootstrap_servers, "--from", since, "--until", until,
        "--no-labels", "--quiet", "--transactions-topic", system.topics.transactions,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(run_ok, *words, timeout_s=timeout_s)
        # From the first decision on: before it, the producer's process starts.
        system.wait_accounted(1, timeout_s)
        began_s = time.monotonic()
        system.wait_accounted(len(truth), timeout_s)
        took_s = time.monotonic() - began_s
        sent.result()
    redis_cpu_s = _cpu_s(system) - redis_began
    messages = consume(system.bootstrap_servers, system.topics.decisions, len(truth), timeout_s=timeout_s)
    decisions = [decode_decision(message.value() or b"") for message in messages]
    names = {decision.transaction_id for decision in decisions}
    frauds = np.array([truth[decision.transaction_id] for decision in decisions])
    scores = np.array([decision.score for decision in decisions])
    return Replayed(
        transactions=len(truth),
        decisions=len(decisions),
        distinct=len(names & truth.keys()),
        live_auc=float(roc_auc_score(frauds, scores)),
        live_ap=float(average_precision_score(frauds, scores)),
        backtest_auc=_figure(backtest, "auc"),
        backtest_ap=_figure(backtest, "ap"),
        decisions_per_s=len(truth) / took_s,
        redis_cpu_us=redis_cpu_s / len(truth) * 1e6,
        counts=system.counts(),
    )


def _figure(report: dict[str, Any], name: str) -> float:
    return float(report["metrics"][name])


def _truth(file: Path, since: str, until: str) -> dict[str, bool]:
    table = pq.read_table(file, columns=["transaction_id", "event_time", "is_fraud"])
    first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (since, until))
    when = table["event_time"]
    chosen = table.filter(pc.and_(pc.greater_equal(when, first), pc.less(when, last)))
    return dict(zip(chosen["transaction_id"].to_pylist(), chosen["is_fraud"].to_pylist(), strict=True))


def _send_labels(system: System, truth: dict[str, bool]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": system.bootstrap_servers,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "log_level": 0,
        }
    )
    encode = msgspec.json.encode
    for name, is_fraud in truth.items():
        value = {"transaction_id": name, "is_fraud": is_fraud, "label_time": 1_530_403_200_000, "source": "chargeback"}
        while True:
            try:
                producer.produce(system.topics.labels, encode(value), name)
                break
            except BufferError:
                producer.poll(1)
        producer.poll(0)
    assert producer.flush(60) == 0


def _cpu_s(system: System) -> float:
    cpu = system.client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

"""Whether cost and memory stay as they are: millions of transactions through the scorer and Redis, without Kafka.

    python -m benchmarks.soak [--millions 20] [--json soak.json]

A line for each million: processor time of scorer and Redis a transaction, memory of this process and of Redis. Redis
grows by the stored decisions, which are kept for their retention; this process must not grow.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.traffic import Nowhere, Traffic

from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.benchmark import measure, probe, report
from fraudstream.core.features import FeatureSet
from fraudstream.embedded import start_redis
from fraudstream.services import startup
from fraudstream.services.scoring import Scorer
from fraudstream.testing import toy_model

BATCH = 1024
CARDS, TERMINALS = 50_000, 10_000
PER_DAY = 1_000_000
LINES_PER_MILLION = 2


def soak(millions: float, file: Path | None) -> list[dict[str, Any]]:
    features = FeatureSet.default()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, start_redis(Path(directory)) as server:
        store = RedisStore(server.url, features, StoreSettings(transactions_per_day=PER_DAY), timeout_s=30)
        scorer = Scorer(features, toy_model(), store, Nowhere(), clock_ms=startup.now_ms)
        scorer.take(0)
        traffic = Traffic(CARDS, TERMINALS, per_s=PER_DAY / 86_400)
        # As a worker starts: what lives now lives on.
        gc.collect()
        gc.freeze()
        while traffic.sent < 1e6 * millions:
            spent_ns, redis_s, began_s, first = 0, probe.cpu_s(server.pid), time.monotonic(), traffic.sent
            while traffic.sent - first < 1e6 / LINES_PER_MILLION:
                batch = traffic.batch(BATCH)
                cpu_ns = time.process_time_ns()
                scorer.process(0, batch)
                spent_ns += time.process_time_ns() - cpu_ns
            count = traffic.sent - first
            rows.append(
                {
                    "transactions": traffic.sent,
                    "scorer_us": round(spent_ns / 1000 / count, 2),
                    "redis_us": round(1e6 * (probe.cpu_s(server.pid) - redis_s) / count, 2),
                    "rss_mb": round(probe.rss_bytes(os.getpid()) / 1e6, 1),
                    "redis_rss_mb": round(probe.rss_bytes(server.pid) / 1e6),
                    "per_s": round(count / (time.monotonic() - began_s)),
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if file:
                file.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        store.close()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Some lines of the run, and how the scorer's memory grew over its second half."""
    step = max(1, len(rows) // 8)
    shown = rows[step - 1 :: step]
    shown = shown if step == 1 else [rows[0], *shown]
    names = ("transactions", "scorer_us", "redis_us", "rss_mb", "redis_rss_mb")
    head = ["transactions", "scorer, CPU µs each", "Redis, CPU µs each", "scorer's process, MB", "Redis, MB"]
    samples = [(float(row["transactions"]), int(row["rss_mb"] * 1e6)) for row in rows]
    slope = measure.slope_mb_per_million(samples, rows[-1]["transactions"] - rows[0]["transactions"] or 1)
    lines = report.table(head, [[row[name] for name in names] for row in shown])
    return f"{lines}\n\nThe scorer's process grows by {slope:g} MB a million over the second half."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=20)
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file")
    options = parser.parse_args()
    print(table(soak(options.millions, options.json)))


if __name__ == "__main__":
    main()

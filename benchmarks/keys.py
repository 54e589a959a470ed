"""What more cards cost: Redis' memory a card, and gather and commit a transaction, from ten thousand cards up.

    python -m benchmarks.keys [--cards 10000 100000 1000000] [--json keys.json]

A Redis of its own for each size is filled with rows (a terminal for every five cards), then transactions of random cards
go through the scorer in batches. Ten million cards take some 10 GB and three minutes.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import redis
from benchmarks.traffic import START_MS, Nowhere, Traffic

from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.benchmark import probe, report
from fraudstream.benchmark.stages import Clock, Timed
from fraudstream.core.features import Entity, FeatureSet
from fraudstream.core.windows import States, observe
from fraudstream.embedded import RedisServer, start_redis
from fraudstream.services import startup
from fraudstream.services.scoring import Scorer
from fraudstream.testing import toy_model

BATCH = 1024
WARM_BATCHES, BATCHES = 10, 40
CARDS_PER_TERMINAL = 5
ROWS_PER_CALL = 100_000
TRANSACTIONS_PER_CARD_DAY = 2


def row_of(entity: Entity, at_ms: int) -> bytes:
    """The row of a key with sixty transactions in the last thirty days."""
    states = States(entity.layout, 1)
    times_ms = at_ms - np.arange(60)[::-1] * 43_200_000
    frauds = np.zeros(60, np.int64) if entity.counts_frauds else None
    observe(states, np.zeros(60, np.int64), times_ms, np.full(60, 2_500), frauds)
    return states.to_rows()[0]


def fill(store: RedisStore, client: "redis.Redis", entity: Entity, count: int) -> float:
    """Load rows; bytes of Redis a key."""
    before = int(client.info("memory")["used_memory"])
    form, row = {"card": "card{:08d}", "terminal": "term{:07d}"}[entity.name], row_of(entity, START_MS)
    for first in range(0, count, ROWS_PER_CALL):
        last = min(first + ROWS_PER_CALL, count)
        store.load_rows(entity.name, {form.format(number): row for number in range(first, last)})
    return (int(client.info("memory")["used_memory"]) - before) / count


def measure(server: RedisServer, cards: int) -> dict[str, Any]:
    features = FeatureSet.default()
    client: redis.Redis = redis.Redis.from_url(server.url)
    per_day = cards * TRANSACTIONS_PER_CARD_DAY
    store = RedisStore(server.url, features, StoreSettings(transactions_per_day=per_day), timeout_s=30)
    terminals = max(cards // CARDS_PER_TERMINAL, 1_000)
    counts = {"card": cards, "terminal": terminals}
    key_bytes = {entity.name: fill(store, client, entity, counts[entity.name]) for entity in features.entities}
    traffic = Traffic(cards, terminals, per_s=per_day / 86_400)
    clock = Clock()
    parts: list[Any] = [toy_model(), Timed(store, clock), Nowhere()]
    scorer = Scorer(features, *parts, clock_ms=startup.now_ms)
    scorer.take(0)
    batches = [traffic.batch(BATCH) for _ in range(WARM_BATCHES + BATCHES)]
    for batch in batches[:WARM_BATCHES]:
        scorer.process(0, batch)
    clock.cpu_ns.clear()
    clock.wall_ns.clear()
    redis_s = probe.cpu_s(server.pid)
    for batch in batches[WARM_BATCHES:]:
        scorer.process(0, batch)
    redis_s = probe.cpu_s(server.pid) - redis_s
    count = BATCH * BATCHES
    store.close()
    client.close()
    return {
        "cards": cards,
        "terminals": terminals,
        "bytes_per_card": round(key_bytes["card"]),
        "bytes_per_terminal": round(key_bytes["terminal"]),
        "redis_rss_mb": round(probe.rss_bytes(server.pid) / 1e6),
        "redis_us": round(1e6 * redis_s / count, 2),
        **{f"{stage}_cpu_us": round(clock.cpu_ns[stage] / 1000 / count, 2) for stage in ("gather", "commit")},
        **{f"{stage}_wall_us": round(clock.wall_ns[stage] / 1000 / count, 2) for stage in ("gather", "commit")},
    }


def table(rows: list[dict[str, Any]]) -> str:
    head = ["cards", "terminals", "bytes a card", "bytes a terminal", "Redis RSS, MB", "Redis CPU µs a transaction",
            "gather, wall µs", "commit, wall µs"]  # fmt: skip
    names = ("cards", "terminals", "bytes_per_card", "bytes_per_terminal", "redis_rss_mb", "redis_us",
             "gather_wall_us", "commit_wall_us")  # fmt: skip
    return report.table(head, [[row[name] for name in names] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file")
    options = parser.parse_args()
    rows = []
    for cards in options.cards:
        with tempfile.TemporaryDirectory() as directory, start_redis(Path(directory)) as server:
            rows.append(measure(server, cards))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()

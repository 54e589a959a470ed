"""What a transaction costs in the state store: CPU of Redis and of the client, and bytes kept.

    python benchmarks/bench_store.py [--transactions 100000] [--batch 256]

Starts a Redis of its own (or uses REDIS_URL, whose database it empties), replays seeded transactions of 5,000 cards and
10,000 terminals through gather, engine and commit, and prints microseconds per transaction and bytes per key. CPU time
is the processes' own, so that a busy machine blurs the figures less than it would blur a stop-watch.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import redis

from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.core.census import Monitor
from fraudstream.core.engine import Arrival, ask, decide
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Advance, CommitStatus, Scores
from fraudstream.embedded import start_redis
from fraudstream.events import Contribution, Transaction

CARDS, TERMINALS = 5_000, 10_000
START_MS = 1_719_792_000_000
TRANSACTIONS_PER_SECOND = 100
BLOCK_BATCHES = 5
GENERATION_DAYS = 6  # of the default retention


class OneInAHundred:
    """Alerts on one transaction in a hundred, with four reasons each."""

    name, version, review_threshold, block_threshold = "bench", "1", 0.5, 0.9

    def __init__(self, features: FeatureSet) -> None:
        self.features_digest = features.digest
        self._random = np.random.default_rng(7)
        edges = {name: [float(e) for e in range(1, 10)] for name in features.names}
        self.monitor = Monitor(edges, [0.05 * e for e in range(1, 10)], features.extra_counts)

    def score(self, matrix: npt.NDArray[np.float32]) -> Scores:
        return Scores.alone(
            np.where(self._random.random(len(matrix)) < 0.01, 0.8, self._random.random(len(matrix)) / 2)
        )

    def reasons(self, matrix: npt.NDArray[np.float32]) -> list[tuple[Contribution, ...]]:
        reason = Contribution("AMOUNT_TO_CARD_MEAN_30D", "amount against the card's 30-day mean 4.81", 1.25)
        return [(reason,) * 4 for _ in matrix]


def transactions(count: int, seed: int = 11) -> list[Transaction]:
    random = np.random.default_rng(seed)
    at_ms = START_MS + np.cumsum(random.exponential(1000 / TRANSACTIONS_PER_SECOND, count)).astype(np.int64)
    cards = random.integers(0, CARDS, count)
    # A few shops see most of the cards: the busiest terminal has some 2 % of the transactions.
    weights = random.lognormal(0, 1.5, TERMINALS)
    terminals = random.choice(TERMINALS, count, p=weights / weights.sum())
    minor = random.lognormal(8, 1, count).astype(np.int64)
    return [
        Transaction(f"tx{seed}-{n:08d}", at, f"card-{card:06d}", f"terminal-{where:05d}", cents / 100, cents)
        for n, (at, card, where, cents) in enumerate(
            zip(at_ms.tolist(), cards.tolist(), terminals.tolist(), minor.tolist(), strict=True)
        )
    ]


@contextmanager
def server() -> Iterator[str]:
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory() as directory, start_redis(Path(directory)) as started:
        yield started.url


def redis_cpu_s(client: "redis.Redis") -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def run(store: RedisStore, client: "redis.Redis", arrivals: list[Arrival], batch: int, features: FeatureSet) -> None:
    lease = store.take_lease(0)
    model = OneInAHundred(features)
    spent: dict[str, list[float]] = {name: [] for name in ("redis", "gather", "commit", "ask", "decide")}
    client.config_resetstat()
    count = len(arrivals)
    wall_before = time.perf_counter()
    for block in range(0, count, BLOCK_BATCHES * batch):
        block_spent: Counter[str] = Counter()
        redis_before = redis_cpu_s(client)
        for start in range(block, min(block + BLOCK_BATCHES * batch, count), batch):
            part = arrivals[start : start + batch]
            marks = [time.process_time()]
            question = ask(features, part, monitor=model.monitor, new_above={lease.partition: lease.watermark})
            marks.append(time.process_time())
            gathered = store.gather(question.keys, question.sightings)
            marks.append(time.process_time())
            advances, now_ms = [Advance(lease, part[-1].offset)], part[-1].transaction.event_time_ms + 50
            outcome = decide(features, model, question, gathered, advances=advances, now_ms=now_ms, counts={})
            marks.append(time.process_time())
            status = store.commit(outcome.commit)
            marks.append(time.process_time())
            assert status is CommitStatus.APPLIED, status
            lease = type(lease)(lease.partition, lease.fence, advances[0].watermark)
            for name, before, after in zip(("ask", "gather", "decide", "commit"), marks, marks[1:], strict=False):
                block_spent[name] += round(1e9 * (after - before))
        size = min(block + BLOCK_BATCHES * batch, count) - block
        spent["redis"].append((redis_cpu_s(client) - redis_before) * 1e6 / size)
        for name, spent_ns in block_spent.items():
            spent[name].append(spent_ns / 1000 / size)
    wall = time.perf_counter() - wall_before
    print(f"batch {batch}: {count / wall:,.0f} transactions/s with the engine (a constant model)")
    spent["client"] = [a + b for a, b in zip(spent["gather"], spent["commit"], strict=True)]
    print("                       median    quiet  CPU µs per transaction (quiet: the best tenth of the blocks)")
    for name in ("redis", "client", "gather", "commit", "ask", "decide"):
        print(f"  {name:18} {np.median(spent[name]):8.2f} {np.quantile(spent[name], 0.1):8.2f}")
    for name, stats in sorted(client.info("commandstats").items(), key=lambda item: -item[1]["usec"])[:12]:
        print(f"    {name[8:]:18} {stats['usec'] / count:6.2f} µs, {stats['calls'] / count:.3f} calls")


def memory(client: "redis.Redis") -> None:
    kinds: dict[str, list[tuple[int, int]]] = {}
    for key in client.scan_iter(count=1000):
        name = key.decode().split(":", 2)[2]
        kind = name.rsplit(":", 2)[0] if name.startswith(("row", "decisions:")) else name.split(":")[0]
        if kind.startswith("decisions:") and not kind.startswith("decisions:gen"):
            kind = "decisions"
        elif kind == "decisions":
            entries = client.hlen(key) if client.type(key) == b"hash" else 0
            kinds.setdefault("decisions", []).append((client.memory_usage(key, samples=0) or 0, entries))
            continue
        kinds.setdefault(kind, []).append((client.memory_usage(key, samples=0) or 0, 1))
    for kind, sizes in sorted(kinds.items()):
        total, entries = sum(size for size, _ in sizes), sum(n for _, n in sizes)
        print(f"  {kind:28} {total / max(entries, 1):8.1f} bytes each ({entries:,} in {len(sizes):,} keys)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transactions", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    features = FeatureSet.default()
    warm, measured = options.transactions // 2, options.transactions
    arrivals = [Arrival(n, t) for n, t in enumerate(transactions(warm + measured))]
    with server() as url:
        client: redis.Redis = redis.Redis.from_url(url)
        client.flushdb()
        # As many slots as a generation with all these transactions would have: full ones, as after six days of service.
        per_day = len(arrivals) // GENERATION_DAYS
        store = RedisStore(url, features, StoreSettings(transactions_per_day=per_day))
        store.check()
        print("first transactions, keys without history")
        run(store, client, arrivals[:warm], options.batch, features)
        print("then, keys with history")
        run(store, client, arrivals[warm:], options.batch, features)
        memory(client)
        store.close()
        client.close()


if __name__ == "__main__":
    main()

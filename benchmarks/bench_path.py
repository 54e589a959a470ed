"""What a transaction costs on its way through the scorer, stage by stage: CPU of the worker's thread and of Redis.

    python benchmarks/bench_path.py --registry DIR [--transactions 100000] [--batches 256 1024] [--name fraud]

Starts a Redis of its own (or uses REDIS_URL, whose database it empties), takes seeded transactions of 5,000 cards and
10,000 terminals as JSON records through the steps of `fraudstream.services.scoring` with a registered model, and publishes
into librdkafka's own mock of a broker, which keeps nothing. A second pass over other transactions is the one that counts:
keys have their history then. CPU time is the thread's own, so that a busy machine blurs it less than a stop-watch.
"""

import argparse
import gc
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import redis
from aiokafka.structs import ConsumerRecord
from bench_store import redis_cpu_s, server, transactions

from fraudstream.adapters.kafka_publisher import KafkaPublisher
from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.core import engine
from fraudstream.core.features import FeatureSet
from fraudstream.models.champion import OnnxModel
from fraudstream.models.registry import Registry
from fraudstream.services import scoring
from fraudstream.services.scoring import Scorer

GENERATION_DAYS = 6  # of the default retention
ALERT_SHARE = 0.01
# CPU of Redis is told in hundredths of a second by some servers: long blocks.
BLOCK_RECORDS = 10_240


class Stages:
    """CPU of the calling thread by stage: what a stage calls that is a stage itself is not counted twice."""

    def __init__(self) -> None:
        self.spent_ns: Counter[str] = Counter()
        self._inner: list[int] = []

    def timed(self, name: str, call: Any) -> Any:
        def timing(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0)
            began = time.thread_time_ns()
            try:
                return call(*args, **kwargs)
            finally:
                took = time.thread_time_ns() - began
                self.spent_ns[name] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return timing


def records(count: int, seed: int, first_offset: int) -> list[Any]:
    made = []
    for n, t in enumerate(transactions(count, seed)):
        value = msgspec.json.encode(
            {
                "transaction_id": t.transaction_id,
                "event_time": t.event_time_ms,
                "card_id": t.card_id,
                "terminal_id": t.terminal_id,
                "amount": t.amount,
                "currency": "EUR",
            }
        )
        made.append(
            ConsumerRecord(
                "transactions", 0, first_offset + n, t.event_time_ms, 0, t.card_id.encode(), value, None, 0, 0, ()
            )
        )
    return made


def alert_on(model: OnnxModel, scorer: Scorer, sample: list[Any], share: float) -> None:
    """Set the model's thresholds so that this share of transactions alerts: a model is trained to a budget of alerts."""
    seen: list[Any] = []
    score = model.score
    model.score = lambda matrix: seen.append(score(matrix)) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    for start in range(0, len(sample), 1024):
        scorer.process(0, sample[start : start + 1024])
    model.score = score  # type: ignore[method-assign]
    model._review = float(np.quantile(np.concatenate([scores.score for scores in seen[len(seen) // 2 :]]), 1 - share))


def instrument(stages: Stages, scorer: Scorer, store: RedisStore, model: OnnxModel, publisher: KafkaPublisher) -> None:
    put: Any = setattr
    put(scorer, "_decode", stages.timed("decode", scorer._decode))
    put(scoring, "ask", stages.timed("ask", engine.ask))
    put(store, "gather", stages.timed("gather", store.gather))
    put(scoring, "decide", stages.timed("decide", engine.decide))
    put(model, "score", stages.timed("model", model.score))
    put(model, "reasons", stages.timed("reasons", model.reasons))
    put(store, "commit", stages.timed("commit", store.commit))
    put(scoring, "of_decisions", stages.timed("encode", scoring.of_decisions))
    put(publisher, "publish", stages.timed("publish", publisher.publish))


def run(scorer: Scorer, client: "redis.Redis", stages: Stages, todo: list[Any], batch: int) -> dict[str, float]:
    blocks: dict[str, list[float]] = {}
    alerts, wall_s = 0, time.perf_counter()
    client.config_resetstat()
    for block in range(0, len(todo), BLOCK_RECORDS):
        part = todo[block : block + BLOCK_RECORDS]
        stages.spent_ns.clear()
        redis_before, thread_before, process_before = redis_cpu_s(client), time.thread_time_ns(), time.process_time_ns()
        for start in range(0, len(part), batch):
            alerts += scorer.process(0, part[start : start + batch]).alerts
        thread_us = (time.thread_time_ns() - thread_before) / 1000
        process_us = (time.process_time_ns() - process_before) / 1000
        spent = {name: ns / 1000 for name, ns in stages.spent_ns.items()}
        spent["rest"] = thread_us - sum(spent.values())
        spent["= thread"] = thread_us
        spent["librdkafka and its mock"] = process_us - thread_us
        spent["redis"] = 1e6 * (redis_cpu_s(client) - redis_before)
        for name, us in spent.items():
            blocks.setdefault(name, []).append(us / len(part))
    wall_s = time.perf_counter() - wall_s
    print(f"batch {batch}: {len(todo) / wall_s:,.0f} transactions/s, {alerts / len(todo):.2%} alerts")
    print("                             median    quiet  CPU µs per transaction (quiet: the best tenth of the blocks)")
    for name, values in blocks.items():
        print(f"  {name:25} {np.median(values):8.2f} {np.quantile(values, 0.1):8.2f}")
    for name, stats in sorted(client.info("commandstats").items(), key=lambda item: -item[1]["usec"])[:9]:
        print(f"    {name[8:]:18} {stats['usec'] / len(todo):6.2f} µs, {stats['calls'] / len(todo):.3f} calls")
    return {name: float(np.median(values)) for name, values in blocks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--name", default="fraud")
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1024])
    options = parser.parse_args()
    artefact = Registry(options.registry).load(options.name, "champion")
    features: FeatureSet = artefact.feature_set()
    count = options.transactions
    with server() as url:
        for batch in options.batches:
            client: redis.Redis = redis.Redis.from_url(url)
            client.flushdb()
            store = RedisStore(url, features, StoreSettings(transactions_per_day=2 * count // GENERATION_DAYS))
            model = OnnxModel(artefact, features)
            publisher = KafkaPublisher({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
            warm, measured = records(count, 11, 0), records(count, 12, count)
            now_ms = measured[-1].timestamp
            scorer = Scorer(features, model, store, publisher, clock_ms=lambda now_ms=now_ms: now_ms)
            scorer.take(0)
            alert_on(model, scorer, warm, ALERT_SHARE)
            stages = Stages()
            instrument(stages, scorer, store, model, publisher)
            gc.collect()
            gc.freeze()
            run(scorer, client, stages, measured, batch)
            publisher.close()
            store.close()
            client.close()


if __name__ == "__main__":
    main()

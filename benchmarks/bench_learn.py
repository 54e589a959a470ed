"""What the online model costs: learning an example, scoring a transaction, writing the state. One process, CPU time.

    make bench BENCH=benchmarks/bench_learn.py [BENCH_ARGS=--classifiers]

Examples are decoded, tested and learned as the learner does it, with its state written to memory or to a Redis started here.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.support.examples import NAMES, SUBJECT, examples, records

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.adapters.memory_learner import MemoryLearnerStore
from fraudstream.adapters.redis_learner import RedisLearnerStore
from fraudstream.core.online import decided_with
from fraudstream.core.ports import LearnerStore
from fraudstream.embedded import start_redis
from fraudstream.models.learner import LearnerSettings, open_model
from fraudstream.models.online import one_by_one
from fraudstream.services.learning import Learner

BATCH = 256
EXAMPLES = 20_000
CLASSIFIERS = (
    "river.linear_model.ALMAClassifier",
    "river.naive_bayes.GaussianNB",
    "river.tree.HoeffdingTreeClassifier",
    "river.tree.HoeffdingAdaptiveTreeClassifier",
    "river.forest.ARFClassifier",
)


def cpu_us(work: Callable[[], object], count: int, rounds: int = 5) -> float:
    """The best round's CPU time for each of `count`, in microseconds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best / count * 1e6


def learn(store: LearnerStore, settings: LearnerSettings, count: int) -> tuple[Learner, float, float]:
    """Learn `count` examples; the learner, CPU µs and wall µs of each."""
    found = records(list(examples(count, fraud_share=0.01)), every_ms=0)
    learner = Learner(SUBJECT, settings, store, MemoryPublisher(), clock_ms=lambda: 0)
    learner.take()
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, BATCH):
        learner.process(found[start : start + BATCH])
    return learner, (time.process_time() - cpu) / count * 1e6, (time.perf_counter() - began) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classifiers", action="store_true", help="also a few other river classifiers")
    arguments = parser.parse_args()
    settings = LearnerSettings()
    learner, cpu, wall = learn(MemoryLearnerStore(), settings, EXAMPLES)
    print(f"{cpu:8.1f} µs CPU, {wall:6.1f} µs  learn an example ({1e6 / wall:,.0f}/s), batches of {BATCH}, memory")
    with tempfile.TemporaryDirectory() as directory, start_redis(Path(directory)) as server:
        store = RedisLearnerStore(server.url)
        before = store.client.info("memory")["used_memory"]
        _, cpu, wall = learn(store, settings, EXAMPLES)
        grown = store.client.info("memory")["used_memory"] - before
        print(f"{cpu:8.1f} µs CPU, {wall:6.1f} µs  learn an example ({1e6 / wall:,.0f}/s), batches of {BATCH}, Redis")
        print(f"{grown / EXAMPLES:8.1f} bytes of Redis an example (its mark; ids of up to 6 characters)")
        parts = store.take().parts
        print("         bytes of the state: " + ", ".join(f"{name} {len(value):,}" for name, value in parts.items()))
        store.close()
    serving = learner.learner.serving()
    linear = serving.linear() if serving else None
    assert linear is not None
    rng = np.random.default_rng(1)
    for rows in (1, 32, BATCH, 1024):
        matrix = rng.normal(size=(rows, len(NAMES))).astype(np.float32)
        champion = rng.random(rows)

        def score(matrix: object = matrix, champion: object = champion) -> None:
            for _ in range(200):
                online = linear.probabilities(matrix, champion)  # type: ignore[arg-type]
                decided_with("blend", champion, online, 0.5).astype(np.float32).astype(np.float64)  # type: ignore[arg-type]

        print(f"{cpu_us(score, 200 * rows):8.3f} µs CPU  online score and blend of a transaction, batches of {rows}")
    if not arguments.classifiers:
        return
    for path in CLASSIFIERS:
        other = LearnerSettings(classifier=path, pickle_key=b"bench")
        count = 3_000
        done, cpu, _ = learn(MemoryLearnerStore(), other, count)
        size = len(done.learner.model.dump())
        model = open_model(other)
        model.load(done.learner.model.dump())  # type: ignore[attr-defined]
        evaluate = one_by_one(model, NAMES)
        matrix, champion = rng.normal(size=(BATCH, len(NAMES))).astype(np.float32), rng.random(BATCH)
        asked = cpu_us(lambda: evaluate(matrix, champion), BATCH, rounds=3)  # noqa: B023 - used at once
        print(f"{cpu:8.1f} µs learn (written every {BATCH}), {asked:8.1f} µs score, {size:10,} bytes  {path}")


if __name__ == "__main__":
    main()

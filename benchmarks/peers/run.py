"""fraudstream beside what one would use instead, in one run on one broker and one Redis.

    make peers            # or: python -m benchmarks.peers.run --python .venv-peers/bin/python --json peers.json

Every program does the same job on the same records: same model, same features, state in Redis, decisions and alerts to
topics. Its alerts are held against fraudstream's: one that raises others has no figure. fraudstream runs first and last,
and ratios are to the mean of the two, so that a machine that slows down meanwhile shows.
"""

import argparse
import contextlib
import json
import os
import pickle
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers import job

from fraudstream.adapters import kafka_admin
from fraudstream.benchmark import measure, probe, records, report, run, world
from fraudstream.benchmark.system import Parts, Servers, System
from fraudstream.core.features import FeatureSet
from fraudstream.demo.processes import Child
from fraudstream.models.estimators import DEFAULT_ESTIMATOR, DEFAULT_PARAMS, LEGIT_SHARE, Fitted, fit
from fraudstream.models.history import moment_ms, replay, warm_states
from fraudstream.models.history_file import History
from fraudstream.models.registry import Registry

ROOT = Path(__file__).parents[2]
# name, module, way, share of the records (those that go event by event would take minutes)
PLAIN = "plain Faust, per event, scikit-learn"
PEERS = (
    (PLAIN, "faust_app", "async", 0.05),
    ("Faust per event, ONNX, blocking Redis client", "faust_app", "one", 0.1),
    ("Faust with take()", "faust_app", "take", 0.5),
    ("Quix Streams, per event", "quix_app", "one", 0.2),
    ("Bytewax, a list a poll", "bytewax_app", "many", 1.0),
    ("bare confluent-kafka loop", "bare_app", "many", 1.0),
)


class Peer:
    """One peer at work: its process, and the servers it uses."""

    def __init__(self, name: str, child: Child, servers: Servers) -> None:
        self.name, self._child, self._servers = name, child, servers

    def cpu_s(self) -> dict[str, float]:
        return {"worker": probe.cpu_s(self._child.pid), **self._servers.cpu_s()}

    def pids(self) -> dict[str, int]:
        return {"worker-0": self._child.pid} | self._servers.pids()

    def check(self) -> None:
        self._child.check()


class Comparison:
    """The servers, the records and fraudstream's own alerts, which the others must raise as well."""

    def __init__(self, options: argparse.Namespace, directory: Path, stack: contextlib.ExitStack) -> None:
        self._options, self._directory, self._stack = options, directory, stack
        # Within the lateness that the default features bear, so that the order of partitions changes no number.
        self._size = world.Size(event_rate=100)
        self._world = world.make(directory / "world", self._size, options.transactions)
        self.servers = Servers(Parts(options.broker), directory, stack)
        self._records = records.read(self._world.live, 0, options.transactions, faster=self._size.faster)
        self._features = Registry(self._world.registry).load("fraud", "champion").feature_set()
        self._warm = warm_states(self._features, self._world.history, self._world.until)
        self._estimator = directory / "estimator.pickle"
        self._estimator.write_bytes(pickle.dumps(_estimator(self._world)))
        self.alerted: set[str] = set()

    def ours(self) -> dict[str, Any]:
        count = len(self._records)
        system = System(self.servers, self._world, self._directory / "ours", partitions=8, transactions=count)
        system.create_topics()
        system.warm_up()
        self._fill(system.topics["transactions"], 1.0)
        began_s = time.monotonic()
        system.start_worker()
        found = self._throughput(system, system.topics, count, began_s)
        system.remove()
        self.alerted = set(found.alerted)
        return self._told("fraudstream", found)

    def peer(self, name: str, module: str, way: str, share: float) -> dict[str, Any]:
        prefix = "peer-" + uuid.uuid4().hex[:8]
        topics = {field: f"{prefix}.{field}" for field in ("transactions", "decisions", "alerts")}
        connection = {"bootstrap.servers": self.servers.bootstrap_servers}
        kafka_admin.create(connection, dict.fromkeys(topics.values(), (8, {"retention.ms": "-1"})))
        job.load(self.servers.client, prefix, self._features, self._warm)
        count = self._fill(topics["transactions"], share)
        env = {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "PEER_WAY": way,
            "PEER_ESTIMATOR": str(self._estimator) if name == PLAIN else "",
            "PEER_KAFKA": self.servers.bootstrap_servers,
            "PEER_REDIS": self.servers.redis_url,
            "PEER_PREFIX": prefix,
            "PEER_REGISTRY": str(self._world.registry.resolve()),
            **{f"PEER_{field.upper()}": topic for field, topic in topics.items()},
        }
        began_s = time.monotonic()
        python = str(Path(self._options.python).absolute())
        child = Child(prefix, (f"benchmarks.peers.{module}",), self._directory, env, python=python)
        try:
            found = self._throughput(Peer(name, child, self.servers), topics, count, began_s)
        finally:
            child.stop()
            keys = list(self.servers.client.scan_iter(f"{prefix}:*", count=1000))
            for start in range(0, len(keys), 1000):
                self.servers.client.unlink(*keys[start : start + 1000])
        wanted = self.alerted & set(self._records.ids[:count])
        if set(found.alerted) != wanted:
            other = len(set(found.alerted) ^ wanted)
            raise measure.MeasureError(f"{name}: {other} alerts differ from ours ({len(wanted)}): no figure")
        return self._told(name, found)

    def _fill(self, topic: str, share: float) -> int:
        count = round(share * len(self._records))
        records.fill(self.servers.bootstrap_servers, topic, self._records.first(count))
        return count

    def _throughput(self, of: measure.Measured, topics: dict[str, str], count: int, began_s: float) -> measure.Outcome:
        by_reading = self.servers.kind == "tansu"
        return measure.throughput(
            of, self.servers.bootstrap_servers, topics, count, by_reading=by_reading, began_s=began_s
        )

    def _told(self, name: str, found: measure.Outcome) -> dict[str, Any]:
        return {"name": name, **{k: found[k] for k in ("transactions", "per_s", "cpu_us", "alerts", "rss_mb")}}


def _estimator(made: world.World) -> Fitted:
    """The scikit-learn model that the registered one was exported from, fitted once more: same rows and seed."""
    until_ms, day_ms = moment_ms(made.until), 86_400_000
    from_ms = until_ms - (world.HISTORY_DAYS - world.TRAIN_FROM_DAY) * day_ms
    got = list(
        replay(FeatureSet.default(), History(made.history, FeatureSet.default()), from_ms=from_ms, until_ms=until_ms)
    )
    times_ms, frauds, matrix = (np.concatenate([getattr(p, n) for p in got]) for n in ("times_ms", "frauds", "matrix"))
    known = times_ms < until_ms - 7 * day_ms
    fitted = fit(DEFAULT_ESTIMATOR, DEFAULT_PARAMS, matrix[known], frauds[known], legit_share=LEGIT_SHARE, seed=0)
    golden = Registry(made.registry).load("fraud", "champion").golden()
    assert np.allclose(fitted.score(golden.matrix), golden.scores, rtol=1e-6), "not the model that was registered"
    return fitted


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A row a program; ratios to the mean of our two runs. Where other work disturbs the rates, processor time holds."""
    ours = [row["per_s"] for row in rows if row["name"] == "fraudstream"]
    mean = sum(ours) / len(ours)
    our_cpu = sum(row["cpu_us"]["worker"] for row in rows if row["name"] == "fraudstream") / len(ours)
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["name"], row["error"].splitlines()[-1], *[""] * 6])
            continue
        cpu = row["cpu_us"]
        spent = [f"{cpu[of]:.1f}" for of in ("worker", "redis", "kafka")]
        ratios = [f"{mean / row['per_s']:.1f}", *spent, f"{cpu['worker'] / our_cpu:.1f}"]
        lines.append([row["name"], row["transactions"], row["per_s"], *ratios])
    head = ["", "transactions", "per second", "fraudstream is times as fast", "CPU µs, worker", "Redis", "broker",
            "its worker's CPU, times ours"]  # fmt: skip
    return report.table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers installed")
    parser.add_argument("--transactions", type=int, default=100_000, help="records for us and the fastest peers")
    parser.add_argument("--broker", default="auto", choices=("auto", "apache", "tansu"))
    parser.add_argument("--only", nargs="*", default=None, help="parts of the names of the peers to run")
    parser.add_argument("--json", type=Path, default=None, help="write all figures to this file")
    parser.add_argument("--directory", type=Path, default=None, help="keep logs, files and the model here")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="fraudstream-peers-"))
    chosen = [peer for peer in PEERS if options.only is None or any(part in peer[0] for part in options.only)]
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        comparison = Comparison(options, directory, stack)
        machine = run.machine(comparison.servers)
        rows.append(comparison.ours())
        for peer in chosen:
            try:
                rows.append(comparison.peer(*peer))
            except Exception as error:  # noqa: BLE001 - one that fails must not hide the others
                rows.append({"name": peer[0], "error": str(error)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        rows.append(comparison.ours())
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "programs": rows}, indent=1) + "\n", "utf-8")
    print(table(rows))
    if any("error" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""A whole system for a test: topics of its own, a Redis prefix of its own, workers as processes, the commands as a user
runs them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from fraudstream.adapters import kafka_admin
from fraudstream.cli.topics import SINGLE_PARTITION
from fraudstream.settings import TopicSettings
from fraudstream.topics import Topics
from tests.support.waiting import wait_until

BIN = Path(sys.executable).parent


def run_command(
    *words: str, env: Mapping[str, str] | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a command of this installation, as `fraudstream train ...`; the finished process."""
    name, *rest = words
    full = {**os.environ, **(env or {})}
    return subprocess.run(
        [str(BIN / name), *rest], env=full, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def run_ok(*words: str, env: Mapping[str, str] | None = None, timeout_s: float = 240) -> str:
    """Run a command that has to succeed; what it printed."""
    done = run_command(*words, env=env, timeout_s=timeout_s)
    assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Worker:
    """A worker process and its log."""

    def __init__(self, env: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "fraudstream"), "worker"], env={**os.environ, **env}, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self.process.kill()
        self.process.wait(30)

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def log(self) -> str:
        return self.log_path.read_text("utf-8", errors="replace")


class System:
    """Topics, prefix and environment of one system; its workers end with it."""

    def __init__(self, bootstrap_servers: str, redis_url: str, registry: Path, directory: Path, **env: str) -> None:
        name = "t" + uuid.uuid4().hex[:8]
        self.directory = directory
        self.bootstrap_servers = bootstrap_servers
        self.redis_url = redis_url
        self.topics = Topics(**{field: f"{name}.{topic}" for field, topic in TopicSettings().model_dump().items()})
        self.prefix = name
        self.env = {
            "FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
            "FRAUDSTREAM_KAFKA__GROUP": name,
            "FRAUDSTREAM_KAFKA__SESSION_TIMEOUT_S": "6",
            "FRAUDSTREAM_REDIS__URL": redis_url,
            "FRAUDSTREAM_REDIS__PREFIX": name,
            "FRAUDSTREAM_MODEL__REGISTRY": str(registry),
            "FRAUDSTREAM_HEALTH_FILE": str(directory / "health.json"),
            **{
                f"FRAUDSTREAM_TOPICS__{field.upper()}": getattr(self.topics, field)
                for field in TopicSettings.model_fields
            },
            **env,
        }
        self.client = redis.Redis.from_url(redis_url)
        self.workers: list[Worker] = []

    def create_topics(self, partitions: int) -> None:
        config = {"retention.ms": "-1"}
        wanted = {
            getattr(self.topics, field): (1 if field in SINGLE_PARTITION else partitions, config)
            for field in TopicSettings.model_fields
        }
        kafka_admin.create({"bootstrap.servers": self.bootstrap_servers}, wanted)

    def start_worker(self, **env: str) -> Worker:
        worker = Worker({**self.env, **env}, self.directory / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def counts(self) -> dict[str, int]:
        """The counters of the commits."""
        found = self.client.hgetall(f"{self.prefix}:{{0}}:counters")
        return {name.decode(): int(n) for name, n in found.items()}

    def accounted(self) -> int:
        """Records that ended as decision, duplicate or dead letter."""
        counts = self.counts()
        rejected = sum(n for name, n in counts.items() if name.startswith("rejected."))
        return counts.get("decided", 0) + counts.get("duplicates", 0) + rejected

    def wait_accounted(self, count: int, timeout_s: float) -> None:
        def all_there() -> bool:
            for worker in self.workers:
                code = worker.process.poll()
                assert code in (None, 0, -signal.SIGKILL), f"a worker ended with {code}:\n{worker.log()[-3000:]}"
            return self.accounted() >= count

        try:
            wait_until(all_there, timeout_s, f"{count} records are accounted for")
        except AssertionError as error:
            logs = "\n".join(worker.log()[-1500:] for worker in self.workers)
            raise AssertionError(f"{error}; counted {self.counts()}; logs:\n{logs}") from None

    def wait_ready(self, timeout_s: float = 60) -> None:
        path = self.directory / "health.json"

        def ready() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return bool(json.loads(path.read_text("utf-8"))["ready"])
            return False

        wait_until(ready, timeout_s, "the worker is ready")

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        self.client.close()


@contextlib.contextmanager
def system(bootstrap_servers: str, redis_url: str, registry: Path, directory: Path, **env: str) -> Iterator[System]:
    """A system that leaves no process behind."""
    made = System(bootstrap_servers, redis_url, registry, directory, **env)
    try:
        yield made
    finally:
        made.close()


def read_until(bootstrap_servers: str, topic: str, ids: set[str], timeout_s: float = 60) -> dict[str, dict[str, Any]]:
    """The newest answer by transaction, once all of `ids` are on the topic: after a crash some come twice."""
    from tests.support.kafka import consume

    found: dict[str, dict[str, Any]] = {}

    def take(messages: list[Any]) -> bool:
        for message in messages:
            told = json.loads(message.value())
            found[told["transaction_id"]] = told
        return ids <= found.keys()

    consume(bootstrap_servers, topic, 0, timeout_s=timeout_s, enough=take)
    return found


def read_all(bootstrap_servers: str, topic: str, count: int, timeout_s: float = 60) -> list[dict[str, Any]]:
    """The JSON values of `count` records of a topic."""
    from tests.support.kafka import consume

    return [json.loads(m.value() or b"null") for m in consume(bootstrap_servers, topic, count, timeout_s=timeout_s)]

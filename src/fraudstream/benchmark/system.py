"""The system that is measured: a broker and a Redis (started here, or given), topics of its own, worker processes."""

import contextlib
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import redis
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from fraudstream import settings
from fraudstream.adapters import kafka_admin
from fraudstream.benchmark import probe
from fraudstream.benchmark.world import COMMAND_S_MAX, World
from fraudstream.demo.processes import Child, DemoError
from fraudstream.embedded import KafkaServer, RedisServer, apache_kafka_unavailable, start_kafka, start_redis

READY_S_MAX: Final = 60.0
# Tansu lets the first member of a group wait half of it; Apache Kafka's broker allows no less than six.
SESSION_TIMEOUT_S: Final = {"tansu": "3", "apache": "6", "given": "6"}
# Tansu looks for new records only at half of the wait and at its end; Apache Kafka answers when one comes.
FETCH_WAIT_MAX_MS: Final = {"tansu": "10", "apache": "100", "given": "100"}
GENERATION_DAYS: Final = 6  # a fifth of the default retention
DELETE_KEYS_AT_ONCE: Final = 1_000

Broker = Literal["auto", "apache", "tansu"]


class Parts(Struct, frozen=True):
    """Which servers: started here, unless addresses are given. `append_only`: Redis keeps a log, synced each second."""

    broker: Broker = "auto"
    bootstrap_servers: str | None = None
    redis_url: str | None = None
    append_only: bool = False


class Servers:
    """A broker and a Redis for as long as the stack is open."""

    def __init__(self, parts: Parts, directory: Path, stack: contextlib.ExitStack) -> None:
        self.kafka: KafkaServer | None = None
        self.redis: RedisServer | None = None
        if parts.bootstrap_servers is None:
            wanted = parts.broker
            if wanted == "auto":  # the real thing where it is there: these are figures, not a first look
                wanted = "tansu" if apache_kafka_unavailable() else "apache"
            self.kafka = stack.enter_context(start_kafka(directory / "kafka", prefer=wanted))
        if parts.redis_url is None:
            self.redis = stack.enter_context(start_redis(directory / "redis", append_only=parts.append_only))
        self.kind = self.kafka.kind if self.kafka else "given"
        self.bootstrap_servers = self.kafka.bootstrap_servers if self.kafka else str(parts.bootstrap_servers)
        self.redis_url = self.redis.url if self.redis else str(parts.redis_url)
        self.client: redis.Redis = redis.Redis.from_url(self.redis_url)

    def pids(self) -> dict[str, int]:
        """The servers that were started here; others cannot be looked at."""
        servers = {"redis": self.redis, "kafka": self.kafka}
        return {name: server.pid for name, server in servers.items() if server is not None}

    def cpu_s(self) -> dict[str, float]:
        """Processor time of each server so far. A Redis that was given tells its own."""
        found = {name: probe.cpu_s(pid) for name, pid in self.pids().items()}
        if "redis" not in found:
            told: Any = self.client.info("cpu")
            found["redis"] = float(told["used_cpu_user"]) + float(told["used_cpu_sys"])
        return found

    def redis_bytes(self) -> tuple[int, int]:
        """Bytes that Redis has received and sent so far."""
        told: Any = self.client.info("stats")
        return int(told["total_net_input_bytes"]), int(told["total_net_output_bytes"])


class System:
    """One system on these servers: topics, keys and a group of its own, so that runs do not meet."""

    def __init__(self, servers: Servers, world: World, directory: Path, *, partitions: int, transactions: int) -> None:
        self.servers = servers
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.name = "bench-" + uuid.uuid4().hex[:8]
        names = settings.TopicSettings().model_dump()
        self.topics = {field: f"{self.name}.{topic}" for field, topic in names.items()}
        self.workers: list[Child] = []
        self._world = world
        self._partitions = partitions
        self.env = {
            "FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": servers.bootstrap_servers,
            "FRAUDSTREAM_KAFKA__GROUP": self.name,
            "FRAUDSTREAM_KAFKA__SESSION_TIMEOUT_S": SESSION_TIMEOUT_S[servers.kind],
            "FRAUDSTREAM_KAFKA__FETCH_WAIT_MAX_MS": FETCH_WAIT_MAX_MS[servers.kind],
            "FRAUDSTREAM_REDIS__URL": servers.redis_url,
            "FRAUDSTREAM_REDIS__PREFIX": self.name,
            # The expected volume sizes the slots: they fill during the run as they do in a generation of six days.
            "FRAUDSTREAM_REDIS__TRANSACTIONS_PER_DAY": str(max(1, transactions // GENERATION_DAYS)),
            "FRAUDSTREAM_MODEL__REGISTRY": str(world.registry.resolve()),
            "FRAUDSTREAM_ROLES": "score",
            **{f"FRAUDSTREAM_TOPICS__{field.upper()}": name for field, name in self.topics.items()},
        }

    def create_topics(self) -> None:
        """Create them before anybody asks for one: Tansu creates what is asked for, with one partition."""
        # Records carry their event times, which lie years back: the broker must not drop them for their age.
        wanted = {name: (self._partitions, {"retention.ms": "-1"}) for name in self.topics.values()}
        kafka_admin.create({"bootstrap.servers": self.servers.bootstrap_servers}, wanted)

    def warm_up(self) -> None:
        """Load the history, by the command a user runs."""
        words = ("warm-up", "--transactions", str(self._world.history), "--until", self._world.until, "--quiet")
        Child("warm-up", ("fraudstream", *words), self.directory, self.env).wait(COMMAND_S_MAX)

    def start_worker(self, env: Mapping[str, str] | None = None) -> Child:
        """Start one more worker process."""
        name = f"worker-{len(self.workers)}"
        health = self.directory / f"{name}.json"
        health.unlink(missing_ok=True)  # of an earlier run in the same directory
        own = {"FRAUDSTREAM_HEALTH_FILE": str(health)}
        worker = Child(name, ("fraudstream", "worker"), self.directory, {**self.env, **own, **(env or {})})
        self.workers.append(worker)
        return worker

    def ready(self) -> bool:
        """Whether every worker has said that it is ready."""
        for worker in self.workers:
            worker.check()
            try:
                status = json.loads((self.directory / f"{worker.name}.json").read_text("utf-8"))
            except (OSError, ValueError):
                return False
            if not status["ready"]:
                return False
        return True

    def wait_ready(self, began_s: float) -> float:
        """Seconds from `began_s` (monotonic) until every worker was ready. Raises `DemoError`."""
        while not self.ready():
            if time.monotonic() - began_s > READY_S_MAX:
                raise DemoError(f"the workers are not ready after {READY_S_MAX:g} s; see {self.directory}")
            time.sleep(0.02)
        return time.monotonic() - began_s

    def pids(self) -> dict[str, int]:
        """Every process that can be looked at."""
        return {worker.name: worker.pid for worker in self.workers} | self.servers.pids()

    def check(self) -> None:
        """Raises `DemoError` if a worker ended with a fault."""
        for worker in self.workers:
            worker.check()

    def cpu_s(self) -> dict[str, float]:
        """Processor time so far: all workers together, Redis, the broker."""
        workers = sum(probe.cpu_s(worker.pid) for worker in self.workers)
        return {"worker": workers, **self.servers.cpu_s()}

    def stop(self) -> None:
        """End the workers in order."""
        for worker in self.workers:
            worker.stop()
        self.workers.clear()

    def remove(self) -> None:
        """Leave nothing on servers that were given."""
        self.stop()
        if self.servers.kafka is None:
            admin = AdminClient({"bootstrap.servers": self.servers.bootstrap_servers, "log_level": 0})
            for future in admin.delete_topics(list(self.topics.values())).values():
                with contextlib.suppress(Exception):  # what is not there cannot be deleted
                    future.result(kafka_admin.ANSWER_S_MAX)
        client = self.servers.client
        keys: list[Any] = []
        for key in client.scan_iter(f"{self.name}:*", count=DELETE_KEYS_AT_ONCE):
            keys.append(key)
            if len(keys) == DELETE_KEYS_AT_ONCE:
                client.unlink(*keys)
                keys.clear()
        if keys:
            client.unlink(*keys)

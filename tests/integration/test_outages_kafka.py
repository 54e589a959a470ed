"""Kafka as it can be without being gone: refusing records, without a topic, with another leader; and a worker that leaves."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from tests.support.cluster import Cluster, kafka_cluster
from tests.support.kafka import consume, create_topic
from tests.support.labelled import last_records
from tests.support.outages import Made, assert_decided_once, committed_records, send, status, troubles
from tests.support.servers import Kafka
from tests.support.system import System
from tests.support.waiting import wait_until

from fraudstream.embedded import RedisServer
from fraudstream.embedded.kafka_server import apache_kafka_unavailable

RECORDS = 3_000
# SIGTERM while nothing is away: the batch in work, its acknowledgements, Faust's goodbye. Some 2 s where the cores are free.
DRAIN_S_MAX = 15.0


@pytest.fixture
def apache(kafka: Kafka) -> Kafka:
    """The session's broker, if it holds to a topic's configuration."""
    if kafka.kind == "tansu":
        pytest.skip("Tansu takes whatever a topic's configuration forbids: needs java 17 and mvn")
    return kafka


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two brokers; every topic is on both."""
    if reason := apache_kafka_unavailable():
        pytest.skip(f"needs two brokers: {reason}")
    with kafka_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def test_a_refused_publication_holds_its_partition_until_it_is_taken(
    apache: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """The topic of decisions takes no record of their size: the worker says so and waits; when it does again, every
    decision is out as it was stored.
    """
    running = made(apache.bootstrap_servers, own_redis.url)
    records = last_records(history, RECORDS)
    running.start_worker()
    send(running, records[:1_000])
    running.wait_accounted(1_000, 60)
    _configure(running, running.topics.decisions, "max.message.bytes", "100")
    send(running, records[1_000:])
    wait_until(lambda: "raise its max.message.bytes" in troubles(running), 30, "the health says what is refused")
    assert not status(running)["ready"]
    _configure(running, running.topics.decisions, "max.message.bytes", "1048588")
    running.wait_accounted(RECORDS, 60)
    running.wait_ready()
    assert_decided_once(running, records)


def test_a_topic_deleted_in_the_flow_is_waited_for(
    apache: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """The topic of decisions vanishes: the worker waits; made anew, everything from then on is in it, nothing twice."""
    running = made(apache.bootstrap_servers, own_redis.url)
    records = last_records(history, RECORDS)
    running.start_worker()
    send(running, records[:1_000])
    running.wait_accounted(1_000, 60)
    wait_until(lambda: committed_records(running) == 1_000, 30, "what was decided is published")
    admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
    admin.delete_topics([running.topics.decisions])[running.topics.decisions].result(30)
    send(running, records[1_000:])
    wait_until(lambda: "score waits: Kafka" in troubles(running), 60, "the health says that Kafka is away")
    create_topic(running.bootstrap_servers, running.topics.decisions, 2)
    running.wait_accounted(RECORDS, 90)
    running.wait_ready()
    wait_until(lambda: committed_records(running) == RECORDS, 30, "what was decided is published")
    later = {json.loads(value)["transaction_id"] for _, value in records[1_000:]}
    found = consume(running.bootstrap_servers, running.topics.decisions, len(later))
    assert {json.loads(message.value() or b"")["transaction_id"] for message in found} == later
    assert running.counts()["decided"] == RECORDS


def test_a_change_of_leaders_costs_nothing(cluster: Cluster, own_redis: RedisServer, made: Made, history: Path) -> None:
    """One of two brokers is killed in the flow, comes back and leads again: everything is decided and published once."""
    running = made(cluster.bootstrap_servers, own_redis.url, create=cluster.create_topics)
    topic = running.topics.transactions
    records = last_records(history, 2 * RECORDS)
    running.start_worker()
    send(running, records[:RECORDS])
    running.wait_accounted(500, 60)
    assert cluster.leaders(topic) == {1, 2}
    cluster.second.kill()
    wait_until(lambda: cluster.leaders(topic) == {1}, 60, "the other node leads")
    running.wait_accounted(RECORDS, 90)
    cluster.second.restart()
    send(running, records[RECORDS:])
    cluster.lead_as_preferred(topic)
    running.wait_accounted(2 * RECORDS, 90)
    running.wait_ready()
    assert_decided_once(running, records)


def test_too_few_replicas_in_sync_hold_the_publication(
    cluster: Cluster, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """Decisions need two replicas and one is gone: the worker waits and says so, and publishes when it is back."""
    running = made(cluster.bootstrap_servers, own_redis.url, create=cluster.create_topics)
    records = last_records(history, RECORDS)
    running.start_worker()
    send(running, records[:1_000])
    running.wait_accounted(1_000, 60)
    _configure(running, running.topics.decisions, "min.insync.replicas", "2")
    cluster.second.kill()
    wait_until(lambda: cluster.leaders(running.topics.decisions) == {1}, 60, "the other node leads")
    send(running, records[1_000:])
    wait_until(lambda: "score waits: Kafka did not acknowledge" in troubles(running), 60, "the health says so")
    cluster.second.restart()
    running.wait_accounted(RECORDS, 90)
    running.wait_ready()
    assert_decided_once(running, records)


def test_sigterm_at_load_drains_and_leaves_nothing_to_repeat(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """In the midst of a backlog: exit code 0 within the limit, and the next worker begins where it ended, to the record."""
    running = made(kafka.bootstrap_servers, own_redis.url, FRAUDSTREAM_BATCH_RECORDS_MAX="512")
    records = last_records(history, 60_000)
    worker = running.start_worker()
    send(running, records)
    running.wait_accounted(5_000, 60)
    began_s = time.monotonic()
    assert worker.stop(60) == 0, worker.log()
    assert time.monotonic() - began_s < DRAIN_S_MAX
    done = running.accounted()
    assert done < len(records), "the backlog was gone before the worker was told to end: this says nothing"
    assert committed_records(running) == done
    running.workers.clear()
    running.start_worker()
    running.wait_accounted(len(records), 120)
    wait_until(lambda: committed_records(running) == len(records), 30, "what was decided is published")
    published = consume(running.bootstrap_servers, running.topics.decisions, len(records), timeout_s=60)
    assert len({json.loads(message.value() or b"")["transaction_id"] for message in published}) == len(records)


def _configure(running: System, topic: str, name: str, value: str) -> None:
    admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    wanted = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([wanted])[wanted].result(30)

"""Fixtures that every level may ask for. They start servers on first use, so a unit test never starts any."""

import contextlib
import uuid
from collections.abc import Callable, Iterator

import pytest
import redis
from confluent_kafka.admin import AdminClient
from hypothesis import settings

from tests.support import create_topic
from tests.support.servers import Kafka, Redis, kafka_for_tests, redis_for_tests

TopicFactory = Callable[[str, int], str]

# No deadline per example: a busy machine is not a fault. The blob that is printed repeats a failure anywhere.
settings.register_profile("fraudstream", deadline=None, print_blob=True)
settings.load_profile("fraudstream")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker, shared by the session: `bootstrap_servers` and `kind`. A test that harms one starts its own."""
    with kafka_for_tests(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_topic_factory(kafka: Kafka) -> Iterator[TopicFactory]:
    """`kafka_topic_factory(name, partitions)` creates a topic with a unique name that begins so, and returns it."""
    created: list[str] = []

    def create(name: str, partitions: int = 1) -> str:
        topic = f"{name}-{uuid.uuid4().hex[:10]}"
        create_topic(kafka.bootstrap_servers, topic, partitions)
        created.append(topic)
        return topic

    yield create
    if kafka.kind == "external" and created:  # the others end with the session
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for deleted in admin.delete_topics(created).values():
            with contextlib.suppress(Exception):
                deleted.result(30)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A real Redis database (`url`), shared by the session; ask for `redis_url` to have it empty."""
    with redis_for_tests(tmp_path_factory.mktemp("redis")) as database:
        yield database


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The address of a Redis database that is empty when the test begins."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushdb()
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client (bytes in, bytes out) of a Redis database that is empty when the test begins."""
    with redis.Redis.from_url(redis_url) as client:
        yield client

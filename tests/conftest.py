"""Fixtures that every level may ask for. They start servers on first use, so a unit test never starts any."""

import contextlib
import os
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka.admin import AdminClient
from hypothesis import settings

from tests.support import create_topic
from tests.support.jobs import turn
from tests.support.servers import Kafka, Redis, kafka_for_tests, redis_for_tests

TopicFactory = Callable[[str, int], str]

# No deadline per example: a busy machine is not a fault. The blob that is printed repeats a failure anywhere.
settings.register_profile("fraudstream", deadline=None, print_blob=True)
settings.load_profile("fraudstream")

# What the tests are known to hold on two cores: each process has a broker, a Redis and a worker or two at work, and some
# of what they assert is in seconds. TEST_JOBS=4 takes more, where there are cores for them.
JOBS_MAX = 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` means; none beside this one where REDIS_URL names the one Redis there is."""
    return 0 if os.environ.get("REDIS_URL") else min(os.cpu_count() or 1, JOBS_MAX)


def _common_directory(config: pytest.Config) -> Path | None:
    """A directory that all processes of this test run see; None where it has one process."""
    return Path(config.getoption("basetemp")).parent if hasattr(config, "workerinput") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, what takes long is begun first, so that no process is left alone with it in the end."""
    if _common_directory(config):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("alone"):
        return 0
    level = item.path.relative_to(Path(__file__).parent).parts[0]
    return {"integration": 1, "simulation": 2}.get(level, 3)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the test's turn, outside of its time limit."""
    with contextlib.ExitStack() as stack:
        if directory := _common_directory(item.config):
            stack.enter_context(turn(directory, alone=item.get_closest_marker("alone") is not None))
        return (yield)


@pytest.fixture(scope="session")
def common_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a session's fixture may leave, for all processes of this test run, what takes long to make: `made_once`."""
    return _common_directory(request.config) or tmp_path_factory.mktemp("common")


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

"""What the integration tests share: a simulated history and a model trained on it, made once by the commands."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.jobs import made_once
from tests.support.outages import CreateTopics, Made
from tests.support.system import System, run_ok, system

from fraudstream.embedded import RedisServer, start_redis


@pytest.fixture(scope="session")
def history(common_directory: Path) -> Path:
    """About 100,000 labelled transactions of 45 days, as Parquet."""

    def make(file: Path) -> None:
        options = ("--days", "45", "--cards", "1200", "--terminals", "2000", "--quiet")
        run_ok("fraudstream-simulate", "--to", str(file), *options)

    return made_once(common_directory / "history.parquet", make)


@pytest.fixture(scope="session")
def registry(history: Path, common_directory: Path) -> Path:
    """A registry with one model trained on the history."""

    def make(directory: Path) -> None:
        run_ok(
            "fraudstream", "train", "--transactions", str(history), "--from", "2025-01-08", "--until", "2025-02-10",
            "--label-delay", "7d", "--registry", str(directory),
        )  # fmt: skip

    return made_once(common_directory / "registry", make)


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The labelled file that FRAUDSTREAM_DATA names; the test is skipped without it."""
    path = os.environ.get("FRAUDSTREAM_DATA")
    if not path or not Path(path).is_file():
        pytest.skip("FRAUDSTREAM_DATA names no file: set it to a labelled Parquet file of transactions")
    return Path(path)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, to harm; its keys survive a restart."""
    with start_redis(tmp_path / "redis", append_only=True) as server:
        yield server


@pytest.fixture
def made(registry: Path, tmp_path: Path) -> Iterator[Made]:
    """`made(broker, redis_url, **env)` is a system with topics of two partitions, small batches and no worker yet.

    `create(names, partitions)` makes the topics otherwise.
    """
    with ExitStack() as stack:

        def make(bootstrap_servers: str, redis_url: str, *, create: CreateTopics | None = None, **env: str) -> System:
            env = {
                "FRAUDSTREAM_REDIS__TIMEOUT_S": "1",
                "FRAUDSTREAM_KAFKA__PUBLISH_TIMEOUT_S": "3",
                "FRAUDSTREAM_BATCH_RECORDS_MAX": "50",
                **env,
            }
            one = stack.enter_context(system(bootstrap_servers, redis_url, registry, tmp_path, **env))
            if create is None:
                one.create_topics(2)
            else:
                create([getattr(one.topics, field) for field in one.topics.__struct_fields__], 2)
            return one

        yield make

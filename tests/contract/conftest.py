"""The stores that keep the contract, each as a set of workers would see it."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import StateStore
from fraudstream.testing import ForgetfulStore
from tests.support.desk import FEATURES

# `open_store(settings=..., features=...)`: in Redis a new process on the same data; memory has only one process.
StoreFactory = Callable[..., StateStore]
Forget = Callable[[], None]


def redis_stores(url: str) -> Iterator[StoreFactory]:
    opened: list[RedisStore] = []

    def open_store(settings: StoreSettings | None = None, features: FeatureSet = FEATURES) -> StateStore:
        store = RedisStore(url, features, settings)
        store.check()
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


def memory_stores() -> Iterator[StoreFactory]:
    opened: list[ForgetfulStore] = []

    def open_store(settings: StoreSettings | None = None, features: FeatureSet = FEATURES) -> StateStore:
        if not opened:
            opened.append(ForgetfulStore(features, settings))
        return opened[0]

    yield open_store


@pytest.fixture(params=["memory", "redis"])
def open_store(request: pytest.FixtureRequest) -> Iterator[StoreFactory]:
    """A factory of stores on data that is empty when the test begins."""
    if request.param == "memory":
        yield from memory_stores()
    else:
        yield from redis_stores(request.getfixturevalue("redis_url"))


@pytest.fixture
def forget(open_store: StoreFactory, request: pytest.FixtureRequest) -> Forget:
    """Take everything from the store, as a Redis that is restarted without its file; a moment passes meanwhile."""

    def empty() -> None:
        store = open_store()
        if isinstance(store, ForgetfulStore):
            store.forget()
        else:
            with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
                client.flushdb()
        time.sleep(0.002)

    return empty


@pytest.fixture
def store(open_store: StoreFactory) -> StateStore:
    """One store with the default settings."""
    return open_store()

"""The stores that keep the contract, each as a set of workers would see it."""

from collections.abc import Callable, Iterator

import pytest

from fraudstream.adapters.memory import MemoryStore
from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import StateStore
from tests.support.desk import FEATURES

# `open_store(settings=..., features=...)`: in Redis a new process on the same data; memory has only one process.
StoreFactory = Callable[..., StateStore]


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
    opened: list[MemoryStore] = []

    def open_store(settings: StoreSettings | None = None, features: FeatureSet = FEATURES) -> StateStore:
        if not opened:
            opened.append(MemoryStore(features, settings))
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
def store(open_store: StoreFactory) -> StateStore:
    """One store with the default settings."""
    return open_store()

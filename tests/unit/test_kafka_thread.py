"""What aiokafka says in its thread that must not end the worker."""

import asyncio
import logging
from contextlib import nullcontext
from typing import Any

from aiokafka.errors import NoOffsetForPartitionError
from aiokafka.structs import TopicPartition

from fraudstream.adapters.kafka_thread import ConsumerThread


class ForgetfulFetcher:
    """aiokafka's fetcher after a look at an assignment without commits: it complains once, then has records."""

    _closed = False

    def __init__(self) -> None:
        self._subscriptions = self
        self._complained = False

    def fetch_context(self) -> Any:
        return nullcontext()

    async def fetched_records(self, *_: Any, **__: Any) -> dict[str, str]:
        if not self._complained:
            self._complained = True
            raise NoOffsetForPartitionError(TopicPartition("labels", 0))
        return {"labels": "records"}


class BareThread(ConsumerThread):
    """The thread without its thread."""

    log = logging.getLogger("test")

    def __init__(self) -> None:
        self.consumer = self
        self.flow_active = True
        self._closed = False
        self._fetcher = ForgetfulFetcher()


def test_a_partition_without_a_commit_is_no_fault() -> None:
    """Aiokafka's late word that nothing was committed is passed over, and the next fetch brings records."""
    thread = BareThread()
    assert asyncio.run(thread._fetch_records(thread, None)) == {}
    assert asyncio.run(thread._fetch_records(thread, None)) == {"labels": "records"}

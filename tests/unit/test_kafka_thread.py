"""What aiokafka says in its thread that must not end the worker."""

import asyncio
import logging
from contextlib import nullcontext
from typing import Any

from aiokafka.errors import NoOffsetForPartitionError
from aiokafka.structs import TopicPartition
from faust.types import TP
from mode.utils.locks import Event

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


class EndedThread(ConsumerThread):
    """The thread after its end: it takes calls, and nobody will ever answer them."""

    def __init__(self) -> None:
        self.parent_loop = asyncio.get_running_loop()
        self._shutdown = Event(loop=self.parent_loop)

    async def call_thread(self, *_: Any, **__: Any) -> Any:
        await self.parent_loop.create_future()


def test_a_commit_does_not_wait_for_a_thread_that_has_ended() -> None:
    """Whether the thread ended before or after it was asked: the offsets are not committed, and the worker's end goes on."""

    async def commits() -> list[bool]:
        thread = EndedThread()
        asked = asyncio.ensure_future(thread.commit({TP("labels", 0): 5}))
        await asyncio.sleep(0)
        thread.set_shutdown()
        return [await asked, await thread.commit({TP("labels", 0): 5})]

    assert asyncio.run(asyncio.wait_for(commits(), 10)) == [False, False]


def test_a_partition_without_a_commit_is_no_fault() -> None:
    """Aiokafka's late word that nothing was committed is passed over, and the next fetch brings records."""
    thread = BareThread()
    assert asyncio.run(thread._fetch_records(thread, None)) == {}
    assert asyncio.run(thread._fetch_records(thread, None)) == {"labels": "records"}

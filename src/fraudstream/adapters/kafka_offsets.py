"""Where a partition is read from, and what to do where the broker no longer holds what comes next."""

from collections.abc import Awaitable, Callable, Mapping

from aiokafka.structs import TopicPartition
from faust.types import TP

from fraudstream.adapters.kafka_thread import ConsumerThread

StartOffsets = Callable[[Mapping[TP, int | None]], Awaitable[Mapping[TP, int] | None]]
"""Called with the committed offset of each assigned partition (None: no commit yet); returns where to start instead."""

Expired = Callable[[TP, int, int, int], Awaitable[None]]
"""Told a partition, the offset that was to be read next, and the first and the end offset that the broker holds."""


async def skip_expired(thread: ConsumerThread, wanted: Mapping[TopicPartition, int], told: Expired | None) -> None:
    """Go on at the beginning of each partition that was to be read where the broker holds nothing.

    aiokafka would do so by itself, and without a word: records that the retention took before they were read, or a log
    that is shorter than it was. `told` may raise, which ends the worker.
    """
    for key, offset in wanted.items():
        tp = TP(*key)
        first, end = await thread.call_thread(thread.bounds, tp)
        if told:
            await told(tp, offset, first, end)
        await thread.call_thread(thread.seek_all, {tp: first}, ())

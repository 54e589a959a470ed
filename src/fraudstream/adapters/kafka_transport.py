"""Micro-batches for Faust: what was fetched of all partitions reaches the agent as one event.

Faust spends about 100 µs of CPU on every event (two asyncio tasks, sensors, decoding), however cheap the agent is. The
transport below keeps Faust's group management, its agents and its way to stop, and makes an event out of up to
`records_max` records. Why, with figures: docs/decisions/micro-batch-transport.md.

Set with `app.transport = MicroBatchTransport(app, on_assigned=start_offsets)`. The agent takes `stream.noack().events()`,
leaves events alone that are not `transport.is_current(event)`, works on `event.value` (a list of aiokafka ConsumerRecord, of
one or more partitions one after the other, each in offset order) and then awaits `stream.ack(event)`; a stale event's ack
commits nothing.

Every subscribed topic is batched. Written against faust-streaming 0.15.3 and aiokafka 0.14.
"""

import time
from typing import Any, ClassVar, Literal, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, EventT

from fraudstream.adapters import kafka_records
from fraudstream.adapters.kafka_batches import PartitionProgress, stalled
from fraudstream.adapters.kafka_consumer import MicroBatchConsumer
from fraudstream.adapters.kafka_offsets import Expired, StartOffsets

RECORDS_MAX = 1024
"""Records per event. 1,024 records carry Faust's cost of an event at 0.1 µs each; more adds latency and wins nothing."""

BATCHES_OPEN_MAX = 4
"""Events handed out and not yet acked: one in work, the rest ready behind it. It bounds memory and, under load, the time
a record waits inside the worker; past it nothing is fetched, so records pile up in the broker and batches grow."""

FETCH_WAIT_MAX_MS = 100
"""How long the broker may hold an empty fetch. Faust has 1,500 fixed. What is not part of the fetch in flight waits for
its end: a partition whose last records were taken late, and every partition after a seek or a rebalance."""


class MicroBatchTransport(driver.Transport):
    """Transport whose events are batches of records.

    Parameters
    ----------
    app
        The Faust app, on which the transport is then set: `app.transport = ...`.
    records_max, batches_open_max, fetch_wait_max_ms
        See the constants of the same names.
    isolation_level
        `read_committed` hides records of aborted transactions, which Faust would deliver.
    on_assigned
        Awaited once for each new assignment, before its first record is fetched and for as long as it takes, with
        the committed offset of each partition; what it returns is where those partitions start, below the committed
        offset or above it. Cancelled when the partitions leave again; an exception ends the worker.
    on_expired
        Awaited where the broker no longer holds what comes next, which is skipped then; an exception ends the worker.
    """

    Consumer: ClassVar[type[Any]] = MicroBatchConsumer

    def __init__(
        self,
        app: AppT,
        *,
        records_max: int = RECORDS_MAX,
        batches_open_max: int = BATCHES_OPEN_MAX,
        fetch_wait_max_ms: int = FETCH_WAIT_MAX_MS,
        isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed",
        on_assigned: StartOffsets | None = None,
        on_expired: Expired | None = None,
    ) -> None:
        if records_max < 1 or batches_open_max < 1:
            raise ValueError("records_max and batches_open_max are at least 1")
        super().__init__(app.conf.broker_consumer, app)
        kafka_records.install()
        self.records_max = records_max
        self.batches_open_max = batches_open_max
        self.fetch_wait_max_ms = fetch_wait_max_ms
        self.isolation_level = isolation_level
        self.on_assigned = on_assigned
        self.on_expired = on_expired

    @property
    def _consumer(self) -> MicroBatchConsumer:
        return cast(MicroBatchConsumer, self.app.consumer)

    def is_current(self, event: EventT[Any]) -> bool:
        """False where the event's records will be delivered again, here (after a seek) or to another worker."""
        return self._consumer.is_current(event.message)

    def release(self, event: EventT[Any], *, aside: bool = False) -> None:
        """Give up an event without having done its work; see `MicroBatchConsumer.release`."""
        self._consumer.release(event.message, aside=aside)

    def progress(self) -> dict[TP, PartitionProgress]:
        """How far each assigned partition is. Cheap; for metrics."""
        return self._consumer.progress()

    def stalled(self, limit_s: float) -> list[str]:
        """What has stood still for longer than `limit_s`, in words; empty where all is well. For readiness."""
        return stalled(self.progress(), time.monotonic() - self._consumer.polled_at_s, limit_s)

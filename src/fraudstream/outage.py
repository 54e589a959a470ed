"""The score role while the store is away: it waits, or runs ahead with provisional answers (`services/degraded.py`)."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from faust.types import TP, EventT

from fraudstream.core.ports import Lease
from fraudstream.errors import StateUnavailable
from fraudstream.roles import RETRY_S_FIRST, Role, Runner, by_partition, end, records_of, start_offset, still_current
from fraudstream.services.degraded import Ahead, Guesser
from fraudstream.services.health import Health
from fraudstream.services.scoring import Scorer
from fraudstream.settings import Settings

log = logging.getLogger("fraudstream.worker")
R = TypeVar("R")


class Outage:
    """What the score role does while the store is away: wait, or run ahead with provisional answers.

    Without a guesser it waits. With one, a call that was in vain for `degraded_after_s` makes it run ahead; an attempt to
    take the leases anew goes on all the while, and once it has them everything is read again from where the store is.
    """

    def __init__(self, settings: Settings, scorer: Scorer, health: Health, guesser: Guesser | None) -> None:
        self.ahead = Ahead()
        self._settings = settings
        self._scorer = scorer
        self._health = health
        self._runner = Runner(health, settings.outage_s_max)
        self._guesser = guesser
        self._why = ""
        self._guessing = Runner(health, settings.outage_s_max)

    async def call(self, role: Role, still_wanted: Callable[[], bool], work: Callable[[], R]) -> R | None:
        """The result of `work`; None once it is no longer wanted, or while the store is away and others wait already."""
        if self.ahead.active:
            return None
        patience_s = self._settings.degraded_after_s if self._guesser else None
        try:
            return await self._runner.call("score", still_wanted, work, patience_s=patience_s)
        except StateUnavailable as error:
            log.warning("score answers provisionally from here on, without state: %s", error)
            self.ahead.begin()
            self._tell(str(error))
            role.app.add_future(self._recover(role))
            return None

    async def go_ahead(self, role: Role, event: EventT[Any]) -> bool:
        """Answer a batch provisionally and let go of it; False, as it is not done."""
        batches, current = by_partition(records_of(event)), still_current(role, event)
        if self.ahead.active:  # before anything is awaited: what is not listed here is not read again
            for tp, records in batches.items():
                self.ahead.put(tp.partition, records[0].offset, records[0].offset)
        while self.ahead.active and not self.ahead.room and current():  # noqa: ASYNC110 - three reasons to go on, none an event
            await asyncio.sleep(RETRY_S_FIRST)
        if self._guesser is None or not self.ahead.active or not current():
            return False
        for tp, records in batches.items():
            partition, first = tp.partition, records[0].offset
            since = max(self.ahead.unanswered(partition, first), self._scorer.watermark(partition) + 1)
            if some := [record for record in records if record.offset >= since]:
                work = partial(self._guesser.answer, partition, some)
                guesses = await self._guessing.call("score-degraded", current, work)
                if guesses is None or not self.ahead.active:
                    return False
                self._health.totals["provisional"] += len(guesses)
                self._health.totals["provisional_alerts"] += sum(guess.action != "allow" for guess in guesses)
            self.ahead.put(partition, first, records[-1].offset + 1)
        self._tell()
        role.transport.release(event, aside=True)
        return False

    async def _recover(self, role: Role) -> None:
        try:
            taken: dict[int, Lease] = {}
            while left := [partition for partition in self.ahead.partitions if partition not in taken]:
                for partition in left:
                    lease = await self._take(role, partition)
                    if role.app.should_stop:
                        return
                    if lease is not None:
                        taken[partition] = lease
            self._health.troubles.pop("degraded", None)
            self._health.troubles.pop("score", None)
            log.warning("the store is back: %d records are decided again with all state", self.ahead.records)
            for partition, first in self.ahead.end().items():
                if first is not None:
                    tp = TP(self._settings.topics.transactions, partition)
                    where = start_offset(tp, first, taken[partition].watermark, self._settings.on_state_lost)
                    await role.app.consumer.seek(tp, first if where is None else where)
        except Exception as error:  # noqa: BLE001 - a task that ends in silence would leave the records undecided
            await end(role, error)

    async def _take(self, role: Role, partition: int) -> Lease | None:
        def wanted() -> bool:
            return partition in self.ahead.partitions and not role.app.should_stop

        return await self._runner.call("score", wanted, lambda: self._scorer.take(partition))

    def _tell(self, why: str = "") -> None:
        self._why = why or self._why
        waiting = f"{self.ahead.records} records will be decided again"
        self._health.troubles["degraded"] = f"score answers provisionally: {self._why}; {waiting}"

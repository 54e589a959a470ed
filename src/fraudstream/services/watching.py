"""The watch: every some seconds one worker of all compares what was counted with the reference, and tells what drifted.

It reads censuses and writes one state of its own; it is never in the way of a transaction. An alarm is saved in the state
with the event that tells of it, then published to the topic `model-events`, then struck out: with Redis away there is no
alarm yet, with Kafka away the next look publishes it, and after a crash in between it is told again, under the same id.
"""

import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from fraudstream.codec import encode_model_event
from fraudstream.core.alarms import Alarm, Check
from fraudstream.core.census import CENSUS, HOUR_MS, RUN_OFFSETS, Counts, Monitor
from fraudstream.core.ports import Outgoing, Publisher, StateStore
from fraudstream.core.quality import Quality
from fraudstream.core.watch import Limits, Reference, Watched, checks, estimated, loss_check
from fraudstream.events import ModelEvent, ModelEventKind
from fraudstream.services.adwin import LossMeans, ScoreMeans
from fraudstream.topics import Topics

log = logging.getLogger("fraudstream.watch")

DAY_HOURS: Final = 24
CHAMPION: Final = "champion"  # the score that the reference is of
# Days that are told one by one.
DAYS_MAX: Final = 60
# Events that wait for Kafka: a check begins and ends at most once in a cool-down, so with hundreds of checks these are
# days of an outage in which everything alarms; beyond, the oldest are dropped.
UNPUBLISHED_MAX: Final = 1_000


class WatchStore(Protocol):
    """Where the watch keeps its state; see `adapters.redis_watch`."""

    def hold(self, owner: str, ttl_ms: int) -> bool: ...
    def load(self) -> bytes | None: ...
    def save(self, owner: str, state: bytes) -> bool: ...
    def quality(self) -> dict[str, bytes]: ...


class Watcher:
    """Looks at one model's transactions.

    Parameters
    ----------
    monitor, reference
        Of the version that decides.
    look_every_ms
        How often `look` is called; another worker takes over after three times as long.
    """

    def __init__(
        self,
        model: tuple[str, str],
        monitor: Monitor,
        reference: Reference,
        store: StateStore,
        *,
        state: WatchStore,
        publisher: Publisher,
        limits: Limits,
        cool_down_ms: int,
        look_every_ms: int,
        topics: Topics | None = None,
        wall_ms: Callable[[], int],
    ) -> None:
        self._model = model
        self._monitor = monitor
        self._reference = reference
        self._store = store
        self._state = state
        self._publisher = publisher
        self._limits = limits
        self._cool_down_ms = cool_down_ms
        self._ttl_ms = 3 * look_every_ms
        self._topics = topics or Topics()
        self._wall_ms = wall_ms
        self._score_means = ScoreMeans(monitor, limits.alarms_per_month)
        self._loss_means = LossMeans(limits.alarms_per_month)
        self._news: list[Alarm] = []
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def look(self) -> Sequence[Alarm]:
        """Judge, if it is this worker's turn; the alarms that began or ended since the last look that came to its end.

        Raises `StateUnavailable` or `BrokerUnavailable`; looking again is then safe and right.
        """
        if not self._state.hold(self._owner, self._ttl_ms):
            return []
        watched = read_state(self._state.load())
        name, version = self._model
        if (watched.model, watched.version) != self._model:  # another reference: what was found of the old one is over
            watched = Watched(name, version, days=watched.days, unpublished=watched.unpublished)
        day, recent, newest_ms = self.windows()
        if newest_ms < 0:
            return []
        watched.at_ms = max(watched.at_ms, newest_ms)
        watched.transactions = self._store.counts().get("decided", 0)
        watched.checks = [
            *checks(self._reference, day, recent, self._limits),
            self._score_means.look(self._store),
            *self._of_labels(),
        ]
        self._tell_days(watched, day, recent)
        news = watched.alarms.judge(
            watched.checks, watched.at_ms, cool_down_ms=self._cool_down_ms, transactions=watched.transactions
        )
        events = [self._event(alarm) for alarm in news]
        watched.unpublished = [*watched.unpublished, *events][-UNPUBLISHED_MAX:]
        if not self._state.save(self._owner, msgspec.json.encode(watched)):
            return []  # another worker watches by now, and finds the same
        self._news += news
        for event in events:
            log.warning("drift %s: %s", event.state, event.message)
        self._publish(watched)
        told, self._news = self._news, []
        return told

    def _publish(self, watched: Watched) -> None:
        """Publish what the saved state has to tell, and strike it out."""
        if watched.unpublished:
            events = map(encode_model_event, watched.unpublished)
            self._publisher.publish([Outgoing(self._topics.model_events, event, None) for event in events])
            watched.unpublished = []
            self._state.save(self._owner, msgspec.json.encode(watched))

    def windows(self) -> tuple[Counts | None, Counts | None, int]:
        """The last day if it is full, the last transactions if there are as many, and the newest event time (or -1)."""
        watermarks = self._store.watermarks()
        runs_max = self._reference.recent // RUN_OFFSETS + 2
        wanted = [
            [self._monitor.run_name(partition, run) for partition, last in watermarks.items()
             if (run := last // RUN_OFFSETS - back) >= 0]
            for back in range(runs_max)
        ]  # fmt: skip
        rows: list[bytes | None] = []
        newest_ms, recent = -1, None
        for names in wanted:
            rows += self._store.rows({CENSUS: names})[CENSUS] if names else []
            counts = self._monitor.read(rows)
            newest_ms = max(newest_ms, counts.newest_ms)
            if counts.transactions >= self._reference.recent:
                recent = counts
                break
        if newest_ms < 0:
            return None, None, -1
        hour = newest_ms // HOUR_MS
        before = self._hours(watermarks, hour - 2 * DAY_HOURS, hour - DAY_HOURS)
        day = self._hours(watermarks, hour - DAY_HOURS, hour + 1) if before.transactions else None
        return day, recent, newest_ms

    def _of_labels(self) -> list[Check]:
        """What the labels that have come say of the champion."""
        quality = Quality.from_fields(self._state.quality())
        version = " ".join(self._model)
        found = loss_check([day for _, day in quality.days(version, CHAMPION)], self._limits)
        means = self._loss_means.look(quality.total(version, CHAMPION))
        return [means] if found is None else [means, found]

    def _hours(self, partitions: Iterable[int], start: int, stop: int) -> Counts:
        names = [self._monitor.hour_name(partition, hour) for partition in partitions for hour in range(start, stop)]
        return self._monitor.read(self._store.rows({CENSUS: names})[CENSUS])

    def _tell_days(self, watched: Watched, day: Counts | None, recent: Counts | None) -> None:
        number = watched.at_ms // (DAY_HOURS * HOUR_MS)
        partitions = self._store.watermarks()
        for at in (number - 1, number):
            counts = self._hours(partitions, at * DAY_HOURS, (at + 1) * DAY_HOURS)
            if counts.transactions:
                watched.days[at] = estimated(counts.sums)
        watched.shifts[number] = {c.subject: c.value for c in watched.checks if c.kind == "psi_day"}
        for kept in (watched.days, watched.shifts):
            for old in sorted(kept)[:-DAYS_MAX]:
                del kept[old]
        empty: list[int] = []
        watched.bins = {
            name: [
                list(of.counts),
                day.bins[name].tolist() if day else empty,
                recent.bins[name].tolist() if recent else empty,
            ]
            for name, of in self._reference.bins.items()
        }

    def _event(self, alarm: Alarm) -> ModelEvent:
        name, version = self._model
        return ModelEvent(
            event_id=f"{alarm.event_id}:{'began' if alarm.ended_ms is None else 'ended'}",
            kind=ModelEventKind.DRIFT,
            state="began" if alarm.ended_ms is None else "ended",
            time_ms=self._wall_ms(),
            subject=alarm.subject,
            message=alarm.message if alarm.ended_ms is None else f"{alarm.subject} is inside its limit again",
            model_name=name,
            model_version=version,
            values={
                "check": alarm.kind, "value": alarm.value, "limit": alarm.limit, "peak": alarm.peak,
                "event_time_ms": alarm.began_ms if alarm.ended_ms is None else alarm.ended_ms,
            },
        )  # fmt: skip


def read_state(data: bytes | None) -> Watched:
    """The state; an empty one where there is none or one of another form."""
    if data is None:
        return Watched()
    try:
        return msgspec.json.decode(data, type=Watched)
    except msgspec.MsgspecError as error:
        log.warning("the state of the watch cannot be read, it begins anew: %s", error)
        return Watched()

"""The watch: every some seconds one worker of all compares what was counted with the reference, and tells what drifted.

It reads censuses and writes one state of its own; it is never in the way of a transaction. An alarm is saved in the state
with the event that tells of it, then published to the topic `model-events`, then struck out: with Redis away there is no
alarm yet, with Kafka away the next look publishes it, and after a crash in between it is told again, under the same id.
"""

import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Final, Protocol

import msgspec

from fraudstream.codec import encode_model_event
from fraudstream.core.alarms import Alarm
from fraudstream.core.census import CENSUS, HOUR_MS, RUN_OFFSETS, Counts, Monitor
from fraudstream.core.ports import Outgoing, Publisher, StateStore
from fraudstream.core.quality import Quality
from fraudstream.core.watch import Limits, Reference, Watched, Windows, checks, estimated, loss_check
from fraudstream.events import ModelEvent, ModelEventKind
from fraudstream.services.adwin import LossMeans, ScoreMeans
from fraudstream.topics import Topics

log = logging.getLogger("fraudstream.watch")

DAY_HOURS: Final = 24
DAY_MS: Final = DAY_HOURS * HOUR_MS
# Whole days that are counted: censuses live for nine days after their last commit.
DAYS_COUNTED: Final = 8
# A window of transactions looks back over at most as many times the offsets it would need if each held one: rejected
# records and the markers of transactional producers take offsets too. Rare enough, and each look reads them all.
SPARSE_MAX: Final = 32
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
        self._news: list[Alarm] = []
        self._unreadable: set[str] = set()  # fields of quality that were told of
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
        windows = self.windows(watched.score.upto)
        if windows.newest_ms < 0:
            return []
        news = self._judge(watched, windows)
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

    def _judge(self, watched: Watched, windows: Windows) -> list[Alarm]:
        """Write into the state what the windows show; the alarms that began or ended with it."""
        watched.at_ms = min(max(watched.at_ms, windows.newest_ms), self._wall_ms())
        watched.transactions = self._store.counts().get("decided", 0)
        quality = self._quality()
        label = " ".join(self._model)
        score = ScoreMeans(self._limits.by_labels, watched.score)
        loss = LossMeans(self._limits.by_labels, watched.loss)
        surprise = loss_check([day for _, day in quality.days(label, CHAMPION)], self._limits)
        over = {day: counts for day, counts in windows.days.items() if day < windows.newest_ms // DAY_MS}
        watched.checks = [
            *checks(self._reference, windows, self._limits),
            score.look(over),
            loss.look(quality.total(label, CHAMPION)),
            *([] if surprise is None else [surprise]),
        ]
        self._tell_days(watched, windows)
        news = watched.alarms.judge(
            watched.checks, watched.at_ms, cool_down_ms=self._cool_down_ms, transactions=watched.transactions
        )
        for means in (score, loss):
            if means.check().name in watched.alarms.lasting:
                means.told()
        return news

    def _quality(self) -> Quality:
        quality = Quality.from_fields(self._state.quality())
        for name in quality.unreadable.keys() - self._unreadable:
            log.error(
                "the figures of quality %s cannot be read, the watch goes on without: %s",
                name,
                quality.unreadable[name],
            )
        self._unreadable = set(quality.unreadable)
        return quality

    def _publish(self, watched: Watched) -> None:
        """Publish what the saved state has to tell, and strike it out."""
        if watched.unpublished:
            events = map(encode_model_event, watched.unpublished)
            self._publisher.publish([Outgoing(self._topics.model_events, event, None) for event in events])
            watched.unpublished = []
            self._state.save(self._owner, msgspec.json.encode(watched))

    def windows(self, told_upto: int = -1) -> Windows:
        """What is judged now. `told_upto` is the last day whose end was seen: the days since are read with the others."""
        partitions = self._store.watermarks()
        newest_ms, recent, records = self._recent(partitions)
        if newest_ms < 0:
            return Windows()
        hour = newest_ms // HOUR_MS
        today = hour // DAY_HOURS
        first = min(hour - 2 * DAY_HOURS, max(told_upto + 1, today - DAYS_COUNTED) * DAY_HOURS)
        hours = range(first, hour + 1)
        names = [self._monitor.hour_name(partition, at) for at in hours for partition in partitions]
        rows = self._store.rows({CENSUS: names})[CENSUS]

        def between(start: int, stop: int) -> Counts:
            return self._monitor.read(rows[max(0, start - first) * len(partitions) : (stop - first) * len(partitions)])

        whole = between(hour - 2 * DAY_HOURS, hour - DAY_HOURS).transactions > 0
        day = between(hour - DAY_HOURS, hour) if whole else None
        days = {at: between(at * DAY_HOURS, (at + 1) * DAY_HOURS) for at in range(-(-first // DAY_HOURS), today + 1)}
        return Windows(newest_ms, day, recent, records, days)

    def _recent(self, partitions: Mapping[int, int]) -> tuple[int, Counts | None, Counts | None]:
        """The newest event time, and the newest transactions and records: back run by run until there are enough."""
        wanted = self._reference.recent
        more = -(-wanted // (RUN_OFFSETS * max(1, len(partitions)))) + 1
        newest_ms, back, stop = -1, 0, SPARSE_MAX * more
        rows: list[bytes | None] = []
        seen = transactions = 0
        records: Counts | None = None
        while back < stop:
            names = [
                [self._monitor.run_name(partition, run) for partition, last in partitions.items()
                 if (run := last // RUN_OFFSETS - at) >= 0]
                for at in range(back, back + more)
            ]  # fmt: skip
            found = iter(self._store.rows({CENSUS: [*chain(*names)]})[CENSUS] if names[0] else [])
            for step in names:
                read = [*islice(found, len(step))]
                counts = self._monitor.read(read)
                rows += read
                newest_ms = max(newest_ms, counts.newest_ms)
                transactions += counts.transactions
                seen += counts.transactions + counts.sums["rejected"]
                if records is None and seen >= wanted:
                    records = self._monitor.read(rows)
                if transactions >= wanted:
                    return min(newest_ms, self._wall_ms()), self._monitor.read(rows), records
            if not names[-1]:
                break
            back, more = back + more, back + more
        return min(newest_ms, self._wall_ms()), None, records

    def _tell_days(self, watched: Watched, windows: Windows) -> None:
        for at in sorted(windows.days)[-2:]:
            if windows.days[at].transactions:
                watched.days[at] = estimated(windows.days[at].sums)
        for old in sorted(watched.days)[:-DAYS_MAX]:
            del watched.days[old]
        day, recent = windows.day, windows.recent
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

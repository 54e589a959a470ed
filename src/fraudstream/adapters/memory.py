"""State store and publisher in memory: the same contract as Redis and Kafka, for tests and for scoring a file.

Everything is lost with the process. `tests/contract/` runs one suite over this store and the one on Redis.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import takewhile
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar

from msgspec.structs import replace

from fraudstream.adapters.redis_keys import CENSUS_TTL_MS, EXAMPLE_CLAIM_MS, Keys, StoreSettings, row_ttl_ms
from fraudstream.core.census import CENSUS
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import (
    NO_OFFSET,
    Advance,
    Commit,
    CommitStatus,
    Gathered,
    LabelStatus,
    LabelStep,
    Lease,
    Outgoing,
    Sighting,
)
from fraudstream.core.updates import SharedUpdate, apply_update, heads_of
from fraudstream.events import Decision, Label, Rejected

P = ParamSpec("P")
R = TypeVar("R")
RowKey = tuple[str, str]  # entity, key


def _atomic(method: Callable[Concatenate["MemoryStore", P], R]) -> Callable[Concatenate["MemoryStore", P], R]:
    """One call at a time, as Redis runs its scripts."""

    @wraps(method)
    def locked(self: "MemoryStore", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


@dataclass
class _Generation:
    """The decisions of one stretch of event time, and the verdicts on them; dropped as a whole."""

    expires_at_ms: int
    decisions: dict[str, Decision] = field(default_factory=dict)
    verdicts: dict[str, bool] = field(default_factory=dict)


class MemoryStore:
    """State of one feature list in this process' memory. `clock_ms` is the wall clock that retention goes by."""

    def __init__(
        self,
        features: FeatureSet,
        settings: StoreSettings | None = None,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings or StoreSettings()
        self._clock_ms = clock_ms
        self._keys = Keys(self._settings)
        self._row_ttl_ms = row_ttl_ms(features)
        self._layouts = {entity.name: entity.layout for entity in features.entities}
        self._lock = Lock()
        self._fences: Counter[int] = Counter()
        self._watermarks: dict[int, int] = {}
        self._counters: Counter[str] = Counter()
        self._rows: dict[RowKey, bytes] = {}
        self._row_expires_at_ms: dict[RowKey, int] = {}
        self._generations: dict[int, _Generation] = {}
        self._parked: dict[str, Label] = {}  # in the order in which they were parked
        self._parked_at_ms: dict[str, int] = {}
        self._parked_version = 0
        self._examples_due_ms: dict[Label, int] = {}
        self._labels_settled: dict[int, int] = {}
        self._late_verdicts: dict[str, tuple[bool, int]] = {}  # and when it may be forgotten

    @_atomic
    def take_lease(self, partition: int) -> Lease:
        # The clock, not a count: a store that lost data would count the same numbers again (see `lease.lua`).
        self._fences[partition] = max(self._fences[partition] + 1, self._clock_ms())
        return Lease(partition, self._fences[partition], self._watermarks.get(partition, NO_OFFSET))

    @_atomic
    def gather(self, keys: Mapping[str, Sequence[str]], sightings: Sequence[Sighting]) -> Gathered:
        decisions = [
            None if s.new else self._find(s.transaction_id, self._keys.generations_near(s.event_time_ms))
            for s in sightings
        ]
        labels = [self._parked.get(sighting.transaction_id) for sighting in sightings]
        return Gathered(self._read_rows(keys), decisions, labels, self._parked_version)

    @_atomic
    def commit(self, commit: Commit) -> CommitStatus:
        endings = {self._ending(advance) for advance in commit.advances}
        if len(endings) > 1:
            return CommitStatus.CONFLICT
        if (ending := endings.pop()) is not None:
            return ending
        changed = self._after(commit.shared)
        if changed is None or self._missed_label(commit) or any(self._decided(d) for d in commit.decisions):
            return CommitStatus.CONFLICT
        for decision in commit.decisions:
            self._generation(decision).decisions[decision.transaction_id] = decision
        for entity, key, row in commit.rows:
            self._write_row((entity, key), row, anew=True)
        for name, row in commit.census:
            self._rows[CENSUS, name] = row
            self._row_expires_at_ms[CENSUS, name] = self._clock_ms() + CENSUS_TTL_MS
        self._write_shared(changed)
        by_id = {decision.transaction_id: decision for decision in commit.decisions}
        for label in commit.parked:
            self._generation(by_id[label.transaction_id]).verdicts[label.transaction_id] = label.is_fraud
            self._unpark(label.transaction_id)
            self._examples_due_ms[replace(label, reason=None)] = 0  # for the label role to publish, at once
        self._counters.update(commit.counts)
        for advance in commit.advances:
            self._watermarks[advance.lease.partition] = advance.watermark
        return CommitStatus.APPLIED

    def _ending(self, advance: Advance) -> CommitStatus | None:
        """How a commit ends for a partition of its; None if it is to be applied."""
        lease, fence = advance.lease, self._fences[advance.lease.partition]
        if fence != lease.fence:
            return CommitStatus.FENCED if fence > lease.fence else CommitStatus.REWOUND
        applied = self._watermarks.get(lease.partition, NO_OFFSET)
        if applied == advance.watermark:  # the answer to an earlier try of this very commit was lost
            return CommitStatus.APPLIED
        return None if applied == lease.watermark else CommitStatus.REWOUND

    def decision(self, transaction_id: str) -> Decision | None:
        return self.gather_decisions([transaction_id])[0]

    @_atomic
    def gather_decisions(self, transaction_ids: Sequence[str]) -> list[Decision | None]:
        return [self._find(name, sorted(self._generations)) for name in transaction_ids]

    @_atomic
    def rows(self, keys: Mapping[str, Sequence[str]]) -> dict[str, Sequence[bytes | None]]:
        return self._read_rows(keys)

    @_atomic
    def labels_settled(self, partition: int) -> int:
        return self._labels_settled.get(partition, NO_OFFSET)

    @_atomic
    def settle_labels(self, partition: int, steps: Sequence[LabelStep], *, after: int) -> list[LabelStatus] | None:
        if self._labels_settled.get(partition, NO_OFFSET) < after:
            return None
        statuses: list[LabelStatus] = []
        for step in steps:
            status = self._settle(step)
            if status is None:
                break
            statuses.append(status)
            if step.offset > self._labels_settled.get(partition, NO_OFFSET):
                why = f".{step.label.reason.value}" if isinstance(step.label, Rejected) else ""
                self._counters[f"labels.{status.value}{why}"] += 1
                self._labels_settled[partition] = step.offset
        return statuses

    @_atomic
    def claim_examples(self, count: int) -> list[Label]:
        now_ms = self._clock_ms()
        due = [label for label, due_ms in self._examples_due_ms.items() if due_ms <= now_ms][:count]
        self._examples_due_ms.update(dict.fromkeys(due, now_ms + EXAMPLE_CLAIM_MS))
        return due

    @_atomic
    def settle_examples(self, labels: Sequence[Label]) -> None:
        for label in labels:
            self._examples_due_ms.pop(replace(label, reason=None), None)

    @_atomic
    def load_rows(self, entity: str, rows: Mapping[str, bytes]) -> None:
        for key, row in rows.items():
            self._write_row((entity, key), row, anew=True)

    @_atomic
    def counts(self) -> dict[str, int]:
        return dict(self._counters)

    @_atomic
    def watermarks(self) -> dict[int, int]:
        return dict(self._watermarks)

    def _read_rows(self, keys: Mapping[str, Sequence[str]]) -> dict[str, Sequence[bytes | None]]:
        return {entity: [self._row((entity, key)) for key in wanted] for entity, wanted in keys.items()}

    def _row(self, key: RowKey) -> bytes | None:
        if key in self._rows and self._row_expires_at_ms[key] <= self._clock_ms():
            del self._rows[key], self._row_expires_at_ms[key]
        return self._rows.get(key)

    def _write_row(self, key: RowKey, row: bytes, *, anew: bool) -> None:
        self._rows[key] = row
        if anew:
            self._row_expires_at_ms[key] = self._clock_ms() + self._row_ttl_ms

    def _after(self, shared: Sequence[tuple[str, SharedUpdate]]) -> dict[RowKey, bytes] | None:
        """The rows after the updates; None if heads moved since they were gathered."""
        changed: dict[RowKey, bytes] = {}
        for entity, update in shared:
            for key in ((entity, name) for name in update.keys):
                row = apply_update(changed.get(key, self._row(key)), self._layouts[entity], update)
                if row is None:
                    return None
                changed[key] = row
        return changed

    def _write_shared(self, changed: Mapping[RowKey, bytes]) -> None:
        for key, row in changed.items():
            layout = self._layouts[key[0]]
            self._write_row(key, row, anew=heads_of(self._row(key), layout) != heads_of(row, layout))

    def _missed_label(self, commit: Commit) -> bool:
        """Was a label of this batch parked after the gather, or lost since?"""
        if any(label.transaction_id not in self._parked for label in commit.parked):
            return True
        if self._parked_version == commit.parked_version:
            return False
        known = {label.transaction_id for label in commit.parked}
        return any(d.transaction_id in self._parked and d.transaction_id not in known for d in commit.decisions)

    def _live(self) -> Iterator[tuple[int, _Generation]]:
        now_ms = self._clock_ms()
        for number in [n for n, generation in self._generations.items() if generation.expires_at_ms <= now_ms]:
            del self._generations[number]
        yield from self._generations.items()

    def _generation(self, decision: Decision) -> _Generation:
        """The generation a decision belongs to, made if there is none."""
        number = self._keys.generation(decision.event_time_ms)
        live = dict(self._live())
        if number not in live:
            ttl_ms = self._settings.retention_ms + self._keys.generation_ms
            self._generations[number] = _Generation(self._clock_ms() + ttl_ms)
        return self._generations[number]

    def _find(self, transaction_id: str, generations: Sequence[int]) -> Decision | None:
        live = dict(self._live())
        found = (live[n].decisions.get(transaction_id) for n in generations if n in live)
        return next((decision for decision in found if decision is not None), None)

    def _decided(self, decision: Decision) -> bool:
        """Was the transaction decided since the gather, here or beyond the edge of its generation?"""
        return self._find(decision.transaction_id, self._keys.generations_near(decision.event_time_ms)) is not None

    def _stored(self, decision: Decision) -> bool:
        return self._find(decision.transaction_id, [self._keys.generation(decision.event_time_ms)]) is not None

    def _settle(self, step: LabelStep) -> LabelStatus | None:
        """How a label record ended; None if the state moved under it."""
        if isinstance(step.label, Rejected):
            return LabelStatus.REJECTED
        if step.decision is None:
            return self._park(step.label)
        if step.late:
            return self._join_late(step.label)
        if not self._stored(step.decision):
            return None  # dropped since it was gathered
        verdicts, name = self._generation(step.decision).verdicts, step.label.transaction_id
        if name in verdicts:
            return _again(verdicts[name], step.label)
        changed = self._after(step.shared)
        if changed is None:
            return None
        self._write_shared(changed)
        verdicts[name] = step.label.is_fraud
        self._note_example(step.label)
        return LabelStatus.JOINED

    def _park(self, label: Label) -> LabelStatus | None:
        name = label.transaction_id
        self._give_up()
        if self._find(name, list(self._generations)) is not None:
            return None  # decided since it was looked for
        if name in self._parked:
            return _again(self._parked[name].is_fraud, label)
        if len(self._parked) >= self._settings.parked_labels_max:
            return LabelStatus.ORPHAN
        self._parked[name], self._parked_at_ms[name] = label, self._clock_ms()
        self._parked_version += 1
        return LabelStatus.PARKED

    def _join_late(self, label: Label) -> LabelStatus | None:
        name, now_ms = label.transaction_id, self._clock_ms()
        if self._find(name, list(self._generations)) is not None:
            return None  # read by the index between the two questions
        held, until_ms = self._late_verdicts.get(name, (False, now_ms))
        if until_ms > now_ms:
            return _again(held, label)
        ttl_ms = self._settings.late_retention_ms + self._keys.generation_ms
        self._late_verdicts[name] = label.is_fraud, now_ms + ttl_ms
        if name in self._parked:  # while there was no index
            self._unpark(name)
            self._counters["labels.expired"] += 1
        self._note_example(label)
        return LabelStatus.LATE

    def _note_example(self, label: Label) -> None:
        """Its example is to be published: by who joined it, or by anybody after a while."""
        self._examples_due_ms[replace(label, reason=None)] = self._clock_ms() + EXAMPLE_CLAIM_MS

    def _give_up(self) -> None:
        """On the parked labels that have waited their time."""
        waited_from_ms = self._clock_ms() - self._settings.parked_ttl_ms
        for waiting, _ in list(takewhile(lambda item: item[1] <= waited_from_ms, self._parked_at_ms.items())):
            self._unpark(waiting)
            self._counters["labels.expired"] += 1

    def _unpark(self, transaction_id: str) -> None:
        self._parked.pop(transaction_id, None)
        self._parked_at_ms.pop(transaction_id, None)


def _again(held: bool, label: Label) -> LabelStatus:
    return LabelStatus.DUPLICATE if held == label.is_fraud else LabelStatus.CHANGED


class MemoryPublisher:
    """Keeps what was published in `messages`, in order."""

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []

    def publish(self, messages: Sequence[Outgoing]) -> None:
        self.messages += messages

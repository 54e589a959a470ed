"""What can go wrong around a worker, to be planted in tests: at which moment, and what then.

A moment is a step before or after which a worker can be hit: `before commit`, `after commit` (applied, the answer lost),
`during publish` (a part is out), and so on for every call. A `Hook` is told each moment and may raise, or do something
else first, such as let another worker go ahead.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, TypeVar

from fraudstream.adapters.memory import MemoryStore
from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import (
    Commit,
    CommitStatus,
    Gathered,
    LabelStatus,
    LabelStep,
    Lease,
    Outgoing,
    Publisher,
    Sighting,
    StateStore,
)
from fraudstream.errors import BrokerUnavailable, StateUnavailable
from fraudstream.events import Decision, Label

R = TypeVar("R")
Hook = Callable[[str], None]
"""Told a moment (`before gather`, `after commit`, `during publish`, ...); what it raises is what the worker meets."""


class WorkerKilled(BaseException):
    """The process is gone, as by `kill -9`. No `except Exception` on the way may see it, as none would in life."""


def fails(moment: str, times: int = 1) -> Hook:
    """Be away at a moment, `times` times: Redis or, around publish, Kafka.

    Examples
    --------
    >>> from fraudstream.testing import Driver, card_transaction
    >>> driver = Driver(at=fails("after commit"))
    >>> try:
    ...     driver.pipe(card_transaction(amount=950.0))
    ... except StateUnavailable:
    ...     driver.crash()
    >>> driver.alerts(), driver.run().repeated, len(driver.alerts())
    ([], 1, 1)
    """
    error = BrokerUnavailable if moment.endswith("publish") else StateUnavailable
    return _raises(moment, times, lambda: error(f"planted {moment}"))


def kills(moment: str) -> Hook:
    """End the worker at a moment with `WorkerKilled`, once."""
    return _raises(moment, 1, lambda: WorkerKilled(f"planted {moment}"))


def _raises(planted: str, times: int, error: Callable[[], BaseException]) -> Hook:
    left = times

    def at(moment: str) -> None:
        nonlocal left
        if moment == planted and left:
            left -= 1
            raise error()

    return at


class FlakyStore:
    """A store behind a hook: told `before` and `after` every call that a worker makes."""

    def __init__(self, store: StateStore, at: Hook) -> None:
        self._store = store
        self._at = at

    def take_lease(self, partition: int) -> Lease:
        return self._around("take_lease", lambda: self._store.take_lease(partition))

    def gather(self, keys: Mapping[str, Sequence[str]], sightings: Sequence[Sighting]) -> Gathered:
        return self._around("gather", lambda: self._store.gather(keys, sightings))

    def commit(self, commit: Commit) -> CommitStatus:
        return self._around("commit", lambda: self._store.commit(commit))

    def decision(self, transaction_id: str) -> Decision | None:
        return self._around("decision", lambda: self._store.decision(transaction_id))

    def gather_decisions(self, transaction_ids: Sequence[str]) -> Sequence[Decision | None]:
        return self._around("gather_decisions", lambda: self._store.gather_decisions(transaction_ids))

    def rows(self, keys: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[bytes | None]]:
        return self._around("rows", lambda: self._store.rows(keys))

    def labels_settled(self, partition: int) -> int:
        return self._around("labels_settled", lambda: self._store.labels_settled(partition))

    def settle_labels(self, partition: int, steps: Sequence[LabelStep], *, after: int) -> Sequence[LabelStatus] | None:
        return self._around("settle_labels", lambda: self._store.settle_labels(partition, steps, after=after))

    def claim_examples(self, count: int) -> Sequence[Label]:
        return self._around("claim_examples", lambda: self._store.claim_examples(count))

    def settle_examples(self, labels: Sequence[Label]) -> None:
        self._around("settle_examples", lambda: self._store.settle_examples(labels))

    def load_rows(self, entity: str, rows: Mapping[str, bytes]) -> None:
        self._around("load_rows", lambda: self._store.load_rows(entity, rows))

    def counts(self) -> Mapping[str, int]:
        return self._around("counts", self._store.counts)

    def watermarks(self) -> Mapping[int, int]:
        return self._around("watermarks", self._store.watermarks)

    def _around(self, call: str, work: Callable[[], R]) -> R:
        self._at(f"before {call}")
        answer = work()
        self._at(f"after {call}")
        return answer


class FlakyBroker:
    """A publisher behind a hook: told `before`, `during` (between two messages) and `after` publish."""

    def __init__(self, publisher: Publisher, at: Hook) -> None:
        self._publisher = publisher
        self._at = at

    def publish(self, messages: Sequence[Outgoing]) -> None:
        self._at("before publish")
        for number, message in enumerate(messages):
            if number:
                self._at("during publish")
            self._publisher.publish([message])
        self._at("after publish")


class ForgetfulStore(MemoryStore):
    """A store that can be set back to what it was, as Redis is when it lost the end of its log.

    Examples
    --------
    >>> store = ForgetfulStore(FeatureSet.default())
    >>> store.remember(); store.load_rows("card", {"c1": b"row"}); store.rows({"card": ["c1"]})
    {'card': [b'row']}
    >>> store.forget(); store.rows({"card": ["c1"]})
    {'card': [None]}
    """

    _NOT_DATA: Final = ("_settings", "_clock_ms", "_keys", "_layouts", "_lock")

    def __init__(
        self, features: FeatureSet, settings: StoreSettings | None = None, *, clock_ms: Callable[[], int] | None = None
    ) -> None:
        if clock_ms is None:
            super().__init__(features, settings)
        else:
            super().__init__(features, settings, clock_ms=clock_ms)
        self._saved: dict[str, Any] = {}
        self.remember()

    def remember(self) -> None:
        """Save all data, as Redis does to its disk."""
        with self._lock:
            kept = {name: value for name, value in vars(self).items() if name not in (*self._NOT_DATA, "_saved")}
            self._saved = deepcopy(kept)

    def forget(self) -> None:
        """Go back to what was saved last; everything since is lost."""
        with self._lock:
            vars(self).update(deepcopy(self._saved))

"""The learner's state in memory: the same contract as on Redis, for tests and for replaying a file."""

from collections.abc import Sequence
from threading import Lock

from fraudstream.core.ports import NO_OFFSET, CommitStatus, LearnerCommit, LearnerLease, Sighting


class MemoryLearnerStore:
    """State of the one learner in this process' memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._fence = 0
        self._epoch = 0
        self._watermark = NO_OFFSET
        self._parts: dict[str, bytes] = {}
        self._seen: set[str] = set()

    def take(self) -> LearnerLease:
        with self._lock:
            self._fence += 1
            return LearnerLease(self._fence, self._epoch, self._watermark, dict(self._parts))

    def begin_anew(self, lease: LearnerLease, *, from_offset: int) -> LearnerLease | None:
        with self._lock:
            if lease.fence != self._fence:
                return None
            self._epoch, self._watermark = self._epoch + 1, from_offset - 1
            self._parts, self._seen = {}, set()
            return LearnerLease(self._fence, self._epoch, self._watermark, {})

    def seen(self, lease: LearnerLease, sightings: Sequence[Sighting]) -> list[bool]:
        with self._lock:
            return [lease.epoch == self._epoch and s.transaction_id in self._seen for s in sightings]

    def commit(self, commit: LearnerCommit) -> CommitStatus:
        with self._lock:
            if commit.lease.fence != self._fence:
                return CommitStatus.FENCED if self._fence > commit.lease.fence else CommitStatus.REWOUND
            if commit.lease.watermark != self._watermark:
                return CommitStatus.REWOUND
            self._parts |= commit.parts
            self._watermark = commit.watermark
            self._seen |= {sighting.transaction_id for sighting in commit.seen}
            return CommitStatus.APPLIED

    def read(self, known: str, names: Sequence[str]) -> tuple[str, dict[str, bytes]] | None:
        with self._lock:
            version = f"{self._epoch}:{self._watermark}"
            parts = {name: self._parts[name] for name in names if name in self._parts}
            return None if version == known else (version, parts)

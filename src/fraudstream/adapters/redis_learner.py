"""The learner's state in Redis: one hash, written by one script. Contract: `core.ports.LearnerStore`.

Which transactions were learned from is kept as marks in many small hashes, by week of the transaction and a hash of its
id: exact, and as small as its ids. They live as long after the last of a week as a repetition may come.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Final

from fraudstream.adapters.redis_client import ScriptedRedis, text, unavailable
from fraudstream.adapters.redis_keys import Keys, StoreSettings
from fraudstream.core.features import DAY_MS
from fraudstream.core.ports import NO_OFFSET, CommitStatus, LearnerCommit, LearnerLease, Sighting

MARKS_TTL_MS: Final = 30 * DAY_MS
"""An example comes again when a label worker died between publishing and settling it, at the latest when the last such
worker of a long outage is started again."""
WEEK_MS: Final = 7 * DAY_MS
MARKS_PLANNED: Final = 64
"""Of a slot, if every transaction gets a label: as many as Redis keeps in one compact block (128), with room."""
_OWN_FIELDS: Final = (b"epoch", b"slots", b"watermark")


class RedisLearnerStore(ScriptedRedis):
    """State of the one learner. `transactions_per_day` sizes the marks, once, at the very first start."""

    def __init__(
        self, url: str, *, prefix: str = "fraudstream", transactions_per_day: int = 1_000_000, timeout_s: float = 5.0
    ) -> None:
        super().__init__(url, ("lease", "learner_commit", "learner_reset"), timeout_s=timeout_s)
        self._keys = Keys(StoreSettings(prefix=prefix))
        self._slots_wanted = max(1, transactions_per_day * 7 // MARKS_PLANNED)
        self._slots = 0

    @unavailable
    def take(self) -> LearnerLease:
        keys = self._keys
        self.client.hsetnx(keys.learner_state, "slots", str(self._slots_wanted))
        fence, _ = self._run("lease", [keys.learner_fence, keys.learner_no_watermark])
        found: dict[bytes, bytes] = self.client.hgetall(keys.learner_state)  # type: ignore[assignment] # bytes: nothing is decoded
        self._slots = int(found[b"slots"])
        parts = {name.decode(): value for name, value in found.items() if name not in _OWN_FIELDS}
        epoch, watermark = int(found.get(b"epoch", b"0")), int(found.get(b"watermark", NO_OFFSET))
        return LearnerLease(int(fence), epoch, watermark, parts)

    @unavailable
    def begin_anew(self, lease: LearnerLease, *, from_offset: int) -> LearnerLease | None:
        keys = self._keys
        names = [keys.learner_fence, keys.learner_state]
        epoch = self._run("learner_reset", names, lease.fence, from_offset - 1)
        return None if epoch is None else LearnerLease(lease.fence, int(epoch), from_offset - 1, {})

    @unavailable
    def seen(self, lease: LearnerLease, sightings: Sequence[Sighting]) -> list[bool]:
        pipe = self.client.pipeline(transaction=False)
        for sighting in sightings:
            pipe.hexists(self._mark(lease, sighting), sighting.transaction_id)
        return [bool(found) for found in pipe.execute()]

    @unavailable
    def commit(self, commit: LearnerCommit) -> CommitStatus:
        lease = commit.lease
        arguments: list[Any] = [lease.fence, lease.watermark, commit.watermark, MARKS_TTL_MS, len(commit.parts)]
        for name, value in commit.parts.items():
            arguments += (name, value)
        for sighting in commit.seen:
            arguments += (self._mark(lease, sighting), sighting.transaction_id)
        names = [self._keys.learner_fence, self._keys.learner_state]
        return CommitStatus(text(self._run("learner_commit", names, *arguments)))

    @unavailable
    def read(self, known: str, names: Sequence[str]) -> tuple[str, dict[str, bytes]] | None:
        state = self._keys.learner_state
        if _version(*self.client.hmget(state, ["epoch", "watermark"])) == known:
            return None
        # In one command, so that version and parts belong together.
        epoch, watermark, *parts = self.client.hmget(state, ["epoch", "watermark", *names])
        found = {name: part for name, part in zip(names, parts, strict=True) if isinstance(part, bytes)}
        return _version(epoch, watermark), found

    def _mark(self, lease: LearnerLease, sighting: Sighting) -> bytes:
        slot = zlib.crc32(sighting.transaction_id.encode()) % self._slots
        return b"%s%d:%d:%d" % (self._keys.learner_seen, lease.epoch, sighting.event_time_ms // WEEK_MS, slot)


def _version(epoch: Any, watermark: Any) -> str:
    return f"{int(epoch or 0)}:{int(watermark or NO_OFFSET)}"

"""The learner's state in Redis: one hash, written by one script. Contract: `core.ports.LearnerStore`.

Which transactions were learned from is kept as marks in many small hashes, by week of the transaction and a hash of its
id: exact, and as small as its ids. They live as long after the last of a week as a repetition may come.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.resources import files
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraudstream.core.ports import NO_OFFSET, CommitStatus, LearnerCommit, LearnerLease, Sighting
from fraudstream.errors import StateUnavailable

P = ParamSpec("P")
R = TypeVar("R")

MARKS_TTL_MS: Final = 30 * 86_400_000
"""An example comes again when a label worker died between publishing and settling it, at the latest when the last such
worker of a long outage is started again."""
WEEK_MS: Final = 7 * 86_400_000
MARKS_PLANNED: Final = 64
"""Of a slot, if every transaction gets a label: as many as Redis keeps in one compact block (128), with room."""
_OWN_FIELDS: Final = (b"epoch", b"slots", b"watermark")


def _unavailable(
    method: Callable[Concatenate["RedisLearnerStore", P], R],
) -> Callable[Concatenate["RedisLearnerStore", P], R]:
    @wraps(method)
    def guarded(self: "RedisLearnerStore", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except redis.RedisError as error:
            raise StateUnavailable(f"Redis: {str(error) or type(error).__name__}") from error

    return guarded


class RedisLearnerStore:
    """State of the one learner. `transactions_per_day` sizes the marks, once, at the very first start."""

    def __init__(
        self, url: str, *, prefix: str = "fraudstream", transactions_per_day: int = 1_000_000, timeout_s: float = 5.0
    ) -> None:
        self.client: redis.Redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        base = f"{prefix}:{{0}}:learner:".encode()
        self._fence, self._state, self._marks = base + b"fence", base + b"state", base + b"seen:"
        self._slots_wanted = max(1, transactions_per_day * 7 // MARKS_PLANNED)
        self._slots = 0
        lua = files("fraudstream.adapters")
        common = lua.joinpath("common.lua").read_text("utf-8")

        def script(name: str) -> Any:
            return self.client.register_script(common + lua.joinpath(f"{name}.lua").read_text("utf-8"))

        self._lease, self._commit, self._reset = map(script, ("lease", "learner_commit", "learner_reset"))

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    @_unavailable
    def take(self) -> LearnerLease:
        self.client.hsetnx(self._state.decode(), "slots", str(self._slots_wanted))
        fence, _ = self._lease(keys=[self._fence, b"%s:none" % self._fence])
        found: dict[bytes, bytes] = self.client.hgetall(self._state.decode())  # type: ignore[assignment] # bytes: nothing is decoded
        self._slots = int(found[b"slots"])
        parts = {name.decode(): value for name, value in found.items() if name not in _OWN_FIELDS}
        epoch, watermark = int(found.get(b"epoch", b"0")), int(found.get(b"watermark", NO_OFFSET))
        return LearnerLease(int(fence), epoch, watermark, parts)

    @_unavailable
    def begin_anew(self, lease: LearnerLease, *, from_offset: int) -> LearnerLease | None:
        epoch = self._reset(keys=[self._fence, self._state], args=[lease.fence, from_offset - 1])
        return None if epoch is None else LearnerLease(lease.fence, int(epoch), from_offset - 1, {})

    @_unavailable
    def seen(self, lease: LearnerLease, sightings: Sequence[Sighting]) -> list[bool]:
        pipe = self.client.pipeline(transaction=False)
        for sighting in sightings:
            pipe.hexists(self._mark(lease, sighting), sighting.transaction_id)
        return [bool(found) for found in pipe.execute()]

    @_unavailable
    def commit(self, commit: LearnerCommit) -> CommitStatus:
        lease = commit.lease
        arguments: list[Any] = [lease.fence, lease.watermark, commit.watermark, MARKS_TTL_MS, len(commit.parts)]
        for name, value in commit.parts.items():
            arguments += (name, value)
        for sighting in commit.seen:
            arguments += (self._mark(lease, sighting), sighting.transaction_id)
        answer = self._commit(keys=[self._fence, self._state], args=arguments)
        return CommitStatus(answer.decode() if isinstance(answer, bytes) else answer)

    @_unavailable
    def read(self, known: str, names: Sequence[str]) -> tuple[str, dict[str, bytes]] | None:
        state = self._state.decode()
        if _version(*self.client.hmget(state, ["epoch", "watermark"])) == known:
            return None
        # In one command, so that version and parts belong together.
        epoch, watermark, *parts = self.client.hmget(state, ["epoch", "watermark", *names])
        found = {name: part for name, part in zip(names, parts, strict=True) if isinstance(part, bytes)}
        return _version(epoch, watermark), found

    def _mark(self, lease: LearnerLease, sighting: Sighting) -> str:
        slot = zlib.crc32(sighting.transaction_id.encode()) % self._slots
        return f"{self._marks.decode()}{lease.epoch}:{sighting.event_time_ms // WEEK_MS}:{slot}"


def _version(epoch: Any, watermark: Any) -> str:
    return f"{int(epoch or 0)}:{int(watermark or NO_OFFSET)}"

"""Where the watch keeps its state in Redis: one string, and a lease that makes one worker of all the one that watches."""

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraudstream.errors import StateUnavailable

# Read, compare and write in one step: two workers never watch at once for longer than a look takes.
_HOLD: Final = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# Written only by who holds the lease.
_SAVE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
"""
# A watch that nobody goes on with is forgotten after a quarter of a year.
STATE_TTL_MS: Final = 90 * 86_400_000


# What the fields of quality begin with, in the learner's hash (`services.judging`).
QUALITY: Final = "quality:"


class RedisWatch:
    """The watch's place in Redis. Every method raises `StateUnavailable` if Redis does not answer."""

    def __init__(self, url: str, prefix: str, *, timeout_s: float = 5.0) -> None:
        self.client: redis.Redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        base = f"{prefix}:{{0}}:drift".encode()
        self._lease, self._state = base + b":lease", base
        self._learner = f"{prefix}:{{0}}:learner:state"

    def hold(self, owner: str, ttl_ms: int) -> bool:
        """Take or keep the lease; False if another worker has it."""
        try:
            return bool(self.client.eval(_HOLD, 1, self._lease, owner, ttl_ms))
        except redis.RedisError as error:
            raise StateUnavailable(f"Redis: {error}") from error

    def load(self) -> bytes | None:
        """The state, if there is one."""
        try:
            found: Any = self.client.get(self._state)
        except redis.RedisError as error:
            raise StateUnavailable(f"Redis: {error}") from error
        return None if found is None else bytes(found)

    def save(self, owner: str, state: bytes) -> bool:
        """Write the state; False if the lease is another's by now."""
        try:
            return bool(self.client.eval(_SAVE, 2, self._lease, self._state, owner, state, STATE_TTL_MS))
        except redis.RedisError as error:
            raise StateUnavailable(f"Redis: {error}") from error

    def quality(self) -> dict[str, bytes]:
        """The fields of the state of quality, which the learner writes with what it has learned."""
        try:
            found = self.client.hscan_iter(self._learner, match=f"{QUALITY}*", count=1_000)
            return {_text(name).removeprefix(QUALITY): value for name, value in found if value}
        except redis.RedisError as error:
            raise StateUnavailable(f"Redis: {error}") from error

    def close(self) -> None:
        self.client.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

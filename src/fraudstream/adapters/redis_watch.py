"""Where the watch keeps its state in Redis: one string, and a lease that makes one worker of all the one that watches."""

from typing import Any, Final

from fraudstream.adapters.redis_client import ScriptedRedis, text, unavailable
from fraudstream.adapters.redis_keys import Keys, StoreSettings
from fraudstream.core.features import DAY_MS
from fraudstream.core.quality import QUALITY

# A watch that nobody goes on with is forgotten after a quarter of a year.
STATE_TTL_MS: Final = 90 * DAY_MS


class RedisWatch(ScriptedRedis):
    """The watch's place in Redis. Every method raises `StateUnavailable` if Redis does not answer."""

    def __init__(self, url: str, prefix: str, *, timeout_s: float = 5.0) -> None:
        super().__init__(url, ("watch_hold", "watch_save"), timeout_s=timeout_s)
        self._keys = Keys(StoreSettings(prefix=prefix))

    @unavailable
    def hold(self, owner: str, ttl_ms: int) -> bool:
        """Take or keep the lease; False if another worker has it."""
        return bool(self._run("watch_hold", [self._keys.watch_lease], owner, ttl_ms))

    @unavailable
    def load(self) -> bytes | None:
        """The state, if there is one."""
        found: Any = self.client.get(self._keys.watch)
        return None if found is None else bytes(found)

    @unavailable
    def save(self, owner: str, state: bytes) -> bool:
        """Write the state; False if the lease is another's by now."""
        return bool(self._run("watch_save", [self._keys.watch_lease, self._keys.watch], owner, state, STATE_TTL_MS))

    @unavailable
    def quality(self) -> dict[str, bytes]:
        """The fields of the state of quality, which the learner writes with what it has learned."""
        found = self.client.hscan_iter(self._keys.learner_state, match=f"{QUALITY}*", count=1_000)
        return {text(name).removeprefix(QUALITY): value for name, value in found if value}

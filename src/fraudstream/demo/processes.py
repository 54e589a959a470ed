"""The demo's child processes: the same commands a user would run, with their output kept in files."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fraudstream.errors import FraudstreamError

STOP_S_MAX: Final = 20.0
LOG_LINES_SHOWN: Final = 12


class DemoError(FraudstreamError):
    """A part of the demo did not do what it should."""


class Child:
    """A running command of this installation (or of another `python`); its output goes to `<directory>/<name>.log` (or `.out` for stdout)."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        directory: Path,
        env: Mapping[str, str] | None = None,
        *,
        python: str = sys.executable,
    ) -> None:
        self.name = name
        self.log_path = directory / f"{name}.log"
        self.out_path = directory / f"{name}.out"
        command = [python, "-m", words[0], *words[1:]]
        with self.log_path.open("wb") as log, self.out_path.open("wb") as out:
            # A session of its own: Ctrl-C reaches only the demo, which ends its children in order.
            self._process = subprocess.Popen(
                command, env={**os.environ, **(env or {})}, stdout=out, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> str:
        """Wait for a command that has to succeed; what it printed. Raises `DemoError` with the end of its log."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"{self.name} has not ended after {timeout_s:g} s; see {self.log_path}") from error
        if code != 0:
            raise self.failed(code)
        return self.out_path.read_text("utf-8")

    def check(self) -> None:
        """Raises `DemoError` if it ended by itself with a fault."""
        code = self._process.poll()
        if code:
            raise self.failed(code)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not end it."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def failed(self, code: int) -> DemoError:
        """The error to raise, with the end of the log."""
        lines = self.log_path.read_text("utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return DemoError(f"{self.name} ended with exit code {code}; the end of {self.log_path}:\n" + "\n".join(lines))

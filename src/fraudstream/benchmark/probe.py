"""Processor time and memory of processes, from /proc: utime + stime of all threads, and the resident set."""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fraudstream.errors import FraudstreamError

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
EVERY_S: Final = 0.25


class ProbeError(FraudstreamError):
    """A process cannot be looked at."""


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used. Raises `ProbeError` if it is gone."""
    # The name of a command may hold spaces and brackets; the fields begin after the last one.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Bytes of a process in memory. Raises `ProbeError` if it is gone."""
    return int(_read(pid, "statm").split()[1]) * PAGE_BYTES


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text("ascii", errors="replace")
    except OSError as error:
        raise ProbeError(
            f"/proc/{pid}/{name}: {error.strerror}; the benchmark needs Linux and its processes alive"
        ) from error


class Memory:
    """A thread that samples the memory of processes: (seconds since the start, bytes) of each."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.samples: dict[str, list[tuple[float, int]]] = {name: [] for name in pids}
        self._pids = pids
        self._began_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def summary(self) -> dict[str, dict[str, float]]:
        """Highest and last, in MB."""
        return {
            name: {"max": round(max(of for _, of in seen) / 1e6, 1), "last": round(seen[-1][1] / 1e6, 1)}
            for name, seen in self.samples.items()
            if seen
        }

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            for name, pid in self._pids.items():
                try:
                    self.samples[name].append((round(time.monotonic() - self._began_s, 2), rss_bytes(pid)))
                except ProbeError:  # it has ended; who waits for it says so
                    continue

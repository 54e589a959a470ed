"""Several processes that run tests side by side (pytest-xdist): what they share, and when one has the machine to itself."""

import contextlib
import fcntl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """Wait until no test that is to run alone runs; `alone`: until none runs at all, and keep the others waiting.

    `directory` is the same for all processes. A process that dies gives its turn back.
    """
    with (directory / "turns.gate").open("ab") as gate, (directory / "turns").open("ab") as turns:
        # Whoever waits for the others holds the gate meanwhile: they cannot pass by it one after the other for ever.
        with _locked(gate, fcntl.LOCK_EX):
            fcntl.flock(turns, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(turns, fcntl.LOCK_UN)


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`, made by the first process that asks for it while the others wait.

    `make` writes a file or a directory of the name that it is given.
    """
    with path.with_name(f"{path.name}.lock").open("ab") as lock, _locked(lock, fcntl.LOCK_EX):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                part = Path(scratch) / path.name
                make(part)
                part.rename(path)
    return path


@contextlib.contextmanager
def _locked(file: IO[bytes], how: int) -> Iterator[None]:
    fcntl.flock(file, how)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)

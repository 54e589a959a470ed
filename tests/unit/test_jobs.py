"""What test processes side by side rely on: turns on the machine, and that what is shared is made once."""

import fcntl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.jobs import made_once, turn
from tests.support.waiting import wait_until

# Long enough for a thread that is not held up to come through, also where the cores are busy.
HELD_UP_S = 0.2


def test_ordinary_tests_run_side_by_side_and_one_alone_waits_for_all(tmp_path: Path) -> None:
    """Two ordinary turns overlap; one alone begins when both have ended, and whoever comes after it waits behind it."""
    began: list[str] = []

    def enter(name: str, *, alone: bool) -> None:
        with turn(tmp_path, alone=alone):
            began.append(name)

    with ThreadPoolExecutor(2) as pool, ExitStack() as running:
        running.enter_context(turn(tmp_path, alone=False))
        second = running.enter_context(ExitStack())
        second.enter_context(turn(tmp_path, alone=False))
        lone = pool.submit(enter, "alone", alone=True)
        wait_until(lambda: _is_locked(tmp_path / "turns.gate"), 10, "the one alone stands at the gate")
        later = pool.submit(enter, "later", alone=False)
        second.close()
        time.sleep(HELD_UP_S)
        assert began == []
        running.close()
        lone.result(10)
        later.result(10)
    assert began == ["alone", "later"]


def test_nothing_begins_while_one_runs_alone(tmp_path: Path) -> None:
    """An ordinary turn begins when the one alone has ended, also when that one failed."""
    began = threading.Event()

    def enter() -> None:
        with turn(tmp_path, alone=False):
            began.set()

    def fail_alone(pool: ThreadPoolExecutor) -> None:
        with turn(tmp_path, alone=True):
            pool.submit(enter)
            assert not began.wait(HELD_UP_S)
            raise ZeroDivisionError

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        fail_alone(pool)
    assert began.is_set()


def test_what_is_shared_is_made_once(tmp_path: Path) -> None:
    """Four ask at the same time: one makes it, all get it whole."""
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.mkdir()
        time.sleep(HELD_UP_S)
        (path / "last").touch()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: made_once(tmp_path / "shared", make), range(4)))
    assert len(made) == 1
    assert set(found) == {tmp_path / "shared"}
    assert (tmp_path / "shared" / "last").exists()


def test_what_failed_half_way_is_made_anew(tmp_path: Path) -> None:
    """The next one that asks finds no half of it."""

    def fail(path: Path) -> None:
        path.write_text("half")
        raise ZeroDivisionError

    def write(path: Path) -> None:
        path.write_text("whole")

    with pytest.raises(ZeroDivisionError):
        made_once(tmp_path / "file", fail)
    made_once(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "whole"


def _is_locked(path: Path) -> bool:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

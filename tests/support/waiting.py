"""Waiting for a condition instead of sleeping for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_S_MIN, _POLL_S_MAX = 0.005, 0.1


def wait_until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """Return the first true answer of `condition()`; fail, naming `what` and the last answer, after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause_s = _POLL_S_MIN
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain until {what}; the last answer was {answer!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _POLL_S_MAX)

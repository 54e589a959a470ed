"""Ends a worker that stands still: one that neither works nor fails is worse than none, as nobody takes over from it.

Three limits, from the mildest: partitions without progress end the worker in order; an event loop that no longer turns
and an end that does not come are cut short, by a thread of its own. All are safe: what was not acknowledged is delivered
again.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

log = logging.getLogger("fraudstream.worker")

LOOK_EVERY_S: Final = 1.0
# An end takes one batch: a call of Redis (5 s), the acknowledgements (5 s once it is told to stop), Faust's own goodbye.
# Kubernetes kills after 30 s by default; a worker that is cut short before that still says why.
END_S_MAX: Final = 25.0


class Standstill:
    """For how long something has stood still, by the number of looks: a worker that was suspended meanwhile is innocent.

    >>> still = Standstill(limit_s=2.0)
    >>> [still.look(["no progress"]) for _ in range(2)], still.look([]), still.look(["no progress"])
    ([False, True], False, False)
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._looks = 0

    def look(self, found: Sequence[str]) -> bool:
        """Told every `LOOK_EVERY_S` what stands still; True once that was something for as long as the limit."""
        self._looks = self._looks + 1 if found else 0
        return self._looks * LOOK_EVERY_S >= self._limit_s


class Watchdog(threading.Thread):
    """Looks from outside the event loop, which has to `beat`, whether the loop still turns and whether the end comes.

    Counts its own looks, as time goes on for a process that is suspended.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        end_s_max: float = END_S_MAX,
        look_every_s: float = LOOK_EVERY_S,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._limit_s = limit_s
        self._end_s_max = end_s_max
        self._look_every_s = look_every_s
        self._leave = leave
        self._beaten = threading.Event()
        self._ending = threading.Event()

    def beat(self) -> None:
        """The event loop turns."""
        self._beaten.set()

    def ending(self) -> None:
        """The worker was told to end, or ends itself: that may take `end_s_max`."""
        self._ending.set()

    def run(self) -> None:
        looks = 0
        while not self._ending.wait(self._look_every_s):
            looks = 0 if self._beaten.is_set() else looks + 1
            self._beaten.clear()
            if looks * self._look_every_s >= self._limit_s:
                log.critical("worker ends: its event loop has not turned for %.0f s", self._limit_s)
                self._leave(1)
                return
        for _ in range(round(self._end_s_max / self._look_every_s)):
            time.sleep(self._look_every_s)
        log.critical("worker is cut short: it did not end within %.0f s", self._end_s_max)
        self._leave(1)

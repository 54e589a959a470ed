"""Is the worker well? One status, kept in memory, written to a file that a container's health check reads."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

# Written this often; a status older than three times as long belongs to a worker that hangs or is gone.
WRITE_EVERY_S: Final = 2.0
STATUS_AGE_S_MAX: Final = 3 * WRITE_EVERY_S


class Health:
    """What the worker knows of itself. `troubles` are the outages it is waiting out, by what is away.

    `checks` are asked, each time, what stands still. `partitions` holds, for each role whose group has answered, the
    partitions it gave this worker (possibly none).
    """

    def __init__(self, roles: Iterable[str] = ()) -> None:
        self._roles = frozenset(roles)
        self.started_at_s = time.time()
        self.partitions: dict[str, list[int]] = {}
        self.troubles: dict[str, str] = {}
        self._asides: dict[str, str] = {}
        self.totals: Counter[str] = Counter()
        self.checks: dict[str, Callable[[], Sequence[str]]] = {}

    @property
    def ready(self) -> bool:
        """It owns its place in every group it should be in, nothing it needs is away, and nothing stands still."""
        return self._roles <= self.partitions.keys() and not self._all_troubles()

    def standing(self, role: str) -> Sequence[str]:
        """What stands still in a role, in words. An outage that is being waited out is none: it has a limit of its own."""
        if self.troubles:
            return []
        if role not in self.partitions:
            return ["it has no place in its group"]
        return self.checks[role]()

    def status(self) -> dict[str, Any]:
        """The status as plain data."""
        return {
            "ready": self.ready,
            "written_at": time.time(),
            "up_s": round(time.time() - self.started_at_s, 1),
            "partitions": self.partitions,
            "troubles": self._all_troubles(),
            "totals": dict(self.totals),
        }

    def _all_troubles(self) -> dict[str, str]:
        standing = {f"{name} stands still": check() for name, check in self.checks.items()}
        return (
            self.troubles
            | self._asides
            | {name: f"{name}: {'; '.join(found)}" for name, found in standing.items() if found}
        )

    def teller(self, what: str) -> Callable[[str | None], None]:
        """For a part that works beside the roles: told what it waits for, and None when it goes on.

        Its troubles have no limit of their own, so they excuse no role that stands still.
        """

        def tell(trouble: str | None) -> None:
            if trouble is None:
                self._asides.pop(what, None)
            else:
                self._asides[what] = f"{what}: {trouble}"

        return tell

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that a reader never sees half a status."""
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(self.status()), "utf-8")
        scratch.replace(path)


def read_status(path: Path) -> tuple[bool, str]:
    """Whether the worker that writes this file is ready, and why not, in words."""
    try:
        status = json.loads(path.read_text("utf-8"))
        age_s = time.time() - status["written_at"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"no status in {path}: {error!r}"
    if age_s > STATUS_AGE_S_MAX:
        return False, f"the last status is {age_s:.0f} s old: the worker hangs or is gone"
    if status["ready"]:
        return True, f"ready, up for {status['up_s']:.0f} s"
    return False, "; ".join(status["troubles"].values()) or "waiting for its partitions"

"""What a running worker tells: a line a while in the log, and the status file."""

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Final

from fraudstream.services.health import WRITE_EVERY_S, Health

log = logging.getLogger("fraudstream.worker")
LINE_EVERY_S: Final = 10.0
# While it is not ready somebody waits for it to be: a start, or the end of an outage.
READY_LOOK_S: Final = 0.1


async def report(health: Health, health_file: Path | None) -> None:
    """Run for ever: write the status, and say what was done since the last line, if anything was."""
    told: Counter[str] = Counter()
    waited_s, unwritten = 0.0, False
    while True:
        pause_s = WRITE_EVERY_S if health.ready else READY_LOOK_S
        await asyncio.sleep(pause_s)
        waited_s += pause_s
        if health_file:
            unwritten = _write(health, health_file, unwritten)
        if waited_s < LINE_EVERY_S:
            continue
        done = health.totals - told
        if done:
            rate = done["decided"] / waited_s
            parts = " ".join(f"{name}={n}" for name, n in sorted(done.items()))
            log.info("%.0f decisions/s; %s", rate, parts)
        told, waited_s = Counter(health.totals), 0.0


def _write(health: Health, path: Path, unwritten: bool) -> bool:
    """Write the status; whether it failed. Said once: a full disk must end neither the reports nor the log."""
    try:
        health.write(path)
    except OSError as error:
        if not unwritten:
            log.error("the status cannot be written, so health checks will fail: %s", error)  # noqa: TRY400 - one line says it
        return True
    return False

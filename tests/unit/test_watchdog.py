"""A worker that stands still ends: in order where it can, cut short where it cannot."""

import logging
import subprocess
import sys
import textwrap
import time

import pytest

from fraudstream.services.health import Health
from fraudstream.services.watchdog import Watchdog


def test_an_outage_that_is_waited_out_is_no_standstill() -> None:
    """Redis away has a limit of its own; without a known outage what stands still counts, and so does a lost group."""
    health = Health(["score"])
    assert health.standing("score") == ["it has no place in its group"]
    health.partitions["score"] = [0]
    health.checks["score"] = lambda: ["transactions[0]: the batch in work has not ended for 30 s"]
    assert health.standing("score") == ["transactions[0]: the batch in work has not ended for 30 s"]
    health.teller("late labels")("Kafka does not answer")  # that has no limit of its own
    assert health.standing("score") == ["transactions[0]: the batch in work has not ended for 30 s"]
    health.troubles["score"] = "score waits: Redis: away"
    assert health.standing("score") == []


def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Beats keep the watchdog quiet; without them it leaves with 1 and says why."""
    codes: list[int] = []
    watchdog = Watchdog(0.2, look_every_s=0.02, leave=codes.append)
    watchdog.start()
    with caplog.at_level(logging.CRITICAL):
        for _ in range(30):
            watchdog.beat()
            time.sleep(0.01)
        assert codes == []
        watchdog.join(5)
    assert codes == [1]
    assert "its event loop has not turned" in caplog.text


BLOCKED = """
    import asyncio, logging, time
    from concurrent.futures import ThreadPoolExecutor
    from fraudstream.services.watchdog import Watchdog
    logging.basicConfig()
    watchdog = Watchdog(0.5, end_s_max=0.5, look_every_s=0.1)
    async def main():
        watchdog.start()
        {what}
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("time.sleep(60)", "its event loop has not turned for"),
        ("watchdog.ending(); ThreadPoolExecutor(1).submit(time.sleep, 60)", "it did not end within"),
    ],
    ids=["a loop that is blocked", "a thread that holds the end up"],
)
def test_a_process_that_cannot_end_itself_is_cut_short(what: str, told: str) -> None:
    """Within the limit, with exit code 1 and one line."""
    code = textwrap.dedent(BLOCKED).format(what=what)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert told in done.stderr

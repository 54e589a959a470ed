"""The worker's decisions that need no broker: where to start, how long to wait, what health says."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faust.types import TP

from fraudstream import roles
from fraudstream.adapters.faust_worker import faust_settings
from fraudstream.core.ports import NO_OFFSET
from fraudstream.errors import StateUnavailable
from fraudstream.roles import (
    GivenUpError,
    OffsetsExpiredError,
    Runner,
    StateLostError,
    records_expired,
    start_offset,
)
from fraudstream.services.health import STATUS_AGE_S_MAX, Health, read_status
from fraudstream.settings import StateLost

T0 = TP("transactions", 0)


@pytest.mark.parametrize(
    ("committed", "watermark", "start"),
    [
        (None, NO_OFFSET, None),  # never read
        (0, NO_OFFSET, None),
        (None, 41, 0),  # the group was deleted: from the beginning, and the watermark skips what was applied
        (42, 41, 42),
        (42, 99, 42),  # a crash before the offset was committed: read again what may not have been published
        (42, 19, 20),  # Redis lost the tail of its log
        (42, 0, 1),
    ],
)
def test_reading_starts_at_the_older_of_both_memories(committed: int | None, watermark: int, start: int | None) -> None:
    """Kafka's commit or the store's watermark, whichever is behind; None leaves it to Kafka."""
    assert start_offset(T0, committed, watermark, "stop") == start


@pytest.mark.parametrize(("policy", "start"), [("accept", None), ("replay", 0)])
def test_a_store_that_knows_nothing_follows_the_policy(policy: StateLost, start: int | None) -> None:
    """Accept goes on where Kafka is, replay begins anew."""
    assert start_offset(T0, 42, NO_OFFSET, policy) == start


def test_a_store_that_knows_nothing_stops_the_worker_unless_told_otherwise() -> None:
    """The error names the partition, how much was lost and the setting."""
    with pytest.raises(StateLostError, match=r"transactions\[0\].* 42 records .*FRAUDSTREAM_ON_STATE_LOST"):
        start_offset(T0, 42, NO_OFFSET, "stop")


def _fails(times: int) -> Callable[[], str]:
    left = [times]

    def work() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise StateUnavailable("Redis: away")
        return "done"

    return work


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "RETRY_S_FIRST", 0.001)
    monkeypatch.setattr(roles, "RETRY_S_MAX", 0.002)


def test_a_call_is_repeated_until_what_it_needs_is_back() -> None:
    """The result of the first attempt that succeeds; nothing is left in the health."""
    health = Health()
    assert asyncio.run(Runner(health, 60).call("score", lambda: True, _fails(3))) == "done"
    assert health.troubles == {}


def test_while_a_call_waits_the_health_says_for_what() -> None:
    """The trouble is there during the outage, and gone when the call is no longer wanted."""
    health = Health()
    told: list[str] = []

    def wanted() -> bool:
        told.extend(health.troubles.values())
        return len(told) < 2

    assert asyncio.run(Runner(health, 60).call("score", wanted, _fails(1_000))) is None
    assert told == ["score waits: Redis: away"] * 2
    assert health.troubles == {}


def test_a_call_is_given_up_past_the_limit() -> None:
    """GivenUpError says what was away."""
    with pytest.raises(GivenUpError, match=r"score: given up after .*Redis: away"):
        asyncio.run(Runner(Health(), 0.01).call("score", lambda: True, _fails(10**9)))


def test_a_fault_of_our_own_is_not_repeated() -> None:
    """Anything but an outage passes through at once."""

    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Runner(Health(), 60).call("score", lambda: True, work))


def test_ready_needs_every_role_and_no_trouble(tmp_path: Path) -> None:
    """Waiting for a group, an outage, and a partition that stands still: each is told, in words."""
    file = tmp_path / "health.json"
    health = Health(["score", "label"])
    health.partitions["score"] = [0]
    health.write(file)
    assert read_status(file) == (False, "waiting for its partitions")
    health.partitions["label"] = []
    health.write(file)
    assert read_status(file)[0]
    still: list[str] = ["transactions[0]: the broker last answered 30 s ago"]
    health.checks["score"] = lambda: still
    health.troubles["label"] = "label waits: Redis: away"
    health.write(file)
    ready, why = read_status(file)
    assert not ready
    assert why == "label waits: Redis: away; score stands still: transactions[0]: the broker last answered 30 s ago"
    still.clear()
    health.troubles.clear()
    health.write(file)
    assert read_status(file)[0]


def test_an_old_or_broken_status_is_not_ready(tmp_path: Path) -> None:
    """A worker that hangs, one that never wrote, and half a file."""
    file = tmp_path / "health.json"
    assert read_status(file)[1].startswith("no status in")
    file.write_text('{"ready": tr')
    assert read_status(file)[1].startswith("no status in")
    file.write_text("{}")
    assert not read_status(file)[0]
    status = {**Health().status(), "written_at": time.time() - STATUS_AGE_S_MAX - 5}
    file.write_text(json.dumps(status))
    assert "hangs or is gone" in read_status(file)[1]


def test_faust_writes_nothing_into_the_working_directory() -> None:
    """Faust's directories lie under the temporary directory: a worker's own may be read-only."""
    datadir = Path(faust_settings("127.0.0.1:9092")["datadir"])
    assert datadir.is_absolute()
    assert datadir.parent == Path(tempfile.gettempdir())


def test_offsets_that_the_broker_no_longer_holds_stop_the_worker_unless_told_otherwise() -> None:
    """The error names what is missing and the setting; told to go on, the loss is counted. A cut log loses none of ours."""
    with pytest.raises(
        OffsetsExpiredError, match=r"offsets 40 to 99 of transactions\[0\] were deleted .* at offset 100"
    ):
        asyncio.run(records_expired(T0, 40, 100, 500, "stop"))
    with pytest.raises(OffsetsExpiredError, match=r"transactions\[0\] ends at offset 20, and was read up to 40"):
        asyncio.run(records_expired(T0, 40, 0, 20, "stop"))
    assert asyncio.run(records_expired(T0, 40, 100, 500, "earliest")) == 60
    assert asyncio.run(records_expired(T0, 40, 0, 20, "earliest")) == 0


def test_what_was_deleted_before_a_first_commit_is_told_too() -> None:
    """Nothing was committed, so all is read again: what the store has may be gone, what lies past it is a loss."""
    with pytest.raises(OffsetsExpiredError, match=r"offsets 42 to 99 of transactions\[0\] were deleted"):
        asyncio.run(records_expired(T0, 0, 100, 500, "stop", settled=41))
    with pytest.raises(OffsetsExpiredError, match=r"offsets 0 to 99 of transactions\[0\] were deleted"):
        asyncio.run(records_expired(T0, 0, 100, 500, "stop"))
    assert asyncio.run(records_expired(T0, 0, 100, 500, "earliest", settled=41)) == 58
    assert asyncio.run(records_expired(T0, 0, 100, 500, "stop", settled=99)) == 0
    assert asyncio.run(records_expired(T0, 0, 100, 500, "stop", settled=300)) == 0

"""What keeps the index of late labels current: told step by step, without a broker."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.support.codec_records import PlainRecord
from tests.support.decisions import a_decision
from tests.support.waiting import wait_until

from fraudstream.codec import encode_decision
from fraudstream.errors import BrokerUnavailable, SettingsError, StillBuilding
from fraudstream.events import Decision
from fraudstream.services.health import Health
from fraudstream.services.late_labels import Indexer, open_late_labels
from fraudstream.services.startup import store_settings
from fraudstream.settings import Settings


class Message:
    """A record as confluent-kafka hands it out."""

    def __init__(self, record: PlainRecord) -> None:
        self._record = record

    def partition(self) -> int:
        return self._record.partition

    def offset(self) -> int:
        return self._record.offset

    def value(self) -> bytes | None:
        return self._record.value


class ListedReader:
    """Hands out lists of records, one list a read; at the end it has caught up."""

    def __init__(self, *reads: list[Message]) -> None:
        self._reads = list(reads)
        self.closed = False

    @property
    def caught_up(self) -> bool:
        return not self._reads

    def read(self, wait_s: float) -> list[Message]:
        return self._reads.pop(0) if self._reads else []

    def look_for_partitions(self, offsets: Mapping[int, int]) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class RememberingIndex:
    """An index in memory."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.offsets: dict[int, int] = {}

    def add(self, decisions: Sequence[Decision], offsets: Mapping[int, int]) -> None:
        self.decisions |= {decision.transaction_id: decision for decision in decisions}
        self.offsets |= offsets

    def find(self, transaction_ids: Sequence[str]) -> list[Decision | None]:
        return [self.decisions.get(name) for name in transaction_ids]


def message(name: str, offset: int, partition: int = 0) -> Message:
    value = encode_decision(a_decision(transaction_id=name))
    return Message(PlainRecord(value, partition=partition, offset=offset))


def test_decisions_are_found_once_the_topic_was_read_to_its_end() -> None:
    """Before that, "there is none" cannot be told from "not read yet": the question is refused, not answered."""
    index = RememberingIndex()
    reader = ListedReader([message("t1", 0), message("t2", 0, partition=1)], [message("t3", 1)])
    indexer = Indexer(index, lambda _: reader)
    assert indexer.step(reader) == 2
    with pytest.raises(StillBuilding, match="2 decisions read"):
        indexer.find(["t1"])
    assert indexer.step(reader) == 1
    assert [one and one.transaction_id for one in indexer.find(["t3", "absent"])] == ["t3", None]
    assert index.offsets == {0: 2, 1: 1}


def test_what_is_no_decision_is_said_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """One unreadable record holds nothing up; its partition and offset are in the log."""
    index = RememberingIndex()
    reader = ListedReader([message("t1", 7), Message(PlainRecord(b"{}", partition=0, offset=8)), message("t2", 9)])
    with caplog.at_level(logging.ERROR):
        Indexer(index, lambda _: reader).step(reader)
    assert (sorted(index.decisions), index.offsets) == (["t1", "t2"], {0: 10})
    assert "partition 0 offset 8 holds no decision" in caplog.text


def test_provisional_decisions_are_passed_over() -> None:
    """What was answered without state is no decision to join a label with; the final one of its transaction is."""
    final = a_decision(transaction_id="t1")
    guess = Message(PlainRecord(encode_decision(replace(final, degraded=True, features=b"")), partition=0, offset=0))
    index = RememberingIndex()
    reader = ListedReader([guess], [message("t1", 1)])
    indexer = Indexer(index, lambda _: reader)
    indexer.step(reader)
    assert (index.decisions, index.offsets) == ({}, {0: 1})
    indexer.step(reader)
    assert indexer.find(["t1"]) == [final]


def test_decisions_deleted_before_they_were_read_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """The topic's retention was shorter than the time the worker was away: how many are missing is told."""
    index = RememberingIndex()
    index.add([], {0: 10})
    reader = ListedReader([message("t1", 25)])
    with caplog.at_level(logging.ERROR):
        Indexer(index, lambda _: reader).step(reader)
    assert "15 decisions of partition 0 were deleted before they were read" in caplog.text


def test_an_outage_is_told_and_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka away: the health says so; back again: the trouble is gone and reading goes on from the index's offsets."""
    monkeypatch.setattr("fraudstream.services.late_labels.RETRY_S", 0.01)
    index, health, asked = RememberingIndex(), Health(), []
    index.add([], {0: 3})
    reader = ListedReader([message("t1", 3)])

    def open_reader(offsets: Mapping[int, int]) -> ListedReader:
        asked.append(dict(offsets))
        if len(asked) < 3:
            raise BrokerUnavailable("Kafka does not answer")
        assert health.status()["troubles"] == {"late labels": "late labels: Kafka does not answer"}
        return reader

    indexer = Indexer(index, open_reader, tell=health.teller("late labels"))
    indexer.start()
    wait_until(
        lambda: indexer.caught_up and not health.status()["troubles"], 10, "the index is complete and nothing is away"
    )
    indexer.stop()
    assert asked == [{0: 3}] * 3
    assert sorted(index.decisions) == ["t1"]
    assert reader.closed


def test_a_fault_of_ours_is_told_for_good() -> None:
    """A thread that ended by a fault leaves its trouble in the health: labels that need the index go on waiting."""
    health = Health()

    def broken(offsets: Mapping[int, int]) -> ListedReader:
        raise ZeroDivisionError

    indexer = Indexer(RememberingIndex(), broken, tell=health.teller("late labels"))
    indexer.caught_up = True  # what comes after the fault would be missing: "there is none" is no answer any more
    indexer.start()
    wait_until(lambda: health.status()["troubles"], 10, "the fault is told")
    indexer.stop()
    assert "no longer kept" in health.status()["troubles"]["late labels"]
    with pytest.raises(StillBuilding):
        indexer.find(["t1"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"publish_decisions": False}, "FRAUDSTREAM_PUBLISH_DECISIONS is off"),
        ({"redis": {"decision_retention_days": 180}}, "it would find nothing"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(tmp_path: Path, wrong: dict[str, object], told: str) -> None:
    """Without the topic there is nothing to read, and a retention within that of Redis finds nothing."""
    with pytest.raises(SettingsError, match=told):
        open_late_labels(Settings(late_labels={"path": tmp_path}, **wrong))


def test_only_a_worker_that_labels_opens_an_index(tmp_path: Path) -> None:
    """Without a path, or without the role, there is none."""
    assert open_late_labels(Settings()) is None
    assert open_late_labels(Settings(late_labels={"path": tmp_path / "x"}, roles=["score"])) is None
    assert not (tmp_path / "x").exists()


def test_a_late_verdict_is_kept_as_long_as_its_decision_in_the_index(tmp_path: Path) -> None:
    """The store is told the retention of the index: a verdict that left before would count a second time."""
    config = Settings(late_labels={"path": tmp_path, "retention_days": 400})
    assert store_settings(config.redis, config.late_labels).late_retention_ms == 400 * 86_400_000

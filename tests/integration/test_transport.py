"""The micro-batch transport on a real broker, with workers that are processes and can be killed."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.support.kafka import create_topic, produce
from tests.support.transport import TransportWorker, committed, keyed_records, offsets
from tests.support.waiting import wait_until

from fraudstream.embedded import start_kafka

PARTITIONS = 4
_numbers = count()


class Setting:
    """A topic and a group of its own, the workers on it, and how many records each partition has."""

    def __init__(self, kafka: Any, topic: str, partitions: int, directory: Path) -> None:
        self.bootstrap_servers: str = kafka.bootstrap_servers
        self.kind: str = kafka.kind
        self.topic, self.group, self.partitions = topic, f"group-{topic}", partitions
        # A broker of somebody's may accept no less than 6 s; on Tansu a worker's first join takes half of it.
        self.session_timeout_s = {"external": 6, "tansu": 2}.get(kafka.kind, 3)
        self.ends: Counter[int] = Counter(dict.fromkeys(range(partitions), 0))
        self._directory, self._produced = directory, 0

    def produce(self, records: int) -> None:
        sent = produce(self.bootstrap_servers, self.topic, keyed_records(records, self._produced))
        self._produced += records
        self.ends.update(sent.values())

    @contextmanager
    def worker(self, *arguments: object) -> Iterator[TransportWorker]:
        arguments = (self.bootstrap_servers, self.topic, self.group,
                     "--session-timeout-s", self.session_timeout_s, *arguments)  # fmt: skip
        with TransportWorker(self._directory, f"worker-{next(_numbers)}", *arguments) as worker:
            yield worker

    def committed(self) -> dict[int, int]:
        return committed(self.bootstrap_servers, self.topic, self.group, self.partitions)

    def wait_until_committed(self, wanted: Mapping[int, int] | None = None, timeout_s: float = 60) -> None:
        """Wait until each partition that has records is committed to its end (or to `wanted`)."""
        wanted = {tp: end for tp, end in self.ends.items() if end} if wanted is None else wanted

        def reached() -> bool:
            found = self.committed()
            assert all(offset <= self.ends[partition] for partition, offset in found.items()), found
            return found == wanted

        wait_until(reached, timeout_s, f"the group has committed {wanted}")

    def assert_nothing_lost(self, *workers: TransportWorker) -> None:
        """Every record reached a worker that acked it."""
        for partition, end in self.ends.items():
            finished = set[int]()
            for worker in workers:
                acked = {(int(p), int(last)) for p, last in worker.lines("acked")}
                finished.update(
                    offset
                    for batch in worker.batches
                    if batch.partition == partition and (partition, batch.last) in acked
                    for offset in range(batch.first, batch.last + 1)
                )
            assert finished == set(range(end)), f"partition {partition} misses {len(set(range(end)) - finished)}"


@pytest.fixture
def setting(kafka: Any, kafka_topic_factory: Callable[[str, int], str], tmp_path: Path) -> Callable[[int], Setting]:
    def make(partitions: int = PARTITIONS) -> Setting:
        return Setting(kafka, kafka_topic_factory(f"transport-{next(_numbers)}", partitions), partitions, tmp_path)

    return make


def test_every_record_arrives_once_and_in_order(setting: Callable[..., Setting]) -> None:
    """50,000 records of four partitions come in batches of at most `records_max`, once, in order, all committed."""
    given = setting()
    given.produce(50_000)
    with given.worker("--records-max", 500) as worker:
        given.wait_until_committed()
        assert worker.terminate() == 0
        assert offsets(worker.batches) == {partition: list(range(end)) for partition, end in given.ends.items()}
        assert max(batch.records for batch in worker.batches) == 500
    given.wait_until_committed(timeout_s=0)


def test_kill_in_the_middle_of_a_batch_loses_nothing(setting: Callable[..., Setting]) -> None:
    """After kill -9 with a batch in work, the next worker begins at the first record that was not acked."""
    given = setting()
    given.produce(20_000)
    with given.worker("--records-max", 300, "--hold-after", 8_000) as first:
        ((partition, offset),) = first.wait_for("holding")
        acked = {partition: last + 1 for partition, last in first.acked.items()}
        given.wait_until_committed(acked)
        first.kill()
        assert acked.get(int(partition), 0) == int(offset)
        with given.worker() as second:
            given.wait_until_committed()
            assert {p: seen[0] for p, seen in offsets(second.batches).items()} == acked
            assert offsets(second.batches) == {p: list(range(acked[p], end)) for p, end in given.ends.items()}
            given.assert_nothing_lost(first, second)


def test_workers_join_and_leave_while_records_flow(setting: Callable[..., Setting]) -> None:
    """A second worker that joins and leaves by SIGTERM under load loses nothing, and all ends up committed."""
    given = setting()
    stop = threading.Event()

    def flow() -> None:
        while not stop.is_set():
            given.produce(1_000)

    producer = threading.Thread(target=flow)
    with given.worker("--records-max", 200, "--work-ms", 5) as first:
        first.wait_for("assigned")
        producer.start()
        try:
            first.wait_for("batch", 20)
            with given.worker("--records-max", 200, "--work-ms", 5) as second:
                second.wait_for("batch", 20)
                assert len(json.loads(second.lines("assigned")[0][0])) == PARTITIONS // 2
                assert first.wait_for("assigned", 2)
                assert second.terminate() == 0
                first.wait_for("assigned", 3)
                first.wait_for("batch", len(first.batches) + 20)
        finally:
            stop.set()
            producer.join()
        given.wait_until_committed()
        assert first.terminate() == 0
        given.assert_nothing_lost(first, second)


@pytest.mark.parametrize("how", ["partitions", "flow"])
def test_pause_and_resume_lose_nothing(setting: Callable[..., Setting], how: str) -> None:
    """Pausing partitions, or the whole flow, dozens of times loses no record; a paused partition repeats none either."""
    given = setting()
    given.produce(30_000)
    with given.worker("--records-max", 100, "--work-ms", 3, "--disturb", how) as worker:
        given.wait_until_committed()
        assert worker.terminate() == 0
        given.assert_nothing_lost(worker)
        if how == "partitions":
            assert offsets(worker.batches) == {partition: list(range(end)) for partition, end in given.ends.items()}


def test_lone_records_arrive_at_once(setting: Callable[..., Setting]) -> None:
    """On an idle topic a record reaches the agent within half a second, and its offset is committed soon after."""
    given = setting()
    producer = Producer({"bootstrap.servers": given.bootstrap_servers, "linger.ms": 0, "log_level": 0})
    with given.worker() as worker:
        worker.wait_for("assigned")
        for number in range(10):
            producer.produce(given.topic, value=b"lone", partition=number % PARTITIONS)
            assert producer.flush(10) == 0
            given.ends[number % PARTITIONS] += 1
            worker.wait_for("acked", number + 1, timeout_s=5)
        # The first one waits for the producer's connection too.
        assert max(batch.age_ms for batch in worker.batches[1:]) < 500
        given.wait_until_committed(timeout_s=5)


def test_sigterm_waits_for_the_batch_in_work(setting: Callable[..., Setting]) -> None:
    """SIGTERM in the middle of a batch lets it end, commits it, and starts no other; the exit code is 0."""
    given = setting()
    given.produce(10_000)
    with given.worker("--records-max", 300, "--hold-after", 3_000, "--hold-s", 1.5) as worker:
        ((partition, offset),) = worker.wait_for("holding")
        assert worker.terminate() == 0
        held = worker.batches[-1]
        assert (held.partition, held.first) == (int(partition), int(offset))
        assert worker.acked[held.partition] == held.last
        given.wait_until_committed({p: last + 1 for p, last in worker.acked.items()}, timeout_s=0)


def test_start_offsets_of_the_app_are_sought_before_the_first_record(setting: Callable[..., Setting]) -> None:
    """What on_assigned returns is where delivery starts, below the commit too; the commit never moves back for it."""
    given = setting()
    given.produce(8_000)
    with given.worker() as worker:
        given.wait_until_committed()
        assert worker.terminate() == 0
    ends = dict(given.ends)
    with given.worker("--start", json.dumps({0: 100, 1: 0}), "--records-max", 100, "--work-ms", 5) as worker:
        ((told,),) = worker.wait_for("assigned")
        assert json.loads(told) == {str(partition): end for partition, end in ends.items()}

        def replayed() -> bool:
            given.wait_until_committed(ends, timeout_s=0)
            return worker.acked == {0: ends[0] - 1, 1: ends[1] - 1}

        wait_until(replayed, 30, "the two partitions were read again")
        given.produce(2_000)
        given.wait_until_committed()
        assert offsets(worker.batches) == {
            0: list(range(100, given.ends[0])),
            1: list(range(given.ends[1])),
            2: list(range(ends[2], given.ends[2])),
            3: list(range(ends[3], given.ends[3])),
        }


def test_seek_in_the_flow_makes_earlier_batches_stale(setting: Callable[..., Setting]) -> None:
    """After a seek back the records come again from there, in order; batches that were queued never reach the agent."""
    given = setting()
    given.produce(10_000)
    with given.worker("--records-max", 100, "--seek-after", 4_000) as worker:
        given.wait_until_committed()
        assert worker.terminate() == 0
        for partition, seen in offsets(worker.batches).items():
            again = [at for at, offset in enumerate(seen) if offset == 0][-1]
            assert seen[again:] == list(range(given.ends[partition]))
            assert seen[:again] == list(range(again))


def test_released_batch_is_delivered_again(setting: Callable[..., Setting]) -> None:
    """A batch that the agent gives back undone comes again, with all that followed, before its offset is committed."""
    given = setting(1)
    given.produce(3_000)
    with given.worker("--records-max", 100, "--release-after", 1_000) as worker:
        given.wait_until_committed()
        firsts = [batch.first for batch in worker.batches]
        assert firsts.count(900) == 2
        assert firsts == [*range(0, 1000, 100), *range(900, 3000, 100)]


@pytest.mark.parametrize("how", ["crash", "raise"])
def test_crash_ends_the_process_with_code_1(setting: Callable[..., Setting], how: str) -> None:
    """`app.crash`, or what escapes the agent, ends the worker with code 1; the next worker gets the batch again."""
    given = setting(1)
    given.produce(3_000)
    with given.worker("--records-max", 100, f"--{how}-after", 1_000) as first:
        assert wait_until(first.process.poll, 30, "the worker ended") == 1
        assert given.committed().get(0, 0) <= 900
        with given.worker() as second:
            given.wait_until_committed()
            given.assert_nothing_lost(first, second)


def test_failure_of_on_assigned_ends_the_process_with_code_1(setting: Callable[..., Setting]) -> None:
    """A worker that cannot learn where to start ends with exit code 1, before it has seen a record."""
    given = setting(1)
    given.produce(100)
    with given.worker("--fail-start") as worker:
        assert wait_until(worker.process.poll, 30, "the worker ended") == 1
        assert not worker.batches


def test_aborted_records_are_not_delivered_and_hold_nothing_up(setting: Callable[..., Setting]) -> None:
    """Records of aborted transactions never reach the agent; their offsets, and markers, do not stop the commits."""
    given = setting(1)
    if given.kind == "tansu":
        pytest.skip("Tansu returns aborted records to a consumer that asks for committed ones")
    servers = {"bootstrap.servers": given.bootstrap_servers, "log_level": 0}
    producer = Producer({**servers, "transactional.id": given.topic, "linger.ms": 0})
    producer.init_transactions(30)
    for number in range(20):
        producer.begin_transaction()
        for _ in range(5):
            producer.produce(given.topic, value=b"aborted" if number % 2 else b"committed")
        producer.flush(10)
        producer.abort_transaction() if number % 2 else producer.commit_transaction()
    given.produce(1)
    with given.worker("--records-max", 7) as worker:
        wait_until(lambda: given.committed() == {0: 20 * (5 + 1) + 1}, 30, "everything is committed")
        assert sum(batch.records for batch in worker.batches) == 10 * 5 + 1


def test_spare_worker_stays_in_the_group(setting: Callable[..., Setting]) -> None:
    """A worker without partitions outlives broker_max_poll_interval and takes over when the other one ends."""
    given = setting(1)
    with given.worker("--max-poll-interval-s", 1.5) as first:
        first.wait_for("assigned")
        with given.worker("--max-poll-interval-s", 1.5) as second:
            first.wait_for("assigned", 2)
            second.wait_for("assigned")
            spare, owner = (first, second) if first.lines("assigned")[-1] == ["{}"] else (second, first)
            assert spare.lines("assigned")[-1] == ["{}"]
            for number in range(1, 6):  # 2.5 s of traffic: longer than the interval
                given.produce(1)
                owner.wait_for("acked", number, timeout_s=5)
                with pytest.raises(AssertionError):
                    wait_until(lambda: spare.process.poll() is not None, 0.5, "the spare worker ended")
            assert owner.terminate() == 0
            given.produce(10)
            given.wait_until_committed(timeout_s=10)
            assert spare.batches


def test_batch_longer_than_the_poll_interval_does_not_end_the_worker(setting: Callable[..., Setting]) -> None:
    """A worker whose batch took too long says so, leaves the group, comes back by itself, and reads on."""
    given = setting(1)
    given.produce(1_000)
    with given.worker("--records-max", 100, "--max-poll-interval-s", 1.5, "--hold-after", 300, "--hold-s", 4) as worker:
        worker.wait_for("holding")
        stall = [f'["{given.topic}[0]"]']
        wait_until(lambda: stall in worker.lines("stalled"), 10, "the worker says that its batch does not end")
        given.wait_until_committed(timeout_s=30)
        assert len(worker.lines("assigned")) >= 2
        wait_until(lambda: worker.lines("stalled")[-1] == ["[]"], 10, "the worker is ready again")
        given.assert_nothing_lost(worker)


def test_broker_away_for_a_while_costs_nothing(tmp_path: Path, kafka: Any) -> None:
    """A worker survives a broker that is killed and comes back with its log: every record once, all committed."""
    if kafka.kind != "apache":
        pytest.skip("needs a broker that this test may kill and that keeps its log: Apache Kafka from its jars")
    with start_kafka(tmp_path, prefer="apache") as broker:
        create_topic(broker.bootstrap_servers, "transport", PARTITIONS)
        given = Setting(broker, "transport", PARTITIONS, tmp_path)
        given.produce(20_000)
        with given.worker("--records-max", 100, "--work-ms", 10) as worker:
            worker.wait_for("batch", 20)
            broker.kill()
            worker.wait_for("batch", len(worker.batches) + 1)
            broker.restart()
            given.wait_until_committed()
            assert worker.terminate() == 0
            assert offsets(worker.batches) == {partition: list(range(end)) for partition, end in given.ends.items()}

"""One round of chaos: the flow, the faults, and the harness that restarts what ended, all on one clock.

Redis keeps an append-only file with `appendfsync everysec`: it writes to it before it answers, so a killed server loses
nothing; a machine that loses its power may lose a second, which `tests/integration/test_outages.py` plays.
"""

import contextlib
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from fraudstream.embedded import KafkaServer, RedisServer, apache_kafka_unavailable, start_kafka, start_redis
from tests.support.card_history import written
from tests.support.chaos.faults import SESSION_S, Fault, plan
from tests.support.chaos.oracle import Report, check
from tests.support.chaos.upstream import (
    FEATURES,
    SLICES_OPEN_MAX,
    START_MS,
    TRAINING_DAYS,
    Sent,
    Slice,
    Upstream,
    training_history,
)
from tests.support.system import System, Worker, run_ok, system

PARTITIONS: Final = 8
WORKERS: Final = 3
TICK_S: Final = 0.02
# A drained worker: a batch in work, its acknowledgements (5 s while the broker is away), a call of Redis, Faust's end.
STOP_S_MAX: Final = 30.0
# From a process to a member of both groups; some 5 s where nothing else wants the cores.
START_S_MAX: Final = 20.0
DRAIN_S_MAX: Final = 120.0

Say = Callable[[str], None]


class Fleet:
    """Three workers. One that ends is started again; one that ended as it never should is remembered."""

    def __init__(self, running: System, say: Say) -> None:
        self._running = running
        self._say = say
        self._told: dict[int, set[int]] = {}  # process id -> exit codes that what was done to it explains
        self._started_at_s: dict[int, float] = {}
        self._leaving: dict[int, float] = {}  # process id -> when it was told to end
        self.workers: list[Worker] = [self._start() for _ in range(WORKERS)]
        self.server_is_away: Callable[[], bool] = lambda: False
        self.faults: list[str] = []

    def _start(self) -> Worker:
        worker = self._running.start_worker()
        self._told[worker.process.pid] = set()
        self._started_at_s[worker.process.pid] = time.monotonic()
        return worker

    def signal(self, which: int, number: int) -> Worker:
        worker = self.workers[which % WORKERS]
        codes = {signal.SIGKILL: {-9}, signal.SIGTERM: {0, 1, -15}}.get(signal.Signals(number), set())
        self._told[worker.process.pid] |= codes
        if number == signal.SIGTERM:
            self._leaving.setdefault(worker.process.pid, time.monotonic())
        worker.process.send_signal(number)
        return worker

    def supervise(self) -> None:
        """Start again what ended."""
        if self.server_is_away():  # a worker that starts now refuses to
            for worker in self.workers:
                if time.monotonic() - self._started_at_s[worker.process.pid] < START_S_MAX:
                    self._told[worker.process.pid] |= {1, 2}
        for at, worker in enumerate(self.workers):
            code = worker.process.poll()
            if code is None:
                began_s = self._leaving.get(worker.process.pid)
                if began_s is not None and time.monotonic() - began_s > STOP_S_MAX:
                    self._fault(worker, f"did not end within {STOP_S_MAX:g} s of SIGTERM")
                    worker.kill()
                continue
            if code not in self._told[worker.process.pid]:
                self._fault(worker, f"ended with exit code {code}, which nothing explains")
            self.workers[at] = self._start()

    def stop(self) -> None:
        """End all in order, as nothing is away any more."""
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                code = worker.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._fault(worker, f"did not end within {STOP_S_MAX:g} s of the last SIGTERM")
                worker.kill()
            else:
                if code not in {0, -signal.SIGTERM}:  # the latter while it still starts
                    self._fault(worker, f"ended with exit code {code} after the last SIGTERM")

    def _fault(self, worker: Worker, what: str) -> None:
        self.faults.append(f"{worker.log_path.name}: {what}:\n{worker.log()[-2500:]}")
        self._say(self.faults[-1])


class Flow:
    """Sends the slices, evenly over `flow_s`, but never further ahead of the slowest partition than the oracle allows."""

    def __init__(self, running: System, slices: list[Slice], flow_s: float) -> None:
        self._running = running
        self._slices = slices
        self._flow_s = flow_s
        self._producer = Producer(
            {
                "bootstrap.servers": running.bootstrap_servers,
                "partitioner": "murmur2_random",
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "message.timeout.ms": 300_000,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )
        self._ends: dict[tuple[str, int], int] = {}  # topic, partition -> end of what was acknowledged
        self._open: list[dict[tuple[str, int], int] | None] = []  # for each slice sent: the ends after it, once known
        self._unacknowledged: Counter[int] = Counter()
        self._done_to = 0  # slices that are done with
        self.sent = 0
        self._progress = Progress(running)

    def tick(self, now_s: float) -> None:
        self._producer.poll(0)
        due = len(self._slices) if now_s >= self._flow_s else int(len(self._slices) * now_s / self._flow_s)
        if self.sent == due:
            return
        one = self._slices[self.sent]
        if self.sent - self._slices_done() <= (0 if one.alone else SLICES_OPEN_MAX):
            self._send(self.sent, one)
            self.sent += 1

    @property
    def all_sent(self) -> bool:
        return self.sent == len(self._slices) and not +self._unacknowledged

    def drained(self) -> bool:
        """Whether every record is acknowledged by the workers' groups."""
        return self.all_sent and self._progress.reached(self._ends)

    def close(self) -> None:
        self._progress.close()

    def _send(self, number: int, one: Slice) -> None:
        self._open.append(None)
        topics = self._running.topics
        for topic, records in ((topics.transactions, one.transactions), (topics.labels, one.labels)):
            for record in records:
                self._produce(topic, record, one.time_ms, number)

    def _produce(self, topic: str, record: Sent, time_ms: int, number: int) -> None:
        def acknowledged(error: Any, message: Any) -> None:
            assert error is None, f"the upstream's own record was not acknowledged: {error}"
            place = topic, message.partition()
            self._ends[place] = max(self._ends.get(place, 0), message.offset() + 1)
            self._unacknowledged[number] -= 1

        self._unacknowledged[number] += 1
        self._producer.produce(topic, record[1], record[0], timestamp=time_ms, on_delivery=acknowledged)

    def _slices_done(self) -> int:
        """How many slices, from the first on, are committed by both groups in every partition."""
        for number, ends in enumerate(self._open):
            if ends is None and not self._unacknowledged[number]:
                self._open[number] = dict(self._ends)  # perhaps a little past the slice, which is safe
        while self._done_to < len(self._open):
            ends = self._open[self._done_to]
            if ends is None or not self._progress.reached(ends):
                break
            self._done_to += 1
        return self._done_to


class Progress:
    """The offsets that the two groups have committed, asked for all the time in a thread: a broker may be away."""

    def __init__(self, running: System) -> None:
        group = running.env["FRAUDSTREAM_KAFKA__GROUP"]
        self._groups = {running.topics.transactions: f"{group}-score", running.topics.labels: f"{group}-label"}
        self._bootstrap_servers = running.bootstrap_servers
        self._committed: dict[tuple[str, int], int] = {}
        self._closed = Event()
        self._thread = Thread(target=self._ask_on, name="progress")
        self._thread.start()

    def reached(self, ends: Mapping[tuple[str, int], int]) -> bool:
        return all(self._committed.get(place, 0) >= end for place, end in ends.items())

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _ask_on(self) -> None:
        config = {"bootstrap.servers": self._bootstrap_servers, "log_level": 0}
        consumers = {topic: Consumer({**config, "group.id": group}) for topic, group in self._groups.items()}
        while not self._closed.wait(0.3):
            for topic, consumer in consumers.items():
                with contextlib.suppress(KafkaException):  # the broker is away: nothing new is known
                    wanted = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
                    for found in consumer.committed(wanted, timeout=2):
                        self._committed[topic, found.partition] = found.offset
        for consumer in consumers.values():
            consumer.close()


class Round:
    """The parts of one round, and the loop that lets the faults happen in the flow."""

    def __init__(self, running: System, broker: KafkaServer, redis: RedisServer, say: Say) -> None:
        self.running = running
        self.broker = broker
        self.redis = redis
        self.say = say
        self.happened: Counter[str] = Counter()
        self.fleet = Fleet(running, say)
        self.fleet.server_is_away = self._server_is_away
        self._repairs = ThreadPoolExecutor(1, thread_name_prefix="repairs")  # one server is away at a time
        self._repair: Future[None] | None = None
        self._thaws: list[tuple[float, Worker]] = []

    def play(self, slices: list[Slice], faults: list[Fault], flow_s: float) -> None:
        """Send all of it while the faults happen; return when it is drained and the workers have ended."""
        flow = Flow(self.running, slices, flow_s)
        self.running.wait_ready()
        began_s, waiting = time.monotonic(), list(faults)
        drain_until_s = None
        while not (flow.drained() and not waiting and self._calm()):
            now_s = time.monotonic() - began_s
            flow.tick(now_s)
            due = [one for one in waiting if one.at_s <= now_s and not (_is_of_server(one) and self._server_is_away())]
            for fault in due[:1]:
                waiting.remove(fault)
                self._do(fault, now_s)
            self._thaw()
            self.fleet.supervise()
            if flow.all_sent and drain_until_s is None:
                drain_until_s = time.monotonic() + DRAIN_S_MAX
                self.say(f"{now_s:5.1f} s  everything is sent")
            assert drain_until_s is None or time.monotonic() < drain_until_s, self._stuck()
            time.sleep(TICK_S)
        self.say(f"{time.monotonic() - began_s:5.1f} s  everything is decided, joined or set aside")
        flow.close()
        self.fleet.stop()

    def _do(self, fault: Fault, now_s: float) -> None:
        self.happened[fault.kind] += 1
        what = f"worker {fault.which % WORKERS}"
        match fault.kind:
            case "kill":
                self.fleet.signal(fault.which, signal.SIGKILL)
            case "terminate":
                self.fleet.signal(fault.which, signal.SIGTERM)
            case "freeze":
                worker = self.fleet.signal(fault.which, signal.SIGSTOP)
                self._thaws.append((time.monotonic() + fault.for_s, worker))
                what += f" for {fault.for_s:.1f} s"
            case _:
                what = f"for {fault.for_s:.1f} s"
                self._repair = self._repairs.submit(self._harm_server, fault)
        self.say(f"{now_s:5.1f} s  {fault.kind} {what}")

    def _harm_server(self, fault: Fault) -> None:
        server: KafkaServer | RedisServer = self.redis if fault.kind.startswith("redis") else self.broker
        if fault.kind.endswith("kill"):
            server.kill()
        else:
            server.stop()
        time.sleep(fault.for_s)
        server.restart()

    def _server_is_away(self) -> bool:
        if self._repair is None or not self._repair.done():
            return self._repair is not None
        self._repair.result()
        return False

    def _thaw(self) -> None:
        for due_s, worker in list(self._thaws):
            if due_s <= time.monotonic():
                self._thaws.remove((due_s, worker))
                if worker.process.poll() is None:
                    worker.process.send_signal(signal.SIGCONT)

    def _calm(self) -> bool:
        return not self._thaws and not self._server_is_away()

    def _stuck(self) -> str:
        logs = "\n".join(f"{w.log_path.name}:\n{w.log()[-2500:]}" for w in self.fleet.workers)
        return f"not drained within {DRAIN_S_MAX:g} s of the last record; {self.running.counts()}; logs:\n{logs}"

    def close(self) -> None:
        self._repairs.shutdown()


def _is_of_server(fault: Fault) -> bool:
    return fault.kind.startswith(("redis", "broker"))


@dataclass(frozen=True)
class Size:
    """How much of everything: transactions, how long they are sent, how long a server is away at most."""

    transactions: int = 300_000
    flow_s: float = 60.0
    away_s: float = 3.0


def play(seed: int, size: Size, directory: Path, say: Say) -> Report:
    """Play one round and hold it against the oracle. Raises `AssertionError` with what is wrong."""
    with ExitStack() as stack:
        with_broker = apache_kafka_unavailable() is None  # Tansu would lose its records
        registry = _train(directory)
        broker = stack.enter_context(start_kafka(directory / "kafka", prefer="apache" if with_broker else "tansu"))
        redis = stack.enter_context(start_redis(directory / "redis", append_only=True))
        env = {
            "FRAUDSTREAM_ROLES": "score,label",
            "FRAUDSTREAM_KAFKA__SESSION_TIMEOUT_S": str(SESSION_S),
            "FRAUDSTREAM_KAFKA__PUBLISH_TIMEOUT_S": "5",
            "FRAUDSTREAM_REDIS__TIMEOUT_S": "2",
            "FRAUDSTREAM_BATCH_RECORDS_MAX": str(Random(seed).choice((256, 512, 1024))),
        }
        running = stack.enter_context(system(broker.bootstrap_servers, redis.url, registry, directory, **env))
        running.create_topics(PARTITIONS)
        upstream = Upstream(seed, size.transactions)
        faults = plan(seed, size.flow_s, with_broker=with_broker, away_s=size.away_s)
        say(
            f"{size.transactions:,} transactions in {size.flow_s:g} s, {len(faults)} faults, {broker.kind} broker, "
            f"batches of {env['FRAUDSTREAM_BATCH_RECORDS_MAX']}"
        )
        one = stack.enter_context(contextlib.closing(Round(running, broker, redis, say)))
        one.play(upstream.slices, faults, size.flow_s)
        report = check(running, upstream, broker.kind)
        assert not one.fleet.faults, "; ".join(one.fleet.faults)
        report.faults.update(one.happened)
        return report


def _train(directory: Path) -> Path:
    """A registry with a model of the feature list whose decisions do not depend on how partitions interleave."""
    first = datetime.fromtimestamp(START_MS / 1000, UTC).date()
    (directory / "features.toml").write_text(FEATURES, "utf-8")
    run_ok(
        "fraudstream", "train", "--transactions", str(written(training_history(), directory / "history.parquet")),
        "--from", str(first), "--until", str(first + timedelta(TRAINING_DAYS)), "--label-delay", "1d", "--quiet",
        "--features", str(directory / "features.toml"), "--alerts-per-day", "60",
        "--registry", str(directory / "registry"),
    )  # fmt: skip
    return directory / "registry"

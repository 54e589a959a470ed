"""The demo from start to summary: start the parts, train, stream, watch, account."""

import contextlib
import json
import math
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from msgspec import Struct
from rich.console import Console
from rich.live import Live

from fraudstream import settings
from fraudstream.adapters import kafka_admin
from fraudstream.core.features import DAY_MS
from fraudstream.core.outcomes import label_outcomes
from fraudstream.demo.processes import Child, DemoError
from fraudstream.demo.summary import summary, told
from fraudstream.demo.tally import Tally
from fraudstream.demo.view import render
from fraudstream.demo.watcher import Watcher
from fraudstream.embedded import KafkaServer, RedisServer, start_kafka, start_redis
from fraudstream.models.history import warm_states
from fraudstream.services import startup
from fraudstream.services.health import read_status
from fraudstream.topics import SINGLE_PARTITION

HISTORY_DAYS: Final = 45
TRAIN_FROM_DAY: Final = 8  # the days before fill the windows
CARDS: Final = 2_000
TERMINALS: Final = 4_000
TRANSACTIONS_PER_CARD_DAY: Final = 2.0
PARTITIONS: Final = 4
# Chargebacks after a median of 8 simulated hours (7 s at the default rate), analysts' verdicts after minutes: a demo of a
# minute sees most of its labels, and still each of them late.
LABEL_DELAY_SCALE: Final = 0.05
LABELS_AGAIN: Final = 0.5  # of the frauds that an analyst found: a chargeback says so, too, and counts no second time
# From the second simulated day on (20 s after the beginning at the default rate) amounts are half as high again.
DRIFT: Final = f"amount:{HISTORY_DAYS + 1}:1.5"
LOOK_EVERY_S: Final = 2  # at each look what came since is compared; a day of life passes in 20 s
MALFORMED: Final = 0.005
DUPLICATES: Final = 0.005
# Tansu lets the first member of a group wait half of it; Apache Kafka's broker allows no less than six.
SESSION_TIMEOUT_S: Final = {"tansu": "3", "apache": "6"}
FETCH_WAIT_MAX_MS: Final = 10  # Tansu looks for new records only at half of the wait and at its end
READY_S_MAX: Final = 60.0
COMMAND_S_MAX: Final = 300.0
DRAIN_S_MAX: Final = 60.0
REFRESH_S: Final = 0.25
PLAIN_LINE_S: Final = 5.0


class Options(Struct, frozen=True):
    """What can be chosen. `rate` is transactions per second of wall time, on average over a simulated day."""

    seconds: float = 60.0
    rate: float = 200.0
    seed: int = 7
    broker: str = "auto"
    json_file: Path | None = None
    directory: Path | None = None


def run(options: Options, began_s: float) -> int:
    """Run the demo; the exit code: 0 if every record is accounted for. `began_s` is when the user started it."""
    console = Console(stderr=True)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="fraudstream-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    finished = False
    try:
        with contextlib.ExitStack() as stack:
            outcome = _Demo(options, directory, console, stack, began_s).run()
        finished = True
    finally:
        if finished and options.directory is None:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            console.print(f"logs and files are kept in {directory}")
    if options.json_file:
        options.json_file.write_text(json.dumps(outcome, indent=2) + "\n", "utf-8")
    print(told(outcome))
    return 0 if outcome["unaccounted"] == outcome["labels"]["unaccounted"] == 0 else 1


class _Demo:
    def __init__(
        self, options: Options, directory: Path, console: Console, stack: contextlib.ExitStack, began_s: float
    ) -> None:
        self._options = options
        self._directory = directory
        self._console = console
        self._stack = stack
        self._began_s = began_s
        # Natural event times, run fast: the simulated day passes in as many seconds as the rate asks for.
        self._speed_up = options.rate * 86_400 / (CARDS * TRANSACTIONS_PER_CARD_DAY)
        live_days = math.ceil(options.seconds * self._speed_up / 86_400) + 1
        # The stream ends before now, so no event time lies in its record's future.
        # A date, not "today": several processes simulate the same world, and midnight may lie between them.
        self._start = (datetime.now(UTC) - timedelta(days=HISTORY_DAYS + live_days)).strftime("%Y-%m-%d")
        self._live_days = live_days
        drift_day = datetime.fromisoformat(self._start).replace(tzinfo=UTC) + timedelta(days=HISTORY_DAYS + 1)
        self._drift_ms = int(drift_day.timestamp() * 1000)

    def run(self) -> dict[str, Any]:
        history = self._directory / "history.parquet"
        with ThreadPoolExecutor(2) as pool:
            servers = pool.submit(self._servers)
            self._say("simulating history and training a model on it")
            self._simulate(history, 0, HISTORY_DAYS)
            train = self._child("train", "fraudstream", *self._train_words(history))
            truth_file = self._directory / "live.parquet"
            self._simulate(truth_file, HISTORY_DAYS, self._live_days)
            tally = _tally(truth_file, self._drift_ms)
            kafka, redis = servers.result()
            train.wait(COMMAND_S_MAX)
        env = self._environment(kafka, redis)
        config = settings.load(settings.overrides(env))
        worker = self._child("worker", "fraudstream", "worker", env=env)
        self._say("loading the history of cards and terminals, starting the worker")
        features, _ = startup.open_model(config)
        store = startup.open_store(config, features)
        self._stack.callback(store.close)
        for entity, rows in warm_states(features, history, _first_day(truth_file)).items():
            store.load_rows(entity, rows)
        self._wait_ready(worker, self._directory / "health.json")
        watcher = Watcher(kafka.bootstrap_servers, tally)
        self._stack.callback(watcher.close)
        producer = self._child("producer", "fraudstream_producers.simulate", *self._live_words(kafka))
        interrupted = self._watch(tally, store.counts, [worker, producer], lambda: producer.running)
        if not interrupted:
            producer.check()  # a fault may have ended it between two looks
        producer.stop()
        self._drain(tally, store.counts, worker)
        counts = store.counts()
        worker.stop()
        return summary(tally, counts, began_ms=int(self._began_s * 1000), interrupted=interrupted)

    def _servers(self) -> tuple[KafkaServer, RedisServer]:
        broker: Any = self._options.broker
        kafka = self._stack.enter_context(start_kafka(self._directory / "kafka", prefer=broker, progress=self._say))
        redis = self._stack.enter_context(start_redis(self._directory / "redis"))
        names = settings.TopicSettings().model_dump()
        wanted: dict[str, tuple[int, dict[str, str]]] = {
            name: (1 if field in SINGLE_PARTITION else PARTITIONS, {}) for field, name in names.items()
        }
        # A metadata request of a client makes Tansu create a topic, so ask for all of them before anybody else does.
        kafka_admin.create({"bootstrap.servers": kafka.bootstrap_servers}, wanted)
        return kafka, redis

    def _environment(self, kafka: KafkaServer, redis: RedisServer) -> dict[str, str]:
        return {
            "FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FRAUDSTREAM_KAFKA__SESSION_TIMEOUT_S": SESSION_TIMEOUT_S[kafka.kind],
            "FRAUDSTREAM_KAFKA__FETCH_WAIT_MAX_MS": str(FETCH_WAIT_MAX_MS),
            "FRAUDSTREAM_REDIS__URL": redis.url,
            "FRAUDSTREAM_DRIFT__LOOK_EVERY_S": str(LOOK_EVERY_S),
            "FRAUDSTREAM_MODEL__REGISTRY": str(self._directory / "registry"),
            "FRAUDSTREAM_HEALTH_FILE": str(self._directory / "health.json"),
        }

    def _world(self) -> list[str]:
        options = ("--cards", CARDS, "--terminals", TERMINALS, "--seed", self._options.seed, "--start", self._start)
        world = self._directory / "world.toml"
        world.write_text(f"[labels]\nagain_share = {LABELS_AGAIN}\n", "utf-8")
        return [*(str(word) for word in options), "--config", str(world), "--drift", DRIFT, "--quiet"]

    def _simulate(self, file: Path, first_day: int, days: int) -> None:
        words = ("--to", str(file), "--skip-days", str(first_day), "--days", str(days))
        self._child(f"simulate-{file.stem}", "fraudstream_producers.simulate", *words, *self._world()).wait(
            COMMAND_S_MAX
        )

    def _train_words(self, history: Path) -> list[str]:
        table = pq.read_table(history, columns=["event_time"])["event_time"]
        first_ms = int(table[0].as_py().timestamp() * 1000) // DAY_MS * DAY_MS
        days = (first_ms + TRAIN_FROM_DAY * DAY_MS, first_ms + HISTORY_DAYS * DAY_MS)
        since, until = (time.strftime("%Y-%m-%d", time.gmtime(ms / 1000)) for ms in days)
        words = ["train", "--transactions", str(history), "--from", since, "--until", until, "--label-delay", "7d"]
        return [*words, "--registry", str(self._directory / "registry"), "--alerts-per-day", "40"]

    def _live_words(self, kafka: KafkaServer) -> list[str]:
        words: tuple[Any, ...] = (
            "-b", kafka.bootstrap_servers, "--skip-days", HISTORY_DAYS, "--speed-up", self._speed_up,
            "--seconds", self._options.seconds, "--timestamps", "now", "--malformed", MALFORMED,
            "--duplicates", DUPLICATES, "--label-delay-scale", LABEL_DELAY_SCALE,
        )  # fmt: skip
        return [*(str(word) for word in words), *self._world()]

    def _watch(
        self, tally: Tally, counts: Callable[[], Any], children: list[Child], going_on: Callable[[], bool]
    ) -> bool:
        """Show what happens until the stream ends; True if the user ended it."""
        try:
            with self._shown(tally, counts):
                while going_on():
                    for child in children:
                        child.check()
                    time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            return True
        return False

    @contextlib.contextmanager
    def _shown(self, tally: Tally, counts: Callable[[], Any]) -> Iterator[None]:
        if not self._console.is_terminal:
            with _every(PLAIN_LINE_S, lambda: self._say(_line(tally))):
                yield
            return

        def screen() -> Any:
            return render(tally, counts(), now_ms=int(time.time() * 1000), phase="Ctrl-C ends it")

        with (
            Live(screen(), console=self._console, auto_refresh=False) as live,
            _every(REFRESH_S, lambda: live.update(screen(), refresh=True)),
        ):
            yield

    def _drain(self, tally: Tally, counts: Callable[[], Any], worker: Child) -> None:
        """Wait until the worker has answered everything that was produced."""
        deadline_s = time.monotonic() + DRAIN_S_MAX
        quiet_since_s, produced = time.monotonic(), -1
        while time.monotonic() < deadline_s:
            worker.check()
            if tally.produced != produced:
                quiet_since_s, produced = time.monotonic(), tally.produced
            seen = tally.decided + sum(tally.rejects.values()) + counts().get("duplicates", 0)
            told = label_outcomes(counts())["told"]
            if seen >= produced and told >= tally.labels and time.monotonic() - quiet_since_s > 1.0:
                return
            time.sleep(REFRESH_S)

    def _wait_ready(self, worker: Child, health_file: Path) -> None:
        deadline_s = time.monotonic() + READY_S_MAX
        why = "it has not said anything yet"
        while time.monotonic() < deadline_s:
            worker.check()
            ready, why = read_status(health_file)
            if ready:
                return
            time.sleep(0.05)
        raise DemoError(f"the worker is not ready after {READY_S_MAX:g} s: {why}; see {worker.log_path}")

    def _child(self, name: str, *words: str, env: dict[str, str] | None = None) -> Child:
        child = Child(name, words, self._directory, env)
        self._stack.callback(child.stop)
        return child

    def _say(self, line: str) -> None:
        self._console.print(f"[{time.time() - self._began_s:5.1f} s] {line}", markup=False, highlight=False)


def _tally(file: Path, drift_ms: int) -> Tally:
    """What will be seen is judged by what was simulated; the drift begins with the first transaction after `drift_ms`."""
    table = pq.read_table(file, columns=["transaction_id", "is_fraud", "event_time"])
    names = table["transaction_id"].to_pylist()
    first = next(
        (at for at, when in enumerate(table["event_time"].to_pylist()) if when.timestamp() * 1000 >= drift_ms), None
    )
    truth = dict(zip(names, table["is_fraud"].to_pylist(), strict=True))
    return Tally(truth=truth, drift_begins_with=None if first is None else names[first])


def _first_day(file: Path) -> str:
    first = pq.read_table(file, columns=["event_time"])["event_time"][0].as_py()
    return str(first.date())


def _line(tally: Tally) -> str:
    return (
        f"produced {tally.produced:,}  decided {tally.decided:,}  alerts {tally.alerts:,}  "
        f"rejected {sum(tally.rejects.values()):,}"
    )


@contextlib.contextmanager
def _every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    stopping = threading.Event()

    def loop() -> None:
        while not stopping.wait(seconds):
            work()

    thread = threading.Thread(target=loop, name="view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        sys.stderr.flush()

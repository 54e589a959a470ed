"""Apache Kafka from its published jars: where they come from, how one node of it is set up."""

import base64
import contextlib
import functools
import importlib.resources
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fraudstream.embedded.process import ChildProcess
from fraudstream.errors import BrokerUnavailable

KAFKA_VERSION = "4.4.0"
JAVA_VERSION_MIN = 17  # Kafka 4 brokers are compiled for it

_DOWNLOAD_S_MAX = 600.0
_FORMAT_S_MAX = 60.0

# C1 and the serial collector: 1.8 s instead of 2.4 s until the broker answers, at the same 180,000 records/s (2 cores).
_JAVA_OPTIONS = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENT://127.0.0.1:{port}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
log.dirs=kafka-data
auto.create.topics.enable=false

# One node carries everything, and few internal partitions are quicker to create and to recover.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

# Groups form at once, and a crashed member may be missed after one second.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# After a kill the broker may register again only when its former registration has expired.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Replayed records carry the timestamps of their time, years ago: no clean-up by age or size, and no new segment for
# every seven days of a replayed year (ten years instead).
log.retention.ms=-1
log.retention.bytes=-1
log.roll.ms=315360000000

# A small footprint.
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=1048576
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
"""


def unavailable() -> str | None:
    """Why Apache Kafka cannot be started here, as half a sentence; None when it can (its jars may still be loaded)."""
    if shutil.which("java") is None:
        return f"no java on PATH (Apache Kafka needs {JAVA_VERSION_MIN} or newer)"
    version = _java_version(shutil.which("java") or "")
    if version is None:
        return "`java -version` does not answer with a version"
    if version < JAVA_VERSION_MIN:
        return f"java {version} on PATH (Apache Kafka needs {JAVA_VERSION_MIN} or newer)"
    if not _jar_directory().is_dir() and shutil.which("mvn") is None:
        return "no mvn on PATH to fetch Apache Kafka's jars with"
    return None


@functools.cache
def _java_version(java: str) -> int | None:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_java_version(answer.stderr + answer.stdout)


def parse_java_version(text: str) -> int | None:
    """The feature release in the output of `java -version` ("17.0.15" is 17, "1.8.0_402" is 8), None without one."""
    found = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if found is None:
        return None
    first, second = found.groups()
    return int(second) if first == "1" and second is not None else int(first)


def _jar_directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fraudstream" / f"kafka-{KAFKA_VERSION}"


def fetch_jars(progress: Callable[[str], None]) -> Path:
    """The folder with Apache Kafka's jars, filled by Maven on first use (43 MB).

    Processes that need it at the same time wait for the first one; a fill that was cut off leaves nothing that could
    be taken for a whole one. Raises BrokerUnavailable.
    """
    jars = _jar_directory()
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with _locked(jars.with_name(f"{jars.name}.lock"), progress):
        if jars.is_dir():
            return jars
        for remains in jars.parent.glob(f"{jars.name}.part-*"):
            shutil.rmtree(remains, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{jars.name}.part-", dir=jars.parent))
        try:
            _copy_dependencies(part, progress)
            (part / "jars").rename(jars)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return jars


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    import fcntl  # noqa: PLC0415 - absent on Windows, where this module must still say that it cannot serve

    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that fetches Apache Kafka {KAFKA_VERSION} ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file, or dying, gives the lock back


def _copy_dependencies(part: Path, progress: Callable[[str], None]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable("Apache Kafka's jars are not cached and mvn is not on PATH: install Maven")
    progress(f"fetching Apache Kafka {KAFKA_VERSION} with Maven (about 43 MB, once) ...")
    pom = part / "pom.xml"
    pom.write_bytes((importlib.resources.files(__package__) / "apache-kafka.pom.xml").read_bytes())
    command = [maven, "-q", "-B", "-Dstyle.color=never", "-f", str(pom), "dependency:copy-dependencies"]
    command += [f"-Dkafka.version={KAFKA_VERSION}", "-DincludeScope=runtime", f"-DoutputDirectory={part / 'jars'}"]
    process = ChildProcess(command, log_path=part / "maven.log", directory=part)
    process.start()
    try:
        code = process.wait(_DOWNLOAD_S_MAX)
    except subprocess.TimeoutExpired:
        raise BrokerUnavailable(f"Maven did not fetch Apache Kafka within {_DOWNLOAD_S_MAX:g} s: try again") from None
    finally:
        process.kill()
    if code != 0 or not list((part / "jars").glob("kafka_*.jar")):
        tail = (part / "maven.log").read_text(errors="replace").splitlines()[-10:]
        raise BrokerUnavailable(
            f"Maven could not fetch Apache Kafka {KAFKA_VERSION} (exit code {code}):\n" + "\n".join(tail)
        )
    progress(f"Apache Kafka {KAFKA_VERSION} is in {_jar_directory()}")


def cluster_id() -> str:
    """A new cluster id in Kafka's form: 16 random bytes as URL-safe base64 that does not look like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def prepare(
    directory: Path,
    jars: Path,
    *,
    port: int,
    controller_port: int,
    new_cluster_id: str,
    overrides: Mapping[str, object] | None = None,
) -> tuple[str, ...]:
    """Write the configuration into `directory`, format its data folder if there is none, return the server's command.

    `overrides` are properties that replace those of a single node. Raises BrokerUnavailable when the format fails.
    """
    # Paths relative to the working directory: a properties file is Latin-1 and takes a comma for a separator.
    properties = "server.properties"
    text = _SERVER_PROPERTIES.format(port=port, controller_port=controller_port)
    # Of a property that occurs twice the last one counts.
    text += "".join(f"{name}={value}\n" for name, value in (overrides or {}).items())
    (directory / properties).write_text(text)
    if not (directory / "kafka-data" / "meta.properties").exists():
        _format(directory, [*_java(jars), "kafka.tools.StorageTool", "format", "-t", new_cluster_id, "-c", properties])
    return (*_java(jars), "kafka.Kafka", properties)


def _format(directory: Path, command: list[str]) -> None:
    try:
        answer = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=_FORMAT_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise BrokerUnavailable(f"formatting {directory} took more than {_FORMAT_S_MAX:g} s: try again") from None
    if answer.returncode != 0:
        raise BrokerUnavailable(f"Apache Kafka could not format {directory}:\n{answer.stdout}{answer.stderr}".strip())


def formatted_cluster_id(directory: Path) -> str:
    """The cluster id that the data folder of `directory` was formatted with."""
    text = (directory / "kafka-data" / "meta.properties").read_text()
    found = re.search(r"^cluster\.id=(.+)$", text, re.MULTILINE)
    if found is None:
        raise BrokerUnavailable(f"{directory / 'kafka-data'} is not a Kafka data folder: name an empty directory")
    return found[1].strip()


def _java(jars: Path) -> tuple[str, ...]:
    return (shutil.which("java") or "java", *_JAVA_OPTIONS, "-cp", f"{jars}/*")

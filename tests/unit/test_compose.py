"""The promises of docker-compose.yml and Dockerfile that can be seen without a Docker engine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraudstream.settings import KafkaSettings, RedisSettings, Settings
from fraudstream_producers.drift import parse_drift

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

LONG_RUNNING = {"kafka", "redis", "worker", "producer"}
ONE_SHOT = {"topics", "model"}
OURS = {"topics", "model", "worker", "producer"}
WITH_DATA = {"kafka": "/var/lib/kafka/data", "redis": "/data"}


def seconds(duration: str) -> int:
    """Read a duration of whole seconds as the compose file writes them."""
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, f"{duration}: write whole seconds"
    return int(match.group(1))


def image_tags() -> dict[str, str]:
    """Collect every image that is pulled or built, with its tag; the image of a Dockerfile stage by its line."""
    images = {name: service["image"] for name, service in SERVICES.items()}
    images |= {
        f"stage {number}": image for number, image in enumerate(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    }
    return {name: image.partition(":")[2] for name, image in images.items()}


def option(command: list[str], name: str) -> str:
    """Look up the value that follows an option."""
    return command[command.index(name) + 1]


def test_every_service_is_known_to_these_tests() -> None:
    """A service that is added is sorted into the groups below, so that the promises cover it."""
    assert set(SERVICES) == LONG_RUNNING | ONE_SHOT | {"alerts"}


@pytest.mark.parametrize("name", sorted(image_tags()))
def test_images_are_pinned(name: str) -> None:
    """Every image carries a tag with a version, never `latest`."""
    assert re.match(r"v?\d+\.\d+", image_tags()[name]), f"{name}: tag {image_tags()[name]!r}"


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_image_is_this_version(name: str) -> None:
    """Our services run the image of the version in pyproject.toml, built from here."""
    assert SERVICES[name]["image"] == f"fraudstream:{PROJECT['version']}"
    assert SERVICES[name]["build"] == "."


@pytest.mark.parametrize("name", ["kafka", "redis"])
def test_servers_are_probed(name: str) -> None:
    """Kafka and Redis have a health check, which gives a slow start at least a minute."""
    check = SERVICES[name]["healthcheck"]
    patience_s = seconds(check["start_period"]) + check["retries"] * seconds(check["interval"])
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert patience_s >= 60


def test_worker_is_probed_by_its_own_status() -> None:
    """The image asks the worker's status file, which it is told where to write; only one-shots and producer opt out."""
    assert 'CMD ["fraudstream", "doctor", "--worker"]' in DOCKERFILE
    assert "FRAUDSTREAM_HEALTH_FILE=/tmp/" in DOCKERFILE
    assert SERVICES["worker"]["tmpfs"] == ["/tmp"]
    assert "healthcheck" not in SERVICES["worker"]
    assert {name for name in OURS if SERVICES[name].get("healthcheck") == {"disable": True}} == OURS - {"worker"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_start_order_waits_for_what_is_needed(name: str) -> None:
    """A dependency is waited for until it is healthy, or done if it is a one-shot; nothing merely has to be started."""
    for dependency, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if dependency in ONE_SHOT else "service_healthy"
        assert how == {"condition": wanted}, f"{name} -> {dependency}"
        assert dependency in ONE_SHOT or "healthcheck" in SERVICES[dependency]


def test_worker_starts_last() -> None:
    """The worker waits for Kafka, Redis, the topics and the model."""
    assert set(SERVICES["worker"]["depends_on"]) == {"kafka", "redis", "topics", "model"}


def test_worker_can_be_scaled() -> None:
    """Nothing of the worker is unique on the host: no name, no port, no writable volume; there are two at the start."""
    worker = SERVICES["worker"]
    assert not {"container_name", "hostname", "ports", "network_mode"} & worker.keys()
    assert all(volume.endswith(":ro") for volume in worker["volumes"])
    assert worker["deploy"]["replicas"] >= 2


def test_topics_have_partitions_for_more_workers() -> None:
    """There are more partitions than workers at the start, and no topic appears by a spelling mistake."""
    assert int(option(SERVICES["topics"]["command"], "--partitions")) > SERVICES["worker"]["deploy"]["replicas"]
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_stopping_leaves_time_for_the_batch_at_hand() -> None:
    """The worker is killed later than its longest wait for Kafka ends; Kafka and Redis have time to flush."""
    grace_s = seconds(SERVICES["worker"]["stop_grace_period"])
    assert grace_s > KafkaSettings().publish_timeout_s + RedisSettings().timeout_s
    assert all(seconds(SERVICES[name]["stop_grace_period"]) >= 30 for name in WITH_DATA)


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_long_running_services_come_back(name: str) -> None:
    """What should run is started again after a crash."""
    assert SERVICES[name]["restart"] in {"unless-stopped", "on-failure"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_have_no_rights(name: str) -> None:
    """Our containers run as a numbered user without capabilities on a read-only file system."""
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_image_runs_as_the_same_user() -> None:
    """The last user the Dockerfile sets is the numbered one of the compose file, and dependencies are pinned."""
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert len(re.findall(r"^FROM ", DOCKERFILE, re.MULTILINE)) == 2
    assert "constraints.txt" in DOCKERFILE


def test_image_reports_to_nobody() -> None:
    """The usage reports of onnxruntime are switched off in the environment, before anything can load it."""
    assert re.search(r"^\s+ORT_DISABLE_TELEMETRY=1\b", DOCKERFILE, re.MULTILINE)


def test_worker_writes_only_where_it_may() -> None:
    """Whatever the image tells a part to write lies in /tmp, which is memory, or in the volume."""
    written = re.findall(r"(?:REGISTRY|FILE)=(\S+)", DOCKERFILE)
    assert len(written) == 2
    assert all(path.startswith(("/tmp/", "/var/lib/fraudstream/")) for path in written)


def test_nothing_is_privileged_or_open_to_the_network() -> None:
    """No service is root by request or privileged, and what is published on the host is published on loopback."""
    for name, service in SERVICES.items():
        assert service.get("user") not in {"root", "0"}, name
        assert not service.get("privileged"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


@pytest.mark.parametrize(("name", "path"), sorted(WITH_DATA.items()))
def test_data_lies_in_named_volumes(name: str, path: str) -> None:
    """What Kafka and Redis write survives their containers."""
    volume, _, target = SERVICES[name]["volumes"][0].partition(":")
    assert target == path
    assert volume in COMPOSE["volumes"]


def test_kafka_writes_into_its_volume() -> None:
    """The broker's log directory is the one that is mounted."""
    assert SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"] == WITH_DATA["kafka"]


def test_redis_keeps_state() -> None:
    """Redis logs every write, evicts nothing, and keeps stored decisions compact."""
    command = SERVICES["redis"]["command"]
    assert option(command, "--appendonly") == "yes"
    assert option(command, "--maxmemory-policy") == "noeviction"
    assert option(command, "--hash-max-listpack-value") == "1024"


def test_settings_exist() -> None:
    """Every FRAUDSTREAM variable of image and compose file is a setting."""
    named = set(re.findall(r"FRAUDSTREAM_[A-Z_]+(?==)", DOCKERFILE))
    named |= {name for name in SERVICES["worker"]["environment"] if name.startswith("FRAUDSTREAM_")}
    assert named
    for name in named:
        fields: Any = Settings.model_fields
        for part in name.removeprefix("FRAUDSTREAM_").lower().split("__"):
            assert part in fields, name
            fields = getattr(fields[part].annotation, "model_fields", {})


def test_labels_come_late_and_the_drift_after_the_models_history() -> None:
    """The producer's options are ones it has, its labels take time, and its world changes only after the first model."""
    options = dict(word.removeprefix("--").split("=") for word in SERVICES["producer"]["command"] if "=" in word)
    asked = subprocess.run(
        [sys.executable, "-m", "fraudstream_producers.simulate", "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"--{name}" in asked.stdout for name in options)
    assert 0 < float(options["label-delay-scale"]) <= 1
    assert parse_drift(options["drift"]).day > int(options["skip-days"])

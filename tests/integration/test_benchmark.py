"""`fraudstream benchmark` on real servers, with few records: it measures what it says and leaves nothing behind."""

import json
from pathlib import Path

import pytest
import redis
from tests.support.servers import Kafka, Redis
from tests.support.system import run_ok

from fraudstream.adapters import kafka_admin


@pytest.mark.timeout(300)
def test_a_small_benchmark_accounts_for_every_record(kafka: Kafka, redis_server: Redis, tmp_path: Path) -> None:
    """Throughput, a rate and the stages are measured on given servers; every record has its decision; all is cleared."""
    file, plot = tmp_path / "out.json", tmp_path / "out.svg"
    before = redis.Redis.from_url(redis_server.url).dbsize()
    text = run_ok(
        "fraudstream", "benchmark", "--transactions", "2000", "--rate", "200", "--seconds", "2", "--stages",
        "--partitions", "2", "--cards", "3000", "--terminals", "600", "--bootstrap-servers", kafka.bootstrap_servers,
        "--redis-url", redis_server.url, "--json", str(file), "--plot", str(plot), "--directory", str(tmp_path / "files"),
    )  # fmt: skip
    figures = json.loads(file.read_text("utf-8"))
    throughput, (latency,) = figures["throughput"], figures["latency"]
    assert throughput["decisions"] == 2_000
    assert 0 <= throughput["alerts"] < 500
    assert throughput["per_s"] > 100
    assert 1 < throughput["cpu_us"]["worker"] < 5_000
    assert 0 < throughput["ready_s"] < 60
    assert latency["decision_ms"]["count"] == 400
    assert 0 < latency["decision_ms"]["p50"] <= latency["decision_ms"]["p99"] <= latency["decision_ms"]["max"]
    assert set(figures["stages"]) == {"1", "64", "256", "1024"}
    assert all(spent > 0 for spent in figures["stages"]["256"]["cpu_us"].values())
    assert "| 200/s | decision | 400 |" in text
    assert plot.read_text("utf-8").startswith("<svg ")
    assert redis.Redis.from_url(redis_server.url).dbsize() == before
    left = kafka_admin.partitions({"bootstrap.servers": kafka.bootstrap_servers})
    assert [name for name in left if name.startswith("bench-")] == []

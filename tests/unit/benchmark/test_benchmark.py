"""The benchmark's own arithmetic: a figure is only as good as the ruler."""

import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from fraudstream.benchmark import outputs, plan, probe, records, report, run
from fraudstream.errors import SettingsError

FIGURES: dict[str, Any] = {
    "machine": {"cpu": "x", "cores": 2, "load": 0.1, "python": "3.11", "broker": "apache", "store": "valkey 8"},
    "options": {"partitions": 8, "cards": 5000, "terminals": 10000, "workers": 1},
    "throughput": {
        "transactions": 200_000,
        "per_s": 25_000,
        "slices_per_s": [24_000, 26_000],
        "cpu_us": {"worker": 38.04, "redis": 11.5},
        "rss_mb": {"worker-0": {"max": 210.0, "last": 200.0}, "redis": {"max": 900.0, "last": 900.0}},
        "memory": {"worker-0": [(0.0, 200_000_000), (5.0, 210_000_000)]},
        "decisions": 200_000,
        "alerts": 1_900,
        "ready_s": 3.1,
    },
    "latency": [
        {
            "rate": 2000.0,
            "half_of_maximum": False,
            "decision_ms": {"count": 40000, "p50": 5.0, "p90": 9.0, "p99": 20.0, "p99.9": 50.0, "max": 61.0},
            "alert_ms": {"count": 400, "p50": 5.1, "p90": 9.1, "p99": 20.1, "p99.9": 50.1, "max": 50.1},
            "curve": [(2.0, 5.0), (100.0, 20.0), (1000.0, 50.0)],
        }
    ],
}


def test_every_latency_counts_and_the_percentiles_are_those_of_the_values() -> None:
    """A thousand latencies of 1 to 1,000 ms: percentiles agree with the ranks to the histogram's three digits."""
    latencies = outputs.Latencies()
    for ms in range(1, 1001):
        latencies.add(ms / 1000)
    told = latencies.summary()
    assert told["count"] == 1000
    assert told["p50"] == pytest.approx(500, rel=0.002)
    assert told["p99"] == pytest.approx(990, rel=0.002)
    assert told["max"] == pytest.approx(1000, rel=0.002)
    assert [one_in for one_in, _ in latencies.curve()][-1] <= 1000


def test_a_schedule_has_the_rate_it_was_asked_for_and_is_the_same_each_time() -> None:
    """Arrivals at 2,000/s take 20 s for 40,000 records, give or take their randomness; a seed fixes them."""
    due_s = records.schedule_s(2_000, 40_000, seed=3)
    assert due_s[-1] == pytest.approx(20.0, rel=0.03)
    assert (due_s == records.schedule_s(2_000, 40_000, seed=3)).all()


def test_processor_time_is_that_of_the_process() -> None:
    """A process that computes for a while is charged that while; its memory is more than nothing."""
    began_cpu_s, own_began_s = probe.cpu_s(os.getpid()), time.process_time()
    while time.process_time() - own_began_s < 0.2:
        sum(range(1000))
    spent_s = probe.cpu_s(os.getpid()) - began_cpu_s
    assert spent_s == pytest.approx(time.process_time() - own_began_s, abs=0.03)
    assert probe.rss_bytes(os.getpid()) > 10_000_000


def test_a_process_that_is_gone_is_told_in_words() -> None:
    """Looking at no process raises an error that names it."""
    with pytest.raises(probe.ProbeError, match="999999999"):
        probe.cpu_s(999_999_999)


@pytest.mark.parametrize("wrong", ["0", "-5", "fast", "1e9"])
def test_a_rate_that_is_none_is_refused(wrong: str) -> None:
    """Rates are numbers above 0 and below what a worker can do, or half."""
    with pytest.raises(SettingsError, match="--rate"):
        run.checked_rates([wrong])


def test_figures_are_told_in_tables() -> None:
    """Every figure of the run is in the text that is printed."""
    text = report.told(FIGURES)
    for figure in ("| transactions/s, acknowledged | 25,000 |", "worker | 38.0 |", "| 2,000/s | alert | 400 | 5.1 |"):
        assert figure in text


def test_the_picture_is_one_svg_file() -> None:
    """The plot is well-formed XML with a curve for each rate and process."""
    root = ET.fromstring(report.svg(FIGURES))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}path[@class='line c1']")) >= 2


def test_a_plan_grows_with_the_rate_and_stays_below_the_limit() -> None:
    """Ten times the rate needs ten times the processors, rounded up, and every part is busy for 60 % at most."""
    figures = {
        "throughput": FIGURES["throughput"]
        | {"bytes": {"record": 170, "answer": 800, "redis_in": 2000, "redis_out": 1900}}
    }
    figures["throughput"]["cpu_us"] = {"worker": 36.0, "redis": 12.0, "kafka": 10.0}
    costs = plan.costs_of(figures)
    small, large = (plan.cluster(n, costs, cards=10**7, terminals=5 * 10**5) for n in (100_000, 1_000_000))
    assert (small.workers, large.workers) == (6, 60)
    assert (small.redis_shards, large.redis_shards) == (2, 20)
    assert all(c.partitions % c.redis_shards == 0 and c.partitions >= 2 * c.workers for c in (small, large))
    assert large.per_s * costs.worker_us / 1e6 / large.workers <= plan.BUSY_MAX
    assert "| worker processes, a core each | 6 | 60 |" in plan.clusters_told(
        costs, [100_000, 1_000_000], cards=10**7, terminals=5 * 10**5
    )


def test_figures_that_are_none_are_refused(tmp_path: Path) -> None:
    """A file that no benchmark wrote is told from one that can be planned with."""
    file = tmp_path / "x.json"
    file.write_text("{}", "utf-8")
    with pytest.raises(SettingsError, match="measure again"):
        plan.costs_of(plan.read(file))
    with pytest.raises(SettingsError, match="--json"):
        plan.read(tmp_path / "none.json")

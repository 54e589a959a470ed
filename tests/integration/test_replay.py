"""Live equals backtest: the same days through Kafka, the worker and Redis give the figures of `fraudstream evaluate`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.replay import replay
from tests.support.servers import Kafka
from tests.support.system import run_ok, system


def test_a_simulated_week_live_equals_its_backtest(
    kafka: Kafka, redis_url: str, registry: Path, history: Path, tmp_path: Path
) -> None:
    """One decision per transaction, and AUC and AP over the decisions equal those of the backtest to 1e-6."""
    with system(kafka.bootstrap_servers, redis_url, registry, tmp_path) as made:
        made.create_topics(4)
        found = replay(made, history, registry, "2025-02-08", "2025-02-15")
    assert found.transactions == found.decisions == found.distinct
    assert found.live_auc == pytest.approx(found.backtest_auc, abs=1e-6)
    assert found.live_ap == pytest.approx(found.backtest_ap, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_reference_days_live_equal_their_backtest(
    kafka: Kafka,
    redis_url: str,
    reference_data: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """The same over 2018-07-01 to 2018-08-07 of the reference data, with a model trained on the days before."""
    models = tmp_path / "registry"
    run_ok(
        "fraudstream", "train", "--transactions", str(reference_data), "--from", "2018-05-08", "--until", "2018-07-01",
        "--label-delay", "7d", "--registry", str(models), timeout_s=300,
    )  # fmt: skip
    with system(kafka.bootstrap_servers, redis_url, models, tmp_path) as made:
        made.create_topics(4)
        found = replay(made, reference_data, models, "2018-07-01", "2018-08-08")
    record_property("replay", str(found))
    assert found.transactions == found.decisions == found.distinct
    assert found.live_auc == pytest.approx(found.backtest_auc, abs=1e-6)
    assert found.live_ap == pytest.approx(found.backtest_ap, abs=1e-6)

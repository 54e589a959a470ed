"""One small history and one version trained on it, shared by the tests that only look."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.card_history import DAY_MS, START_MS, card_history, written
from threadpoolctl import threadpool_limits

from fraudstream.models.artefact import Artefact
from fraudstream.models.registry import Registry
from fraudstream.models.train import TrainSettings, train


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """OpenMP's threads spin while they wait: on a busy machine a small fit takes many times as long with two."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def history_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty days from 2018-05-01 as Parquet."""
    return written(card_history(), tmp_path_factory.mktemp("history") / "history.parquet")


@pytest.fixture(scope="session")
def settings(history_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """Thirty-five days to train on; labels a week late, ten alerts a day."""
    return TrainSettings(
        transactions=history_file,
        registry=tmp_path_factory.mktemp("registry"),
        from_ms=START_MS,
        until_ms=START_MS + 35 * DAY_MS,
        label_delay_ms=7 * DAY_MS,
        alerts_per_day=10.0,
        block_precision=0.9,
    )


@pytest.fixture(scope="session")
def artefact(settings: TrainSettings) -> Artefact:
    """Version 1 of `fraud`, as loaded from its registry. Tests that change anything work on a copy of the directory."""
    manifest = train(settings)
    return Registry(settings.registry).load(manifest.name, manifest.version)

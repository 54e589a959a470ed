"""What the integration tests share: a simulated history and a model trained on it, made once by the commands."""

import os
from pathlib import Path

import pytest
from tests.support.system import run_ok


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100,000 labelled transactions of 45 days, as Parquet."""
    file = tmp_path_factory.mktemp("history") / "history.parquet"
    run_ok(
        "fraudstream-simulate", "--to", str(file), "--days", "45", "--cards", "1200", "--terminals", "2000", "--quiet"
    )
    return file


@pytest.fixture(scope="session")
def registry(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one model trained on the history."""
    directory = tmp_path_factory.mktemp("registry")
    run_ok(
        "fraudstream", "train", "--transactions", str(history), "--from", "2025-01-08", "--until", "2025-02-10",
        "--label-delay", "7d", "--registry", str(directory),
    )  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The labelled file that FRAUDSTREAM_DATA names; the test is skipped without it."""
    path = os.environ.get("FRAUDSTREAM_DATA")
    if not path or not Path(path).is_file():
        pytest.skip("FRAUDSTREAM_DATA names no file: set it to a labelled Parquet file of transactions")
    return Path(path)

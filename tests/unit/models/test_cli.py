"""The commands as a user runs them: output, files, and one line where something is wrong."""

import json
from pathlib import Path

import pytest

from fraudstream import cli
from fraudstream.models.artefact import Artefact
from fraudstream.models.train import TrainSettings


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Run `fraudstream WORDS`: exit code, stdout, stderr."""
    monkeypatch.setattr("sys.argv", ["fraudstream", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    code = ended.value.code
    return code if isinstance(code, int) else 0, out, err


def test_train_then_evaluate_then_show(
    history_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version is trained, listed, shown and backtested, with figures as JSON and a page."""
    registry = ("--registry", str(tmp_path / "registry"))
    data = ("--transactions", str(history_file), "--quiet")
    code, out, _ = run(
        capsys, monkeypatch, "train", *data, *registry, "--from", "2018-05-01", "--until", "2018-06-05",
        "--label-delay", "7d", "--alerts-per-day", "10", "--estimator", "sklearn.ensemble.ExtraTreesClassifier",
        "--params", '{"n_estimators": 15, "max_depth": 7}',
    )  # fmt: skip
    assert code == 0
    assert "fraud version 1 (champion)" in out
    assert "AUC ROC" in out
    code, out, _ = run(
        capsys, monkeypatch, "evaluate", *data, *registry, "--from", "2018-06-05", "--until", "2018-06-10",
        "--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "e.html"),
    )  # fmt: skip
    assert code == 0
    assert "2018-06-09" in out
    assert json.loads((tmp_path / "e.json").read_text())["metrics"]["auc"] > 0.5
    assert (tmp_path / "e.html").read_text().startswith("<!DOCTYPE html>")
    code, out, _ = run(capsys, monkeypatch, "models", "list", *registry)
    assert (code, out.split()[:3]) == (0, ["*", "fraud", "1"])
    assert "ExtraTreesClassifier" in out
    assert run(capsys, monkeypatch, "models", "show", *registry)[1].startswith("# Model card: fraud, version 1")
    shown = run(capsys, monkeypatch, "models", "show", *registry, "--json", "--version", "1")[1]
    assert json.loads(shown)["training"]["params"] == {"n_estimators": 15, "max_depth": 7}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train", "--transactions", "none.parquet", "--from", "2018-05-01", "--until", "2018-06-05"], "no such file"),
        (["train", "--transactions", "x", "--from", "May", "--until", "2018-06-05"], "'May' is not a time"),
        (
            ["train", "--transactions", "x", "--from", "2018-05-01", "--until", "2018-06-05", "--label-delay", "soon"],
            "'soon' is not a duration",
        ),
        (
            ["train", "--transactions", "x", "--from", "2018-05-01", "--until", "2018-06-05", "--params", "[1]"],
            "--params is not a JSON object",
        ),
        (["evaluate", "--transactions", "x", "--from", "2018-05-01", "--until", "2018-06-05"], "no model 'fraud'"),
        (["models", "show"], "no model 'fraud'"),
        (["models", "list", "--name", "cards"], "no model 'cards'"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    complaint: str,
) -> None:
    """What cannot be done is said in one line on stderr that begins with the program's name."""
    code, out, err = run(capsys, monkeypatch, *words, "--registry", str(tmp_path))
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith("fraudstream: ")
    assert complaint in lines[0]


def test_a_tampered_version_is_not_evaluated(
    artefact: Artefact,
    settings: TrainSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that is not the registered one ends an evaluation with its name and exit code 2."""
    version = tmp_path / "fraud" / "1"
    version.mkdir(parents=True)
    for file in (settings.registry / "fraud" / "1").iterdir():
        (version / file.name).write_bytes(file.read_bytes() + (b" " if file.name == "model.onnx" else b""))
    words = ("--transactions", str(settings.transactions), "--from", "2018-06-05", "--until", "2018-06-10")
    code, _, err = run(capsys, monkeypatch, "evaluate", *words, "--registry", str(tmp_path), "--version", "1")
    assert code == 2
    assert "model.onnx is not the file that was registered" in err


@pytest.mark.parametrize("command", [["train"], ["evaluate"], ["models", "list"], ["models", "show"]])
def test_help_shows_options(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command says what it does and takes."""
    code, out, _ = run(capsys, monkeypatch, *command, "--help")
    assert code == 0
    assert "--registry" in out

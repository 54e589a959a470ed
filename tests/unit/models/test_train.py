"""Training: honest about what is known when, the same for the same seed, and registered only if it proves itself."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from tests.support.card_history import DAY_MS, START_MS

from fraudstream.core.features import FeatureSet
from fraudstream.errors import ModelError, SettingsError
from fraudstream.models import estimators, train
from fraudstream.models.artefact import BASELINE, CARD, GOLDEN, MODEL, Artefact, Matrix
from fraudstream.models.baseline import count_bins, edges_of
from fraudstream.models.estimators import LEGIT_ROWS_MIN, fit, legit_share_for, make_estimator
from fraudstream.models.export import to_onnx
from fraudstream.models.history import replay
from fraudstream.models.history_file import BoolArray, History
from fraudstream.models.registry import Registry
from fraudstream.models.train import TrainSettings


def scaled_regression(strength: float = 1.0) -> Pipeline:
    """An estimator that is a function of this module, as a user may bring one."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength))


# --- what a version holds ----------------------------------------------------------------------------------------------


def test_the_manifest_tells_where_the_version_comes_from(artefact: Artefact, settings: TrainSettings) -> None:
    """Range, label delay, estimator, seed, rows, libraries and parity are those of the training."""
    manifest = artefact.manifest
    training = manifest.training
    assert (training.from_time, training.until_time) == ("2018-05-01T00:00:00.000Z", "2018-06-05T00:00:00.000Z")
    assert training.labels_known_until == "2018-05-29T00:00:00.000Z"
    assert (training.label_delay_ms, training.seed) == (7 * DAY_MS, 0)
    assert training.transactions == 28 * 300 + _off_by(settings, START_MS, START_MS + 28 * DAY_MS)
    assert manifest.parity.max_abs_difference < manifest.parity.tolerance
    assert manifest.libraries.keys() >= {"python", "numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime"}
    assert artefact.feature_set().names == FeatureSet.default().names


def _off_by(settings: TrainSettings, from_ms: int, until_ms: int) -> int:
    """How many more than 300 a day the random history has in a range."""
    times = np.concatenate([c.times_ms for c in History(settings.transactions, settings.features).chunks()])
    inside = int(np.count_nonzero((times >= from_ms) & (times < until_ms)))
    return inside - 300 * ((until_ms - from_ms) // DAY_MS)


def test_the_baseline_is_that_of_the_newest_stretch(artefact: Artefact, settings: TrainSettings) -> None:
    """Bins and counts are those of the week before `until`, which was not fitted; medians those of what was."""
    baseline = artefact.baseline()
    newest = _matrix(settings, settings.until_ms - 7 * DAY_MS, settings.until_ms)[0]
    fitted, frauds = _matrix(settings, settings.from_ms, settings.known_until_ms)
    assert baseline.transactions == len(newest)
    for at, name in enumerate(settings.features.names):
        feature = baseline.features[name]
        assert sum(feature.counts) == len(newest)
        for bin_, count in enumerate(feature.counts):
            low = feature.edges[bin_ - 1] if bin_ else -math.inf
            high = feature.edges[bin_] if bin_ < len(feature.edges) else math.inf
            assert count == np.count_nonzero((newest[:, at] > low) & (newest[:, at] <= high))
        assert feature.legit_median == pytest.approx(float(np.median(fitted[~frauds][:, at])))
        assert (feature.low, feature.high) == (newest[:, at].min(), newest[:, at].max())
    monitor = baseline.monitor(settings.features)
    assert [name for name in monitor.sums if name.startswith("outside")] == ["outside.amount"]
    assert sum(baseline.score.counts) == len(newest)


def _matrix(settings: TrainSettings, from_ms: int, until_ms: int) -> tuple[Matrix, BoolArray]:
    history = History(settings.transactions, settings.features)
    parts = list(replay(settings.features, history, from_ms=from_ms, until_ms=until_ms))
    return np.concatenate([part.matrix for part in parts]), np.concatenate([part.frauds for part in parts])


def test_a_frequent_value_has_a_bin_of_its_own() -> None:
    """Where most values are equal, edges stay distinct and no bin is empty."""
    values = np.array([0.0] * 90 + [1.0] * 5 + [2.0] * 5)
    edges = edges_of(values, (0.1, 0.5, 0.9, 0.93))
    assert edges.tolist() == [0.0, 1.0]
    assert count_bins(values, edges) == [90, 5, 5]
    assert count_bins(np.array([-1.0, 0.5, 9.0]), edges) == [1, 1, 1]


def test_the_thresholds_keep_to_the_budget(artefact: Artefact, settings: TrainSettings) -> None:
    """On the newest week, which it has not seen, the version alerts ten times a day; blocks are a part of that."""
    newest = _matrix(settings, settings.until_ms - 7 * DAY_MS, settings.until_ms)[0]
    scores = train.OnnxScorer(artefact.files[MODEL], newest.shape[1])(newest)
    assert 9.0 <= np.count_nonzero(scores >= artefact.manifest.thresholds.review) / 7 <= 10.0
    block = artefact.manifest.thresholds.block
    assert block is None or block >= artefact.manifest.thresholds.review


def test_the_card_tells_the_figures_of_the_manifest(artefact: Artefact) -> None:
    """The model card names use, data, quality by slice, thresholds, limits and libraries."""
    card = artefact.files[CARD].decode()
    for heading in ("Intended use", "Data", "Model", "Quality", "Thresholds", "Limits", "Libraries"):
        assert f"## {heading}" in card
    assert "| amount below 25 |" in card
    assert f"{artefact.manifest.thresholds.review:.6g}" in card


# --- what is known when ------------------------------------------------------------------------------------------------


def test_labels_that_are_not_known_yet_change_nothing(settings: TrainSettings, tmp_path: Path) -> None:
    """With every label younger than the delay turned around, the same model comes out, and the same validation."""
    from tests.support.card_history import card_history, table, written

    history = card_history()
    times = history["event_time"].cast("int64").to_numpy()
    frauds = history["is_fraud"].to_numpy()
    turned = np.where(times >= settings.known_until_ms, ~frauds, frauds)
    columns = [history[name] for name in ("transaction_id", "card_id", "terminal_id", "amount")]
    other = table(columns[0], times, columns[1], columns[2], columns[3], turned)
    one = _trained(settings, tmp_path / "one")
    two = _trained(replace(settings, transactions=written(other, tmp_path / "turned.parquet")), tmp_path / "two")
    assert one.files == {**two.files, CARD: one.files[CARD]}
    assert one.manifest.validation == two.manifest.validation


def _trained(settings: TrainSettings, directory: Path, **changes: Any) -> Artefact:
    train.train(replace(settings, registry=directory, **changes))
    return Registry(directory).load(settings.name, "latest")


def test_the_same_seed_gives_the_same_bytes(artefact: Artefact, settings: TrainSettings, tmp_path: Path) -> None:
    """Model, baseline and golden rows of a second training are the same files."""
    again = _trained(settings, tmp_path)
    for file in (MODEL, BASELINE, GOLDEN):
        assert again.manifest.files[file] == artefact.manifest.files[file]


def test_another_seed_gives_another_model(settings: TrainSettings, tmp_path: Path) -> None:
    """An estimator that draws lots draws the same ones for a seed, and others for another."""
    forest = replace(
        settings, estimator="sklearn.ensemble.ExtraTreesClassifier", params={"n_estimators": 5, "max_depth": 6}
    )
    digests = [_trained(forest, tmp_path, seed=seed).manifest.files[MODEL] for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


# --- estimators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("sklearn.ensemble.ExtraTreesClassifier", {"n_estimators": 20, "max_depth": 8}),
        ("sklearn.ensemble.GradientBoostingClassifier", {"n_estimators": 20}),
        (f"{__name__}.scaled_regression", {"strength": 0.5}),
    ],
)
def test_any_classifier_can_be_trained(
    settings: TrainSettings, tmp_path: Path, path: str, params: Mapping[str, Any]
) -> None:
    """A class or a function by its import path is fitted, exported and registered."""
    made = _trained(settings, tmp_path, estimator=path, params=params)
    assert made.manifest.training.estimator == path
    assert made.manifest.training.params == params
    assert (made.manifest.validation.metrics["auc"] or 0.0) > 0.6


def test_the_seed_goes_to_every_part_that_takes_one() -> None:
    """random_state is set wherever it was not given, inside a pipeline too."""
    estimator = make_estimator(f"{__name__}.scaled_regression", {}, 5)
    assert estimator.get_params()["logisticregression__random_state"] == 5
    assert make_estimator("sklearn.ensemble.ExtraTreesClassifier", {"random_state": 9}, 5).random_state == 9
    assert isinstance(make_estimator("sklearn.ensemble.ExtraTreesClassifier", {}, 5), ExtraTreesClassifier)


@pytest.mark.parametrize(
    ("path", "params", "complaint"),
    [
        ("sklearn.ensemble.NoSuchThing", {}, "not found"),
        ("no_such_module.Thing", {}, "not found"),
        ("Thing", {}, "not found"),
        ("sklearn.ensemble.ExtraTreesClassifier", {"trees": 3}, "does not take"),
        ("sklearn.linear_model.LinearRegression", {}, "not a scikit-learn classifier"),
        ("sklearn.svm.LinearSVC", {}, "gives no probabilities"),
        ("builtins.dict", {}, "not a scikit-learn classifier"),
    ],
)
def test_what_is_no_classifier_is_said_before_anything_is_read(
    settings: TrainSettings, path: str, params: Mapping[str, Any], complaint: str
) -> None:
    """A wrong import path, parameter or kind of estimator ends at once with one line."""
    with pytest.raises(SettingsError, match=complaint):
        train.train(replace(settings, transactions=Path("not read"), estimator=path, params=params))


def test_a_parameter_that_only_fit_refuses_is_said(settings: TrainSettings, tmp_path: Path) -> None:
    """An error of the estimator's own fit becomes one line."""
    with pytest.raises(SettingsError, match="cannot be fitted") as caught:
        _trained(settings, tmp_path, estimator="sklearn.ensemble.ExtraTreesClassifier", params={"max_depth": -3})
    assert "\n" not in str(caught.value)


def test_sampling_keeps_frauds_and_corrects_scores() -> None:
    """A model of a tenth of the legitimate transactions gives the fraud rate of all of them."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(300_000, 2)).astype(np.float32)
    frauds = rng.random(300_000) < 1 / (1 + np.exp(5.0 - 2.0 * matrix[:, 0].astype(float)))
    fitted = fit(f"{__name__}.scaled_regression", {}, matrix, frauds, legit_share=0.1, seed=0)
    assert fitted.legit_share == 0.1
    assert fitted.score(matrix).mean() == pytest.approx(frauds.mean(), rel=0.05)


def test_few_legitimate_transactions_are_all_kept() -> None:
    """Sampling never leaves fewer than the minimum where there are as many."""
    assert legit_share_for(LEGIT_ROWS_MIN // 2, 0.1) == 1.0
    assert legit_share_for(LEGIT_ROWS_MIN * 2, 0.1) == 0.5
    assert legit_share_for(LEGIT_ROWS_MIN * 100, 0.1) == 0.1


def test_a_short_history_is_halved(settings: TrainSettings) -> None:
    """With less than a week to hold out and a week to fit, half of the days there are is held out; more than a week never."""
    days = [replace(settings, until_ms=START_MS + n * DAY_MS).validation_ms / DAY_MS for n in (15, 16, 19, 28, 90)]
    assert days == [0.5, 1, 2, 7, 7]


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"until_ms": START_MS + 14 * DAY_MS}, "is too short: 14 days go to"),
        ({"until_ms": START_MS + 20 * DAY_MS, "validation": 6 * DAY_MS}, "is too short: 20 days go to"),
        (
            {"from_ms": START_MS + 400 * DAY_MS, "until_ms": START_MS + 440 * DAY_MS},
            "ends at 2018-06-09T.*, before the validation begins",
        ),
        ({"from_ms": START_MS - 99 * DAY_MS, "until_ms": START_MS - 50 * DAY_MS}, "no transactions from 2018-01-22"),
        ({"label_delay_ms": 8 * DAY_MS}, "it would look into the future"),
        ({"validation": 3_600_000}, r"\d frauds in the validation"),
        (
            {"from_ms": START_MS + 14 * DAY_MS - 1000, "validation": 7 * DAY_MS},
            r"\d frauds among \d+ transactions to fit",
        ),
        ({"legit_share": 0.0}, "legit share and block precision"),
        ({"alerts_per_day": 0.0}, "alerts per day above 0"),
        ({"transactions": Path("none.parquet")}, "no such file"),
        ({"name": "../up"}, "is not a model name"),
    ],
)
def test_what_cannot_be_trained_is_said(
    settings: TrainSettings, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    """A range, file, name or option that cannot work ends with one line, and nothing is registered."""
    with pytest.raises((SettingsError, ModelError), match=complaint):
        train.train(replace(settings, registry=tmp_path, **changes))
    assert Registry(tmp_path).names() == []


def test_an_export_that_differs_is_not_registered(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one leaf moved on the way to ONNX, the version is refused and the registry stays as it was."""

    def moved(estimator: Any, width: int, *, legit_share: float) -> bytes:
        model = onnx.load_from_string(to_onnx(estimator, width, legit_share=legit_share))
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "target_weights":
                    attribute.floats[-1] += 0.5
        return bytes(model.SerializeToString())

    monkeypatch.setattr(train, "to_onnx", moved)
    with pytest.raises(ModelError, match="not registered"):
        _trained(settings, tmp_path)
    assert Registry(tmp_path).names() == []


class Unheard(DecisionTreeClassifier):  # type: ignore[misc] # scikit-learn has no types
    """A classifier that no exporter knows."""


def test_an_estimator_without_exporter_is_refused(settings: TrainSettings, tmp_path: Path) -> None:
    """The line names the class and says to choose another."""
    with pytest.raises(ModelError, match="Unheard has no ONNX exporter: choose another estimator"):
        _trained(settings, tmp_path, estimator=f"{__name__}.Unheard")


def test_the_default_is_the_measured_one() -> None:
    """The default estimator and its parameters are those that docs/decisions/default-model.md measured."""
    estimator = make_estimator(estimators.DEFAULT_ESTIMATOR, estimators.DEFAULT_PARAMS, 0)
    assert isinstance(estimator, HistGradientBoostingClassifier)
    page = (Path(__file__).parents[3] / "docs" / "decisions" / "default-model.md").read_text("utf-8")
    for key, value in estimators.DEFAULT_PARAMS.items():
        assert f"{key}={value}" in page


def test_progress_is_told_stage_by_stage(settings: TrainSettings, tmp_path: Path) -> None:
    """Reading tells how far it is and ends complete; every later stage is told once."""
    told: list[tuple[str, int, int]] = []
    train.train(replace(settings, registry=tmp_path), lambda *step: told.append(step))
    reading = [step for step in told if step[0] == "read"]
    assert reading[-1][1] == reading[-1][2] > 0
    assert list(dict.fromkeys(stage for stage, *_ in told)) == [
        "read",
        "fit for validation",
        "fit",
        "export and compare",
        "register",
    ]


def test_a_manifest_survives_its_file(artefact: Artefact) -> None:
    """What is decoded from the file is what was encoded, feature list included."""
    again = msgspec.json.decode(msgspec.json.encode(artefact.manifest), type=type(artefact.manifest))
    assert again == artefact.manifest
    assert again.is_sealed()

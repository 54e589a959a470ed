"""A version that decides: the same answers however it is asked, and no answer at all when it is not itself."""

import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraudstream.core.features import FeatureSet
from fraudstream.errors import ModelError
from fraudstream.models.artefact import MODEL, Artefact, Golden, Matrix
from fraudstream.models.champion import OnnxModel, OnnxScorer
from fraudstream.models.export import check_parity, corrected, floor32, to_onnx
from fraudstream.models.history_file import BoolArray


@pytest.fixture(scope="module")
def rows() -> tuple[Matrix, BoolArray]:
    """Features with cents and ties, labels that depend on two of them."""
    rng = np.random.default_rng(0)
    matrix = np.round(rng.gamma(2.0, 30.0, (4000, 5)), 2).astype(np.float32)
    return matrix, matrix[:, 0] * matrix[:, 1] + rng.normal(0, 500, 4000) > 9000


def broken(model: bytes) -> bytes:
    """The same graph with one leaf of its trees moved."""
    graph = onnx.load_from_string(model)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name == "target_weights":
                attribute.floats[0] += 1.0
    return graph.SerializeToString()


ESTIMATORS = [
    HistGradientBoostingClassifier(max_iter=30, random_state=0),
    RandomForestClassifier(20, max_depth=8, random_state=0),
    make_pipeline(StandardScaler(), LogisticRegression()),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("legit_share", [1.0, 0.1])
def test_an_export_gives_the_estimators_scores(
    rows: tuple[Matrix, BoolArray], estimator: object, legit_share: float
) -> None:
    """Within float32 of the estimator's own probabilities, corrected for sampling, and no decision differs."""
    matrix, frauds = rows
    fitted = estimator.fit(matrix, frauds.astype(int))  # type: ignore[attr-defined]
    expected = corrected(fitted.predict_proba(matrix)[:, 1], legit_share)
    parity = check_parity(to_onnx(fitted, 5, legit_share=legit_share), matrix, expected, [0.1, 0.5])
    assert parity.rows == len(matrix)
    assert parity.max_abs_difference < 1e-5
    assert parity.decision_flips == 0


def test_a_score_does_not_depend_on_its_batch(rows: tuple[Matrix, BoolArray]) -> None:
    """A row scores the same to the last bit alone, in a batch, and in another order."""
    matrix, frauds = rows
    for estimator in ESTIMATORS[:2]:
        score = OnnxScorer(to_onnx(estimator.fit(matrix, frauds.astype(int)), 5), 5)
        together = score(matrix[:300])
        assert np.concatenate([score(matrix[at : at + 1]) for at in range(300)]).tolist() == together.tolist()
        assert score(matrix[:300][::-1]).tolist() == together[::-1].tolist()
        assert score(matrix[:0]).shape == (0,)


def test_a_broken_export_is_refused(rows: tuple[Matrix, BoolArray]) -> None:
    """One moved leaf among thirty trees is seen, with how far it moves the scores."""
    matrix, frauds = rows
    fitted = ESTIMATORS[0].fit(matrix, frauds.astype(int))
    expected = fitted.predict_proba(matrix)[:, 1]
    with pytest.raises(ModelError, match=r"differs from the estimator by up to 0\.\d+"):
        check_parity(broken(to_onnx(fitted, 5)), matrix, expected, [0.5])


def test_scores_on_a_threshold_are_refused(rows: tuple[Matrix, BoolArray]) -> None:
    """If rounding alone decides more than a thousandth of the rows, the export is refused, close as its scores are."""
    matrix, frauds = rows
    fitted = ESTIMATORS[0].fit(matrix, frauds.astype(int))
    same = np.repeat(matrix[:1], 100, axis=0)
    expected = fitted.predict_proba(same)[:, 1]
    with pytest.raises(ModelError, match="decides 100 of 100 rows otherwise"):
        check_parity(to_onnx(fitted, 5), same, expected + 1e-5, [float(expected[0]) + 5e-6])


def test_thresholds_are_rounded_so_that_splits_stay_exact() -> None:
    """X <= t holds for a float32 x just if it holds for the rounded t, also half way between two float32."""
    below = np.float32(0.1)
    above = np.nextafter(below, np.float32(1))
    between = (float(below) + float(above)) / 2
    rounded = floor32(np.array([between, float(below), float(above), -between, 1e40]))
    assert rounded.tolist()[:4] == [float(below), float(below), float(above), -float(above)]
    assert rounded[4] == np.finfo(np.float32).max


def test_another_shape_of_model_is_refused(rows: tuple[Matrix, BoolArray]) -> None:
    """A graph with other columns, or bytes that are no graph, are no scorer."""
    matrix, frauds = rows
    model = to_onnx(ESTIMATORS[0].fit(matrix, frauds.astype(int)), 5)
    with pytest.raises(ValueError, match="its inputs are"):
        OnnxScorer(model, 6)
    for data in (b"no model", b""):
        with pytest.raises(ValueError, match="ONNXRuntimeError"):
            OnnxScorer(data, 5)


# --- a registered version ----------------------------------------------------------------------------------------------


def test_a_version_serves_the_port(artefact: Artefact) -> None:
    """Name, version, digest and thresholds are the manifest's; scores are probabilities."""
    model = OnnxModel(artefact, FeatureSet.default())
    assert (model.name, model.version) == ("fraud", "1")
    assert model.features_digest == FeatureSet.default().digest
    assert 0 < model.review_threshold <= model.block_threshold
    scores = model.score(artefact.golden().matrix).score
    assert scores.dtype == np.float64
    assert 0 <= scores.min() < scores.max() <= 1


def test_blocking_that_is_off_is_never_reached(artefact: Artefact) -> None:
    """Without a block threshold, no score blocks, not even 1."""
    thresholds = msgspec.structs.replace(artefact.manifest.thresholds, block=None)
    model = OnnxModel(replace(artefact, manifest=msgspec.structs.replace(artefact.manifest, thresholds=thresholds)))
    assert model.block_threshold > 1.0


def test_another_feature_list_is_refused(artefact: Artefact) -> None:
    """A version meets only the list it was trained on."""
    other = FeatureSet.parse('[features]\namount = { field = "amount" }')
    with pytest.raises(ModelError, match="was trained on another feature list"):
        OnnxModel(artefact, other)


def test_a_list_that_is_not_the_digests_is_refused(artefact: Artefact) -> None:
    """If the declaration in the manifest compiles to another digest, the version does not decide."""
    features = msgspec.structs.replace(artefact.manifest.features, digest="0" * 64)
    with pytest.raises(ModelError, match="its feature list is not the one it was trained on"):
        OnnxModel(replace(artefact, manifest=msgspec.structs.replace(artefact.manifest, features=features)))


def test_golden_rows_that_come_out_otherwise_are_refused(artefact: Artefact) -> None:
    """A runtime or a file that computes other scores than at registration never decides."""
    golden = artefact.golden()
    moved = Golden(golden.matrix, golden.scores + np.eye(1, len(golden.scores))[0] * 0.01)
    with pytest.raises(ModelError, match=r"differs by 0\.01 from the scores it was registered with"):
        OnnxModel(replace(artefact, files={**artefact.files, "golden.npz": moved.to_bytes()}))


@pytest.mark.parametrize(
    ("file", "data", "complaint"),
    [
        (MODEL, b"no model", "model.onnx cannot be loaded"),
        ("golden.npz", b"no rows", "golden.npz cannot be read"),
        ("baseline.json", b"{}", "baseline.json cannot be read"),
    ],
)
def test_a_part_that_cannot_be_read_is_named(artefact: Artefact, file: str, data: bytes, complaint: str) -> None:
    """Even with a right sha256, bytes that make no sense end with one line, not with a library's own error."""
    with pytest.raises(ModelError, match=complaint) as caught:
        OnnxModel(replace(artefact, files={**artefact.files, file: data}))
    assert "\n" not in str(caught.value)


def test_a_worker_needs_no_training_library() -> None:
    """Loading and serving a model imports neither scikit-learn nor the exporter nor Arrow."""
    code = (
        "import sys, fraudstream.models.champion, fraudstream.models.registry;"
        "sys.exit(bool({'sklearn', 'scipy', 'skl2onnx', 'onnx', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0

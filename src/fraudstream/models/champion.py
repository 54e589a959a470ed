"""A model version that decides: onnxruntime with one thread, and nothing else of the machine-learning libraries.

One thread, because a worker has one core's worth of work and idle helpers that spin take it from its neighbours: with
default threads the slowest single answers of a busy two-core host took 24 to 737 ms, with one thread below 0.1 ms.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from fraudstream.core.census import Monitor
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Scores
from fraudstream.core.windows import FloatArray
from fraudstream.errors import ModelError
from fraudstream.events import Contribution
from fraudstream.models.artefact import MODEL, Artefact, Matrix
from fraudstream.models.explain import Explainer

INPUT: Final = "features"
OUTPUT: Final = "score"
_ERRORS_ONLY: Final = 3


class OnnxScorer:
    """An exported model: (n, features) float32 in, (n,) probabilities out.

    Raises
    ------
    ValueError
        If the bytes are no model, or one with other inputs and outputs.
    """

    def __init__(self, model: bytes, width: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session: Any = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise ValueError(" ".join(str(error).split())[:300]) from error
        inputs = [(node.name, node.shape[1:]) for node in self._session.get_inputs()]
        if inputs != [(INPUT, [width])] or [node.name for node in self._session.get_outputs()] != [OUTPUT]:
            raise ValueError(
                f"its inputs are {inputs}, not {INPUT} with {width} columns, or its output is not {OUTPUT}"
            )

    def __call__(self, matrix: Matrix) -> FloatArray:
        """Probability of fraud for each row."""
        if not len(matrix):
            return np.zeros(0)
        (scores,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(matrix, np.float32)})
        flat: FloatArray = np.asarray(scores, np.float64).reshape(-1)
        return flat


class OnnxModel:
    """A registered version, ready to decide (`core.ports.Model`).

    Parameters
    ----------
    artefact
        A verified version of the registry.
    features
        The feature list that will feed it; by default the version's own.

    Raises
    ------
    ModelError
        If the version was trained on another feature list, cannot be loaded, or does not give the golden answers.
    """

    def __init__(self, artefact: Artefact, features: FeatureSet | None = None) -> None:
        manifest = artefact.manifest
        self.features = own = artefact.feature_set()
        if features is not None and features.digest != own.digest:
            raise ModelError(
                f"{artefact.label} was trained on another feature list (digest {own.digest[:12]}, not "
                f"{features.digest[:12]}); use the version's own list or train a version on this one"
            )
        self._name, self._version, self._digest = manifest.name, str(manifest.version), own.digest
        self._review = manifest.thresholds.review
        self._block = math.inf if manifest.thresholds.block is None else manifest.thresholds.block
        try:
            self._scorer = OnnxScorer(artefact.files[MODEL], len(own.names))
        except ValueError as error:
            raise ModelError(f"{artefact.label}: {MODEL} cannot be loaded: {error}") from error
        self._check_golden(artefact)
        baseline = artefact.baseline()
        self._explainer = Explainer(own, baseline.features, self._scorer)
        self._monitor = baseline.monitor(own)
        self.reference = baseline.reference(own)

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @property
    def features_digest(self) -> str:
        return self._digest

    @property
    def review_threshold(self) -> float:
        return self._review

    @property
    def block_threshold(self) -> float:
        """Infinite where blocking is off: no score reaches it."""
        return self._block

    @property
    def monitor(self) -> Monitor:
        return self._monitor

    def score(self, matrix: Matrix) -> Scores:
        """Probabilities of fraud for each row of an (n, features) matrix."""
        return Scores.alone(self._scorer(matrix))

    def reasons(self, matrix: Matrix) -> Sequence[tuple[Contribution, ...]]:
        """Up to four reasons for each row, the largest first."""
        return self._explainer.reasons(matrix)

    def _check_golden(self, artefact: Artefact) -> None:
        golden, tolerance = artefact.golden(), artefact.manifest.parity.tolerance
        try:
            difference = float(np.max(np.abs(self._scorer(golden.matrix) - golden.scores), initial=0.0))
        except Exception as error:  # whatever the runtime raises, this model does not decide
            raise ModelError(f"{artefact.label}: its golden rows cannot be scored: {error}") from error
        if not difference <= tolerance:
            raise ModelError(
                f"{artefact.label}: on its golden rows it differs by {difference:.2g} from the scores it was registered "
                f"with (tolerance {tolerance:g}): this onnxruntime {ort.__version__} computes it otherwise; train anew"
            )

"""The online model: a river classifier over the features and the champion's logit, and the plain data it is kept as.

The default is `StandardScaler | LogisticRegression` on top of the champion: its log-odds are the offset to which the
regression adds, so with every weight at 0, as it begins after a warm-up that only measures means and deviations, it is the
champion. From there each verdict moves it, unweighted, so that its probabilities stay probabilities however rare frauds are.
"""

import hashlib
import hmac
import importlib
import math
import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from msgspec import Struct
from river import linear_model, optim, preprocessing, utils
from river.__version__ import __version__ as river_version

from fraudstream.core.online import DEVIATIONS_MAX, Linear, logit
from fraudstream.core.spec import CHAMPION_LOGIT
from fraudstream.core.windows import FloatArray
from fraudstream.errors import ModelError, SettingsError
from fraudstream.models.artefact import Matrix

Inputs = dict[str, float]

_SIGNATURE_BYTES: Final = 32  # HMAC-SHA256
PICKLE_BYTES_MAX: Final = 64_000_000
"""A pickled model is written with every micro-batch and read by every scorer: above this it is no online model."""


class UnreadableSnapshot(ModelError):  # noqa: N818 - names the thing that is wrong, as the other errors do
    """A snapshot that cannot be trusted or read. The learner rebuilds it from the topic."""


class OnlineModel(Protocol):
    """A classifier that learns one example at a time."""

    def ready(self) -> bool:
        """Whether it has seen enough to be asked."""

    def probability(self, inputs: Inputs) -> float:
        """Probability of fraud. May be no number, if it was ruined; then it must not learn on."""

    def learn(self, inputs: Inputs, is_fraud: bool, weight: float) -> None: ...

    def dump(self) -> bytes:
        """What `load` of the same settings reads back to a model that goes on the same, to the last bit."""

    def load(self, data: bytes) -> None:
        """Go on from a dump. Raises `UnreadableSnapshot`."""

    def arrays(self, names: Sequence[str]) -> Linear | None:
        """The model as arrays for scorers; None if it has no such form (then they load the dump)."""


class _LinearState(Struct, forbid_unknown_fields=True):
    """JSON writes each double as the shortest text that reads back as the same double."""

    river: str
    seen: int
    counts: dict[str, int]
    means: dict[str, float]
    variances: dict[str, float]
    weights: dict[str, float]
    intercept: float
    steps: int


class RiverLinear:
    """The default: river's `StandardScaler` and `LogisticRegression`, with scaled inputs kept within DEVIATIONS_MAX."""

    def __init__(self, *, learning_rate: float, l2: float, warm_up: int) -> None:
        self._warm_up = warm_up
        self._seen = 0
        # Any: river leaves the signatures of its methods untyped.
        self._scaler: Any = preprocessing.StandardScaler()
        self._regression: Any = linear_model.LogisticRegression(
            optim.SGD(learning_rate), intercept_lr=learning_rate, l2=l2
        )

    def ready(self) -> bool:
        return self._seen >= self._warm_up

    def probability(self, inputs: Inputs) -> float:
        regression, scaled = self._regression, self._scaled(inputs)
        intercept = regression.intercept
        regression.intercept = intercept + inputs[CHAMPION_LOGIT]
        found = float(regression.predict_proba_one(scaled)[True])
        regression.intercept = intercept
        return found

    def learn(self, inputs: Inputs, is_fraud: bool, weight: float) -> None:
        self._scaler.learn_one(inputs)
        self._seen += 1
        if self._seen <= self._warm_up:
            return
        # river knows no offset; for one step the intercept carries it.
        regression = self._regression
        intercept = regression.intercept
        regression.intercept = with_offset = intercept + inputs[CHAMPION_LOGIT]
        regression.learn_one(self._scaled(inputs), is_fraud, weight)
        regression.intercept = intercept + (regression.intercept - with_offset)

    def dump(self) -> bytes:
        return msgspec.json.encode(
            _LinearState(
                river=river_version,
                seen=self._seen,
                counts=dict(self._scaler.counts),
                means=dict(self._scaler.means),
                variances=dict(self._scaler.vars),
                weights=dict(self._regression.weights),
                intercept=float(self._regression.intercept),
                steps=self._regression.optimizer.n_iterations,
            )
        )

    def load(self, data: bytes) -> None:
        """Go on from a dump. Raises `UnreadableSnapshot`."""
        try:
            state = msgspec.json.decode(data, type=_LinearState)
        except msgspec.MsgspecError as error:
            raise UnreadableSnapshot(f"the online model's weights cannot be read: {error}") from error
        self._seen = state.seen
        self._scaler.counts.update(state.counts)
        self._scaler.means.update(state.means)
        self._scaler.vars.update(state.variances)
        self._set(state.weights, state.intercept)
        self._regression.optimizer.n_iterations = state.steps

    def arrays(self, names: Sequence[str]) -> Linear:
        weights = self._regression.weights
        inputs = (*names, CHAMPION_LOGIT)
        return Linear.of(
            [self._scaler.means.get(name, 0.0) for name in inputs],
            [self._scaler.vars.get(name, 0.0) for name in inputs],
            [weights.get(name, 0.0) for name in inputs],
            self._regression.intercept,
        )

    def _scaled(self, inputs: Inputs) -> Inputs:
        scaled: Inputs = self._scaler.transform_one(inputs)
        for name, value in scaled.items():
            if not -DEVIATIONS_MAX <= value <= DEVIATIONS_MAX:
                scaled[name] = math.copysign(DEVIATIONS_MAX, value)
        return scaled

    def _set(self, weights: Mapping[str, float], intercept: float) -> None:
        self._regression._weights = utils.VectorDict(dict(weights))  # river has no other way in
        self._regression.intercept = intercept


class AnyRiver:
    """Any river classifier by its import path, kept as a signed pickle.

    A pickle runs what it says when it is read. So it is read only if its signature shows that it was written by a holder
    of the key, and for these settings and these versions of river and Python.
    """

    def __init__(self, path: str, params: Mapping[str, Any], key: bytes) -> None:
        if not key:
            raise SettingsError(
                f"{path} is kept as a pickle, which must be signed: set FRAUDSTREAM_LEARN__PICKLE_KEY to a secret"
            )
        self._key = key
        self._stamp = msgspec.json.encode([path, dict(params), river_version, platform.python_version()])
        self._model = _construct(path, params)
        self._seen = 0

    def ready(self) -> bool:
        return self._seen > 0

    def probability(self, inputs: Inputs) -> float:
        return float(self._model.predict_proba_one(inputs).get(True, 0.0))

    def learn(self, inputs: Inputs, is_fraud: bool, weight: float) -> None:
        self._seen += 1
        if weight == 1.0:
            self._model.learn_one(inputs, is_fraud)
        else:
            self._model.learn_one(inputs, is_fraud, w=weight)

    def dump(self) -> bytes:
        body = pickle.dumps((self._seen, self._model), protocol=5)
        if len(body) > PICKLE_BYTES_MAX:
            raise ModelError(
                f"the online model has {len(body):,} bytes, more than {PICKLE_BYTES_MAX:,}: take a smaller one"
            )
        return self._sign(body) + body

    def load(self, data: bytes) -> None:
        """Go on from a dump. Raises `UnreadableSnapshot` before anything of it is executed."""
        signature, body = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(body)):
            raise UnreadableSnapshot(
                "the online model's pickle has another signature: it was written with another key, for other settings, "
                "with another version of river or Python, or by somebody else"
            )
        try:
            self._seen, self._model = pickle.loads(body)  # noqa: S301 - signed by a holder of the key
        except Exception as error:  # whatever a class's own reading raises
            raise UnreadableSnapshot(f"the online model's pickle cannot be read: {error!r}") from error

    def arrays(self, names: Sequence[str]) -> None:  # noqa: ARG002 - the port's signature
        return None

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._key, hashlib.sha256(self._stamp).digest() + body, "sha256")


def _construct(path: str, params: Mapping[str, Any]) -> Any:
    module_name, _, name = path.rpartition(".")
    try:
        made = getattr(importlib.import_module(module_name), name)(**params)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise SettingsError(f"online model {path}: {error}") from error
    if not hasattr(made, "learn_one") or not hasattr(made, "predict_proba_one"):
        raise SettingsError(f"online model {path} is no river classifier: it needs learn_one and predict_proba_one")
    return made


def one_by_one(model: OnlineModel, names: Sequence[str]) -> Callable[[Matrix, FloatArray], FloatArray]:
    """Score a matrix with a model that has no arrays. It takes as long as river does, for each row."""

    def probabilities(matrix: Matrix, champion: FloatArray) -> FloatArray:
        logits = logit(champion).tolist()
        found = np.empty(len(matrix))
        for row, values in enumerate(matrix.tolist()):
            inputs = {name: value for name, value in zip(names, values, strict=True) if math.isfinite(value)}
            inputs[CHAMPION_LOGIT] = logits[row]
            found[row] = model.probability(inputs)
        return found

    return probabilities

"""Scoring with the online model: the champion and, beside it, the newest of what the learner has learned.

A watch in a thread of its own looks for a newer state twice a second and swaps it in, so a scorer is at most a second
behind the learner and never waits for it. Without one, or with Redis away, the champion decides alone or the last one
serves on.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from fraudstream.core.census import Monitor
from fraudstream.core.learning import Policy
from fraudstream.core.online import Linear, Serving, decided_with
from fraudstream.core.ports import LearnerStore, Model, Scores
from fraudstream.core.windows import FloatArray
from fraudstream.errors import FraudstreamError, StateUnavailable
from fraudstream.events import Contribution

log = logging.getLogger("fraudstream.online")

WATCH_EVERY_S: Final = 0.5

Evaluate = Callable[[npt.NDArray[np.float32], FloatArray], FloatArray]
"""Probabilities for a matrix and the champion's scores."""
LoadAny = Callable[[bytes], Evaluate]
"""Makes that of a model which has no arrays. Raises a `FraudstreamError`."""


class BlendedModel:
    """A champion and the online model that corrects it (`core.ports.Model`). Name, thresholds and reasons are the champion's.

    Scores are rounded to float32, as the champion's are: they are stored in four bytes each.
    """

    def __init__(self, champion: Model, policy: Policy) -> None:
        self._champion = champion
        self._policy = policy
        self._online: tuple[Evaluate, float] | None = None

    @property
    def name(self) -> str:
        return self._champion.name

    @property
    def version(self) -> str:
        return self._champion.version

    @property
    def features_digest(self) -> str:
        return self._champion.features_digest

    @property
    def review_threshold(self) -> float:
        return self._champion.review_threshold

    @property
    def block_threshold(self) -> float:
        return self._champion.block_threshold

    @property
    def monitor(self) -> Monitor | None:
        return self._champion.monitor

    def use(self, evaluate: Evaluate | None, share: float) -> None:
        """Score with this online model from the next batch on; None: with the champion alone."""
        self._online = None if evaluate is None else (evaluate, share)

    def score(self, matrix: npt.NDArray[np.float32]) -> Scores:
        champion = self._champion.score(matrix).champion
        current = self._online  # read once: the watch may swap it at any moment
        if current is None:
            return Scores.alone(champion)
        evaluate, share = current
        online = evaluate(matrix, champion)
        score = decided_with(self._policy, champion, online, share)
        return Scores(score if score is champion else _float32(score), champion, _float32(online))

    def reasons(self, matrix: npt.NDArray[np.float32]) -> Sequence[tuple[Contribution, ...]]:
        return self._champion.reasons(matrix)


class OnlineWatch:
    """Looks for newer states and hands them to the model. `load_any` makes a scorer of one that has no arrays."""

    def __init__(self, store: LearnerStore, model: BlendedModel, load_any: LoadAny | None = None) -> None:
        self._store = store
        self._model = model
        self._load_any = load_any
        self._known = ""
        self._away = False
        self._told = ""
        self._stop = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Look once, then again and again in a thread."""
        self._thread = Thread(target=self._run, name="online-model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def look(self) -> None:
        """Swap the newest state in, if there is a newer one. Raises `StateUnavailable`."""
        names = ("serving",) if self._load_any is None else ("serving", "model")
        found = self._store.read(self._known, names)
        if found is None:
            return
        self._known, parts = found
        self._use(parts.get("serving", b""), parts.get("model", b""))

    def _use(self, packed: bytes, dump: bytes) -> None:
        serving = msgspec.json.decode(packed, type=Serving) if packed else None
        mine = (self._model.name, self._model.version, self._model.features_digest)
        if serving is not None and (serving.model_name, serving.model_version, serving.features_digest) != mine:
            serving = None  # it corrects another champion
        evaluate: Evaluate | None = None
        if serving is not None:
            linear: Linear | None = serving.linear()
            if linear is not None:
                evaluate = linear.probabilities
            elif self._load_any is not None:
                evaluate = self._load_any(dump)
        self._model.use(evaluate, 0.0 if serving is None else serving.share)
        told = "the champion scores alone" if evaluate is None else "the online model is asked too"
        if told != self._told and (self._told or evaluate is not None):
            log.info(told)
        self._told = told

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self._away = False
            except StateUnavailable as error:
                if not self._away:
                    log.warning("no newer online model can be read, the last one serves on: %s", error)
                self._away = True
            except (FraudstreamError, msgspec.MsgspecError) as error:
                self._model.use(None, 0.0)
                log.error("the online model cannot be read, the champion scores alone: %s", error)  # noqa: TRY400 - one line says it
            self._stop.wait(WATCH_EVERY_S)


def _float32(scores: FloatArray) -> FloatArray:
    return scores.astype(np.float32).astype(np.float64)

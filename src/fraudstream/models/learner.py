"""The learner: examples in their order, each tested and then learned. Pure but for the model library.

The live role feeds it from the topic and keeps its state in Redis; `fraudstream evaluate --online` feeds it from a file.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from fraudstream.codec.times import write_time
from fraudstream.core.learning import Guard, GuardLimits, Mixture, log_loss
from fraudstream.core.online import Serving, logit_of
from fraudstream.core.spec import CHAMPION_LOGIT
from fraudstream.events import EventState, Example, ModelEvent, ModelEventKind
from fraudstream.models.online import AnyRiver, OnlineModel, RiverLinear, UnreadableSnapshot

FORMAT: Final = 1
"""Of a snapshot. One of another format is unreadable, and rebuilt from the topic."""


@dataclass(frozen=True)
class Subject:
    """The champion whose scores are corrected, and the features it reads."""

    name: str
    version: str
    features_digest: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class LearnerSettings:
    """How to learn; `docs/reference/settings.md` says what each is and `docs/decisions/online-model.md` why."""

    classifier: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    pickle_key: bytes = b""
    learning_rate: float = 0.0001
    l2: float = 0.0
    warm_up: int = 2_000
    legit_share: float = 1.0
    blend_memory: float = 10_000.0
    guard: GuardLimits = field(default_factory=GuardLimits)


class _State(Struct, forbid_unknown_fields=True):
    format: int
    model_name: str
    model_version: str
    features_digest: str
    classifier: str | None
    mixture: Mixture
    guard: Guard
    counts: dict[str, int]
    losses: dict[str, float]
    events: list[ModelEvent]


class OnlineLearner:
    """One champion's online model and everything that is known about it.

    `counts` are examples by what became of them; `losses` sums of log-loss over those that were tested (champion, online,
    blend); `events` what is to be published once the state is stored.
    """

    def __init__(self, subject: Subject, settings: LearnerSettings) -> None:
        self.subject = subject
        self.settings = settings
        self.model: OnlineModel = open_model(settings)
        self.mixture = Mixture()
        self.guard = Guard()
        self.counts: Counter[str] = Counter()
        self.losses = dict.fromkeys(("champion", "online", "blend"), 0.0)
        self.events: list[ModelEvent] = []

    def take(self, example: Example, at_ms: int, position: str) -> None:
        """Test, then train on one example that was published at `at_ms`; `position` names its record."""
        if (example.model_name, example.model_version, example.features_digest) != (
            self.subject.name,
            self.subject.version,
            self.subject.features_digest,
        ):
            self.counts["other_model"] += 1
            return
        inputs = inputs_of(example, self.subject.features)
        if example.degraded or inputs is None:
            self.counts["degraded" if example.degraded else "unreadable"] += 1
            return
        frozen = self.guard.frozen
        weight = 1.0 if example.is_fraud else 1.0 / self.settings.legit_share
        admitted = self.guard.admit(example.is_fraud, at_ms, self.settings.guard)
        if self.guard.frozen != frozen:
            self._tell(frozen, self.guard.frozen, at_ms, position)
        if self.model.ready() and not self._test(inputs, example, weight):
            self.guard.frozen, before = "not_finite", self.guard.frozen
            if before != "not_finite":
                self._tell(before, "not_finite", at_ms, position)
            admitted = False
        if admitted:
            self.model.learn(inputs, example.is_fraud, weight)
            self.counts["learned"] += 1
        else:
            self.counts["frozen"] += 1

    def _test(self, inputs: dict[str, float], example: Example, weight: float) -> bool:
        """What would it have said? False if that is no number."""
        online = self.model.probability(inputs)
        if not math.isfinite(online):
            return False
        share, champion = self.mixture.share, example.champion_score
        loss_champion, loss_online = log_loss(example.is_fraud, champion), log_loss(example.is_fraud, online)
        blend = log_loss(example.is_fraud, share * online + (1.0 - share) * champion)
        self.mixture.update(weight * loss_champion, weight * loss_online, memory=self.settings.blend_memory)
        for name, loss in (("champion", loss_champion), ("online", loss_online), ("blend", blend)):
            self.losses[name] += loss
        self.counts["tested"] += 1
        return True

    def serving(self) -> Serving | None:
        """What scorers may use now; None before the model is ready, and while its weights are no numbers."""
        if not self.model.ready() or self.guard.frozen == "not_finite":
            return None
        subject, found = self.subject, self.model.arrays(self.subject.features)
        arrays, intercept = None, 0.0
        if found is not None:
            means, scales, weights = (tuple(a.tolist()) for a in (found.means, found.scales, found.weights))
            arrays, intercept = (means, scales, weights), found.intercept
        return Serving(
            subject.name, subject.version, subject.features_digest, self.counts["learned"], self.mixture.share,
            intercept, arrays,
        )  # fmt: skip

    def dump(self) -> dict[str, bytes]:
        """The whole state in parts."""
        subject = self.subject
        state = _State(
            FORMAT, subject.name, subject.version, subject.features_digest, self.settings.classifier, self.mixture,
            self.guard, dict(self.counts), self.losses, self.events,
        )  # fmt: skip
        serving = self.serving()
        return {
            "state": msgspec.json.encode(state),
            "model": self.model.dump(),
            "serving": b"" if serving is None else msgspec.json.encode(serving),
        }

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Go on from a dump.

        Raises
        ------
        UnreadableSnapshot
            If it is of another format, another champion or another classifier, or is no dump at all.
        """
        try:
            state = msgspec.json.decode(parts["state"], type=_State)
            model = parts["model"]
        except (KeyError, msgspec.MsgspecError) as error:
            raise UnreadableSnapshot(f"the learner's snapshot cannot be read: {error}") from error
        subject = self.subject
        mine = (FORMAT, subject.name, subject.version, subject.features_digest, self.settings.classifier)
        kept = (state.format, state.model_name, state.model_version, state.features_digest, state.classifier)
        if kept != mine:
            raise OtherSnapshot(
                f"the learner's snapshot is for model {state.model_name} {state.model_version} (format {state.format}, "
                f"{state.classifier or 'linear'}), not for {subject.name} {subject.version}"
            )
        self.model.load(model)
        self.mixture, self.guard = state.mixture, state.guard
        self.counts, self.losses, self.events = Counter(state.counts), state.losses, state.events

    def _tell(self, before: str | None, now: str | None, at_ms: int, position: str) -> None:
        guard, limits = self.guard, self.settings.guard
        if before is not None:
            self._event(
                before, "ended", at_ms, position, f"learning goes on: {_WORDS[before]} is within its limits again"
            )
        if now is not None:
            told = {
                "fraud_share": f"{guard.fraud_share:.3%} of the last {limits.memory:.0f} examples are frauds, not "
                f"{limits.fraud_share_min:.3%} to {limits.fraud_share_max:.3%}",
                "rate": f"more than {limits.examples_per_day_max:,.0f} examples came within a day",
                "not_finite": "its answer is no number; scorers use the champion alone. Find the cause, then begin anew "
                "with: fraudstream learner reset",
            }[now]
            self._event(now, "began", at_ms, position, f"learning is frozen: {told}")

    def _event(self, cause: str, state: EventState, at_ms: int, position: str, message: str) -> None:
        self.events.append(
            ModelEvent(
                event_id=f"learning_frozen:{cause}:{state}:{position}",
                kind=ModelEventKind.LEARNING_FROZEN,
                state=state,
                time_ms=max(at_ms, 0),
                subject="online",
                message=message,
                model_name=self.subject.name,
                model_version=self.subject.version,
                values={
                    "cause": cause,
                    "fraud_share": self.guard.fraud_share,
                    "seen": self.guard.seen,
                    "learned": self.counts["learned"],
                    "at": write_time(max(at_ms, 0)),
                },
            )
        )


class OtherSnapshot(UnreadableSnapshot):
    """A readable snapshot of another champion or classifier."""


_WORDS: Final = {
    "fraud_share": "the share of frauds",
    "rate": "the number of examples a day",
    "not_finite": "the model",
}


def open_model(settings: LearnerSettings) -> OnlineModel:
    """A model that has learned nothing yet. Raises `SettingsError` if it cannot be made."""
    if settings.classifier is None:
        return RiverLinear(learning_rate=settings.learning_rate, l2=settings.l2, warm_up=settings.warm_up)
    return AnyRiver(settings.classifier, settings.params, settings.pickle_key)


def inputs_of(example: Example, names: tuple[str, ...]) -> dict[str, float] | None:
    """The features by name, without those that are no number, and the champion's logit; None if they are too few."""
    values = np.frombuffer(example.features, "<f4")
    if len(values) != len(names):
        return None
    inputs: dict[str, float] = dict(zip(names, values.tolist(), strict=True))
    if not np.isfinite(values).all():
        inputs = {name: value for name, value in inputs.items() if math.isfinite(value)}
    inputs[CHAMPION_LOGIT] = logit_of(example.champion_score)
    return inputs

"""Scoring with the online model: what is decided with, which state is used, and signed pickles."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.support.examples import NAMES, SUBJECT, examples, records

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.core.features import FeatureSet
from fraudstream.core.learning import Policy
from fraudstream.core.online import Linear, Serving, logit, logit_of
from fraudstream.core.ports import LearnerCommit, Scores
from fraudstream.errors import SettingsError, StateUnavailable
from fraudstream.models.learner import LearnerSettings, OnlineLearner
from fraudstream.models.online import AnyRiver, UnreadableSnapshot, one_by_one
from fraudstream.services.learning import Learner
from fraudstream.services.online import BlendedModel, OnlineWatch
from fraudstream.testing import EPOCH_MS, MemoryLearnerStore, toy_model

FEATURES = FeatureSet.default()
MATRIX = np.random.default_rng(3).normal(400.0, 200.0, (64, len(FEATURES.names))).astype(np.float32)
TREE = "river.tree.HoeffdingTreeClassifier"


def serving(share: float = 0.25, version: str = "1", bias: float = 1.0) -> Serving:
    """Adds `bias` to the champion's log-odds."""
    zeros = (0.0,) * (len(FEATURES.names) + 1)
    return Serving("toy", version, FEATURES.digest, 10, share, bias, (zeros, zeros, zeros))


def stored(store: MemoryLearnerStore, packed: bytes) -> None:
    lease = store.take()
    store.commit(LearnerCommit(lease, lease.watermark + 1, {"serving": packed}, []))


def blended(policy: Policy, store: MemoryLearnerStore) -> tuple[BlendedModel, OnlineWatch]:
    model = BlendedModel(toy_model(FEATURES), policy)
    return model, OnlineWatch(store, model)


def scores(policy: Policy) -> Scores:
    store = MemoryLearnerStore()
    model, watch = blended(policy, store)
    stored(store, msgspec.json.encode(serving()))
    watch.look()
    return model.score(MATRIX)


def test_each_policy_decides_with_its_score() -> None:
    """Shadow with the champion's, online with the online model's, blend with both by share; both are told in each."""
    champion = toy_model(FEATURES).score(MATRIX).score
    online = 1 / (1 + np.exp(-(np.log(champion / (1 - champion)) + 1.0)))
    for policy, expected in (("shadow", champion), ("online", online), ("blend", 0.25 * online + 0.75 * champion)):
        found = scores(policy)  # type: ignore[arg-type] # the policies, as literals
        assert found.score == pytest.approx(expected, rel=1e-6)
        assert found.champion.tolist() == champion.tolist()
        assert found.online == pytest.approx(online, rel=1e-6)


def test_online_scores_take_four_bytes() -> None:
    """They are float32 numbers, so a stored decision keeps each in four bytes, and what is stored is what was decided."""
    found = scores("blend")
    assert found.online is not None
    for values in (found.score, found.online):
        assert values.astype(np.float32).astype(np.float64).tolist() == values.tolist()


@pytest.mark.parametrize("packed", [b"", msgspec.json.encode(serving(version="2"))])
def test_without_a_state_for_this_champion_it_scores_alone(packed: bytes) -> None:
    """Before anything was learned, and with a state that corrects another version."""
    store = MemoryLearnerStore()
    model, watch = blended("blend", store)
    stored(store, packed)
    watch.look()
    found = model.score(MATRIX)
    assert found.online is None
    assert found.score is found.champion


def test_a_newer_state_is_swapped_in_and_a_withdrawn_one_out() -> None:
    """The next batch is scored with what the last look found."""
    store = MemoryLearnerStore()
    model, watch = blended("online", store)
    seen = []
    for packed in (msgspec.json.encode(serving(bias=1.0)), msgspec.json.encode(serving(bias=2.0)), b""):
        stored(store, packed)
        watch.look()
        seen.append(model.score(MATRIX).score.mean())
    assert seen[2] < seen[0] < seen[1]


def test_the_watch_finds_a_new_state_within_two_seconds_and_outlasts_an_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In its own thread; with the store away the last state serves on, and that is said once."""

    class Flaky(MemoryLearnerStore):
        away = False

        def read(self, known: str, names: Sequence[str]) -> Any:
            if self.away:
                raise StateUnavailable("planted")
            return super().read(known, names)

    store = Flaky()
    model, watch = blended("online", store)
    watch.start()
    try:
        stored(store, msgspec.json.encode(serving(bias=1.0)))
        assert _until(lambda: model.score(MATRIX).online is not None, 2.0)
        store.away = True
        assert _until(lambda: "the last one serves on" in caplog.text, 2.0)
        assert model.score(MATRIX).online is not None
        store.away = False
        stored(store, b"not a state")
        assert _until(lambda: model.score(MATRIX).online is None, 2.0)
        assert "the champion scores alone" in caplog.text
    finally:
        watch.close()


def test_any_river_classifier_learns_is_stored_and_scores() -> None:
    """By import path: the same learner, kept as a signed pickle, asked row by row, the same after a restart."""
    settings = LearnerSettings(classifier=TREE, params={"grace_period": 50}, pickle_key=b"secret")
    store = MemoryLearnerStore()
    found = records(list(examples(600)))
    first = Learner(SUBJECT, settings, store, MemoryPublisher(), clock_ms=lambda: EPOCH_MS)
    first.take()
    first.process(found[:300])
    second = Learner(SUBJECT, settings, store, MemoryPublisher(), clock_ms=lambda: EPOCH_MS)
    assert second.take() == 300
    second.process(found[300:])
    quiet = OnlineLearner(SUBJECT, settings)
    for number, example in enumerate(examples(600)):
        quiet.take(example, EPOCH_MS + 1000 * number, f"0:{number}")
    matrix = np.random.default_rng(1).normal(size=(20, len(NAMES))).astype(np.float32)
    champion = np.full(20, 0.1)
    model = AnyRiver(TREE, {"grace_period": 50}, b"secret")
    model.load(store.take().parts["model"])
    asked = one_by_one(model, NAMES)(matrix, champion)
    assert asked.tolist() == one_by_one(quiet.model, NAMES)(matrix, champion).tolist()
    packed = msgspec.json.decode(store.take().parts["serving"], type=Serving)
    assert packed.linear() is None


class Trap:
    """Unpickled, it would say so."""

    opened = False

    def __reduce__(self) -> Any:
        return (setattr, (Trap, "opened", True))


def test_a_pickle_is_not_opened_without_its_signature() -> None:
    """Another key, other parameters, a changed byte, a forged body: refused before anything of it runs."""
    import pickle

    model = AnyRiver(TREE, {}, b"secret")
    model.learn({"a": 1.0, "champion_logit": 0.0}, True, 1.0)
    dump = model.dump()
    AnyRiver(TREE, {}, b"secret").load(dump)
    forged = dump[:32] + pickle.dumps((1, Trap()))
    others = [(AnyRiver(TREE, {}, b"other"), dump), (AnyRiver(TREE, {"grace_period": 9}, b"secret"), dump)]
    for other, data in [*others, (model, dump[:-1] + b"x"), (model, forged), (model, b"")]:
        with pytest.raises(UnreadableSnapshot, match="signature"):
            other.load(data)
    assert not Trap.opened


@pytest.mark.parametrize(
    ("path", "key", "told"),
    [
        (TREE, b"", "PICKLE_KEY"),
        ("river.tree.NoSuchTree", b"k", "NoSuchTree"),
        ("nowhere", b"k", "nowhere"),
        ("river.stats.Mean", b"k", "no river classifier"),
    ],
)
def test_what_is_no_classifier_is_told_at_the_start(path: str, key: bytes, told: str) -> None:
    """One line that names the setting or the path."""
    with pytest.raises(SettingsError, match=told):
        AnyRiver(path, {}, key)


def test_a_batch_scores_as_its_rows() -> None:
    """The score of a transaction does not depend on who was scored with it."""
    rng = np.random.default_rng(5)
    width = len(NAMES)
    linear = Linear.of(
        rng.normal(size=width + 1).tolist(), rng.random(width + 1).tolist(), rng.normal(size=width + 1).tolist(), 0.3
    )
    matrix, champion = rng.normal(size=(50, width)).astype(np.float32), rng.random(50)
    matrix[7, 3] = np.nan
    together = linear.probabilities(matrix, champion)
    alone = np.concatenate([linear.probabilities(matrix[n : n + 1], champion[n : n + 1]) for n in range(50)])
    assert together == pytest.approx(alone, rel=1e-12)
    assert np.isfinite(together).all()


def _until(condition: Any, seconds: float) -> bool:
    import time

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_the_learner_and_the_scorers_take_the_same_log_odds() -> None:
    """One by one as for a whole batch, and at 0 and 1 no surer than one in a million."""
    told = [0.0, 1e-12, 1e-6, 0.01, 0.5, 0.999, 1.0]
    assert [logit_of(p) for p in told] == pytest.approx(logit(np.array(told)).tolist(), rel=1e-14, abs=1e-15)
    assert logit_of(1.0) == pytest.approx(-logit_of(0.0), rel=1e-9)

"""The learner: exactly once over faults, the same to the last bit, better than the champion, frozen when it should be."""

import logging
import random
from collections.abc import Callable
from dataclasses import replace as with_settings

import msgspec
import pytest
from msgspec.structs import replace
from tests.support.examples import SUBJECT, examples, records

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.adapters.memory_learner import MemoryLearnerStore
from fraudstream.codec import decode_model_event
from fraudstream.core.learning import GuardLimits
from fraudstream.core.online import Serving
from fraudstream.core.ports import CommitStatus, LearnerCommit, LearnerLease
from fraudstream.errors import StateUnavailable
from fraudstream.events import Example, ModelEvent
from fraudstream.models.learner import LearnerSettings
from fraudstream.services.judging import Judge
from fraudstream.services.learning import Learner
from fraudstream.services.scoring import Ending
from fraudstream.testing import EPOCH_MS, FakeRecord
from fraudstream.topics import TOPICS

SETTINGS = LearnerSettings(warm_up=200, learning_rate=0.01, blend_memory=1000.0)
NO_FRAUD_LIMITS = GuardLimits(0.0, 1.0)


class LossyStore(MemoryLearnerStore):
    """Applies a commit or not, and loses the answer, as often as it is told to."""

    def __init__(self, rng: random.Random, losses: float) -> None:
        super().__init__()
        self._rng, self._losses = rng, losses

    def commit(self, commit: LearnerCommit) -> CommitStatus:
        roll = self._rng.random()
        if roll < self._losses / 2:
            raise StateUnavailable("planted before commit")
        status = super().commit(commit)
        if roll < self._losses:
            raise StateUnavailable("planted after commit")
        return status


def learner(
    store: MemoryLearnerStore, settings: LearnerSettings = SETTINGS, publisher: MemoryPublisher | None = None
) -> Learner:
    return Learner(SUBJECT, settings, store, publisher or MemoryPublisher(), clock_ms=lambda: EPOCH_MS)


def learned(found: list[FakeRecord], settings: LearnerSettings = SETTINGS) -> Learner:
    """One that took everything in batches of 100."""
    one = learner(MemoryLearnerStore(), settings)
    one.take()
    for start in range(0, len(found), 100):
        assert one.process(found[start : start + 100]).ending is Ending.DONE
    return one


def events(publisher: MemoryPublisher) -> list[ModelEvent]:
    return [decode_model_event(m.value or b"") for m in publisher.messages if m.topic == TOPICS.model_events]


@pytest.mark.parametrize("seed", range(5))
def test_crashes_and_lost_answers_change_no_bit(seed: int) -> None:
    """New learners, failed commits, batches cut anyhow and repeated records: the state is that of one quiet pass."""
    rng = random.Random(seed)
    told = list(examples(1500))
    repeated = [told[n] for n in sorted(rng.sample(range(len(told)), 200))]
    found = records([*told[:800], *repeated[:100], *told[800:], *repeated[100:]])
    quiet = learned(found)
    store = LossyStore(rng, 0.3)
    one, at = learner(store), 0
    at = one.take()
    while at < len(found):
        if rng.random() < 0.1:
            one = learner(store)
            at = one.take()
        batch = found[at : at + rng.randint(1, 150)]
        try:
            done = one.process(batch)
        except StateUnavailable:
            continue
        if done.ending is Ending.REWOUND:
            assert done.resume_at is not None
            at = done.resume_at
        else:
            at += len(batch)
    assert one.learner.dump() == quiet.learner.dump()
    assert one.learner.counts["learned"] == 1500
    assert one.learner.counts["repeated"] == 200


def test_the_blend_beats_the_champion_where_there_is_something_to_learn() -> None:
    """Test, then train: over the stream both online model and blend lose less than the champion."""
    one = learned(records(list(examples(6000)))).learner
    losses = {name: loss / one.counts["tested"] for name, loss in one.losses.items()}
    assert losses["online"] < losses["blend"] < 0.9 * losses["champion"]
    assert one.mixture.share > 0.9


def test_it_begins_as_the_champion() -> None:
    """After the warm-up the online model's answer is the champion's own."""
    found = list(examples(201))
    one = learned(records(found[:200])).learner
    serving = one.serving()
    assert serving is not None
    linear = serving.linear()
    assert linear is not None
    import numpy as np

    matrix = np.frombuffer(found[200].features, "<f4").reshape(1, -1)
    champion = np.array([found[200].champion_score])
    assert linear.probabilities(matrix, champion) == pytest.approx(champion, rel=1e-9)
    assert learned(records(found[:199])).learner.serving() is None


def test_what_scorers_compute_is_what_the_learner_says() -> None:
    """The arrays give the river model's answers, for values far out and values that are no number too."""
    import numpy as np

    from fraudstream.models.learner import inputs_of

    one = learned(records(list(examples(2000)))).learner
    odd = list(examples(50, seed=9))
    for n, value in enumerate((np.nan, np.inf, -np.inf, 1e30, -1e30)):
        values = np.frombuffer(odd[n].features, "<f4").copy()
        values[n] = value
        odd[n] = replace(odd[n], features=values.tobytes(), champion_score=(0.0, 1.0, 0.5, 0.1, 1e-9)[n])
    serving = one.serving()
    assert serving is not None
    linear = serving.linear()
    assert linear is not None
    matrix = np.stack([np.frombuffer(example.features, "<f4") for example in odd])
    found = linear.probabilities(matrix, np.array([example.champion_score for example in odd]))
    told = []
    for example in odd:
        inputs = inputs_of(example, SUBJECT.features)
        assert inputs is not None
        told.append(one.model.probability(inputs))
    # An infinite value counts as the mean for river, which is not told of it, and as far out in the arrays.
    same = [n for n in range(50) if n not in (1, 2)]
    assert found[same] == pytest.approx(np.array(told)[same], rel=1e-9)
    assert np.isfinite(found).all()


def test_another_champions_examples_are_left(caplog: pytest.LogCaptureFixture) -> None:
    """Only what this champion decided with its state corrects it; what is no example is counted and told."""
    told = list(examples(3))
    mixed = [replace(told[0], model_version="2"), replace(told[1], degraded=True), replace(told[2], features=b"")]
    found = records(mixed)
    found.append(replace(found[0], offset=3, value=b"{}"))
    one = learned(found)
    assert dict(one.learner.counts) == {"other_model": 1, "degraded": 1, "unreadable": 2}
    assert "not an example" in caplog.text


Poison = Callable[[Example], Example]


@pytest.mark.parametrize(
    ("limits", "poison", "cause"),
    [
        (GuardLimits(0.0, 0.2, memory=200.0), lambda example: replace(example, is_fraud=True), "fraud_share"),
        (GuardLimits(0.001, 0.2, memory=200.0), lambda example: replace(example, is_fraud=False), "fraud_share"),
    ],
)
def test_a_forged_mix_of_labels_is_not_learned(limits: GuardLimits, poison: Poison, cause: str) -> None:
    """Learning is frozen while the share of frauds is outside its limits, told once, and goes on afterwards."""
    told = list(examples(4500))
    forged = [poison(example) if 1000 <= n < 2500 else example for n, example in enumerate(told)]
    publisher = MemoryPublisher()
    one = learner(MemoryLearnerStore(), with_settings(SETTINGS, guard=limits), publisher)
    one.take()
    for record in records(forged):
        one.process([record])
    assert [(event.state, event.values["cause"]) for event in events(publisher)] == [("began", cause), ("ended", cause)]
    assert one.learner.guard.frozen is None
    assert 1000 < one.learner.counts["learned"] < 4000
    assert one.learner.counts["learned"] + one.learner.counts["frozen"] == 4500


def test_a_flood_of_examples_is_not_learned() -> None:
    """A day's worth may come at once, more may not; with time learning goes on."""
    limits = GuardLimits(0.0, 1.0, examples_per_day_max=1000.0)
    publisher = MemoryPublisher()
    one = learner(MemoryLearnerStore(), with_settings(SETTINGS, guard=limits), publisher)
    one.take()
    one.process(records(list(examples(1500)), every_ms=0))
    assert one.learner.counts["learned"] == 1000
    later = records(list(examples(3000))[1500:], first=1500, every_ms=86_400)  # a thousand a day
    one.process(later)
    assert [event.state for event in events(publisher)] == ["began", "ended"]
    assert one.learner.guard.frozen is None


def test_a_ruined_model_is_withdrawn() -> None:
    """Weights that are no numbers: learning stops for good, scorers are told to use the champion alone."""
    publisher = MemoryPublisher()
    one = learner(MemoryLearnerStore(), with_settings(SETTINGS, learning_rate=1e308, guard=NO_FRAUD_LIMITS), publisher)
    one.take()
    one.process(records(list(examples(1000))))
    assert one.learner.guard.frozen == "not_finite"
    assert one.learner.serving() is None
    assert [(event.state, event.values["cause"]) for event in events(publisher)] == [("began", "not_finite")]
    assert "fraudstream learner reset" in events(publisher)[0].message


def test_an_event_survives_a_crash_before_it_was_published() -> None:
    """What the guard has to tell is part of the state: the next learner publishes it, with the same id."""
    limits = GuardLimits(0.0, 0.01, memory=100.0)
    store, publisher = MemoryLearnerStore(), MemoryPublisher()
    quiet = learner(store, with_settings(SETTINGS, guard=limits), publisher)
    quiet.take()
    quiet.process(records(list(examples(500))))
    first = events(publisher)
    assert [event.state for event in first] == ["began"]
    again = MemoryPublisher()
    learner(store, with_settings(SETTINGS, guard=limits), again).take()
    assert events(again) == first


@pytest.mark.parametrize("part", ["state", "model"])
def test_an_unreadable_state_is_rebuilt_loudly(part: str, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged bytes: an error in the log, a model event, the whole topic again, and then the same state."""
    found = records(list(examples(600)))
    store, publisher = MemoryLearnerStore(), MemoryPublisher()
    one = learner(store)
    one.take()
    one.process(found)
    whole = one.learner.dump()
    store._parts[part] = store._parts[part][:-9]
    healed = learner(store, publisher=publisher)
    with caplog.at_level(logging.ERROR):
        assert healed.take() == 0
    assert "rebuilt from the beginning" in caplog.text
    assert [event.kind for event in events(publisher)] == ["snapshot_unreadable"]
    healed.process(found)
    assert healed.learner.dump() == whole


def test_a_new_champion_begins_anew() -> None:
    """A state that corrects another champion is no fault, and no use."""
    store, publisher = MemoryLearnerStore(), MemoryPublisher()
    one = learner(store)
    one.take()
    one.process(records(list(examples(300))))
    subject = with_settings(SUBJECT, version="2")
    other = Learner(subject, SETTINGS, store, publisher, clock_ms=lambda: EPOCH_MS)
    assert other.take() == 0
    assert events(publisher) == []
    other.process(records(list(examples(300))))
    assert dict(other.learner.counts) == {"other_model": 300}


def test_an_older_learner_drops_its_batch() -> None:
    """Two learners: the later one learns, the earlier one is told that it is fenced."""
    store = MemoryLearnerStore()
    old, new = learner(store), learner(store)
    old.take()
    new.take()
    found = records(list(examples(20)))
    assert old.process(found).ending is Ending.FENCED
    assert new.process(found).ending is Ending.DONE
    assert new.learner.counts["learned"] == 20


def test_a_gap_is_read_again() -> None:
    """After its state was dropped the learner asks for what lies between its offset and the batch it is given."""
    store = MemoryLearnerStore()
    one = learner(store)
    one.take()
    found = records(list(examples(50)))
    one.process(found[:10])
    one.release()
    done = one.process(found[30:40])
    assert (done.ending, done.resume_at) == (Ending.REWOUND, 10)
    assert one.process(found[10:40]).ending is Ending.DONE
    assert one.learner.counts["learned"] == 40


def test_scorers_get_the_newest_state() -> None:
    """What is stored to be served is what the learner has now."""
    store = MemoryLearnerStore()
    one = learner(store)
    one.take()
    one.process(records(list(examples(400))))
    found = store.read("", ["serving"])
    assert found is not None
    assert msgspec.json.decode(found[1]["serving"], type=Serving) == one.learner.serving()


def test_a_lease_of_before_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """Who finds an unreadable state but not the lease any more waits instead of dropping it."""

    class Overtaken(MemoryLearnerStore):
        def begin_anew(self, lease: LearnerLease, *, from_offset: int) -> LearnerLease | None:
            return None

    store = Overtaken()
    one = learner(store)
    one.take()
    one.process(records(list(examples(10))))
    store._parts["state"] = b"?"
    with pytest.raises(StateUnavailable, match="another learner"):
        learner(store).take()


def test_another_topic_is_learned_from_its_beginning() -> None:
    """A topic that was made anew has lower offsets than were learned up to: none of them is taken for learned."""
    store = MemoryLearnerStore()
    one = learner(store)
    one.take()
    one.process(records(list(examples(500))))
    one.begin_anew(0)
    assert one.learner.counts["learned"] == 0
    one.process(records(list(examples(30, seed=2))))
    assert one.learner.counts["learned"] == 30
    assert learner(store).take() == 30


def test_figures_of_quality_begin_anew_with_what_is_learned() -> None:
    """Another topic, or a state that cannot be read: the examples are judged again, so what was counted leaves too."""
    store, judge = MemoryLearnerStore(), Judge()
    one = Learner(SUBJECT, SETTINGS, store, MemoryPublisher(), clock_ms=lambda: EPOCH_MS, judge=judge)
    one.take()
    one.process(records(list(examples(500))))
    one.begin_anew(0)
    assert judge.quality.versions() == []
    one.process(records(list(examples(30, seed=2))))
    assert judge.quality.total("fraud 1", "champion")["examples"] == 30
    again = Judge()
    again.load(store.take().parts)
    assert again.quality.fields() == judge.quality.fields()

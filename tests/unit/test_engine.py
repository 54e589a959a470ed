"""Deciding a batch: what is new, what was decided before, and what each transaction may know of the others."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.support.desk import FEATURES, HOUR_MS, NOON_MS, Desk, label, transaction

from fraudstream.adapters.memory import MemoryStore
from fraudstream.core.engine import Arrival, Outcome, ask, decide
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Advance, Gathered, LabelStatus, Lease, Sighting
from fraudstream.events import Decision, Transaction
from fraudstream.testing import toy_model


@pytest.fixture
def desk() -> Desk:
    return Desk(MemoryStore(FEATURES))


def last_of(outcome: Outcome) -> int:
    (advance,) = outcome.commit.advances
    return advance.watermark


def features_of(decision: Decision, features: FeatureSet = FEATURES) -> dict[str, float]:
    return dict(zip(features.names, np.frombuffer(decision.features, "<f4").tolist(), strict=True))


def decided_ids(outcome: Outcome) -> list[str]:
    return [decision.transaction_id for decision in outcome.decided]


# --- what is asked for -------------------------------------------------------------------------------------------------


def test_each_key_is_asked_for_once_and_each_transaction_looked_up() -> None:
    """Keys in order of first sight, without repeats; a sighting per record, repeats included."""
    arrivals = [
        Arrival(n, transaction(name, card=card, terminal=terminal, at_ms=NOON_MS + n))
        for n, (name, card, terminal) in enumerate([("a", "c2", "w1"), ("b", "c1", "w1"), ("a", "c2", "w2")])
    ]
    question = ask(FEATURES, arrivals)
    assert question.keys == {"card": ["c2", "c1"], "terminal": ["w1", "w2"]}
    assert question.sightings == [Sighting("a", NOON_MS), Sighting("b", NOON_MS + 1), Sighting("a", NOON_MS + 2)]


# --- duplicates and redelivery -----------------------------------------------------------------------------------------


def test_a_duplicate_inside_a_batch_is_decided_once(desk: Desk) -> None:
    """The first record of an id is decided, later ones are counted and add nothing to any window."""
    outcome = desk.process(transaction("a"), transaction("a", minor=99_900), transaction("b"))
    assert decided_ids(outcome) == ["a", "b"]
    assert outcome.duplicates == 1
    assert features_of(outcome.decided[1])["count"] == 2.0
    assert outcome.commit.counts == {"decided": 2, "duplicates": 1, "action.allow": 2}


def test_a_transaction_decided_in_another_record_is_a_duplicate(desk: Desk) -> None:
    """A retry of the producer in a later batch, with whatever content, is counted and changes no state."""
    desk.process(transaction("a"))
    rows = desk.store.rows({"card": ["c1", "c9"], "terminal": ["w1", "w9"]})
    outcome = desk.process(transaction("a", card="c9", terminal="w9", minor=1))
    assert (outcome.decided, outcome.repeated, outcome.duplicates) == ([], [], 1)
    assert (outcome.commit.rows, outcome.commit.shared) == ([], [])
    assert desk.store.rows({"card": ["c1", "c9"], "terminal": ["w1", "w9"]}) == rows


def test_redelivered_records_get_their_stored_answers(desk: Desk) -> None:
    """Records at or below the watermark are answered word for word, whatever the model says now; nothing is counted."""
    first = desk.process(transaction("a", minor=60_000), transaction("a"), transaction("b"))
    desk.model = toy_model(FEATURES, limit=0.0)  # now everything would be an alert
    again = desk.prepare(transaction("a", minor=60_000), transaction("a"), transaction("b"), first_offset=0)
    assert again.repeated == first.decided
    assert (again.decided, again.duplicates) == ([], 0)
    assert (last_of(again), again.commit.counts) == (2, {})


def test_a_batch_may_reach_over_the_watermark(desk: Desk) -> None:
    """Of a batch that was cut otherwise before a crash, the applied part is repeated and only the rest is decided."""
    first = desk.process(transaction("a"), transaction("b"))
    outcome = desk.prepare(*(transaction(name) for name in "abca"), first_offset=0)
    assert outcome.repeated == first.decided
    assert decided_ids(outcome) == ["c"]
    assert outcome.duplicates == 1
    assert outcome.decided[0].offset == 2
    assert features_of(outcome.decided[0])["count"] == 3.0
    assert last_of(outcome) == 3


def test_a_watermark_never_moves_back(desk: Desk) -> None:
    """A batch of old records alone commits the watermark that is already reached."""
    desk.process(*(transaction(name) for name in "abcd"))
    assert last_of(desk.prepare(transaction("a"), first_offset=0)) == 3


def test_a_redelivered_record_whose_decision_is_gone_is_passed_over(desk: Desk) -> None:
    """A record that was applied once is not decided anew when the retention has dropped its decision."""
    arrivals = [Arrival(4, transaction("a"))]
    question = ask(FEATURES, arrivals)
    gathered = Gathered({"card": [None], "terminal": [None]}, [None], [None], 0)
    advances = [Advance(Lease(0, 1, 9), 4)]
    outcome = decide(FEATURES, desk.model, question, gathered, advances=advances, now_ms=NOON_MS, counts={})
    assert (outcome.decided, outcome.repeated, outcome.duplicates) == ([], [], 0)


# --- several partitions ------------------------------------------------------------------------------------------------


def test_partitions_decided_together_see_what_they_share(desk: Desk) -> None:
    """A batch of two partitions is decided in its order: the second one's transaction sees the first one's terminal."""
    other = Desk(desk.store, 1)
    batches = (desk, [transaction("a"), transaction("b")]), (other, [transaction("c", card="c2")])
    outcome = Desk.prepare_together(*batches)
    assert [(one.partition, one.offset) for one in outcome.decided] == [(0, 0), (0, 1), (1, 0)]
    assert features_of(outcome.decided[2])["terminal_count"] == 3.0
    assert [(each.lease.partition, each.watermark) for each in outcome.commit.advances] == [(0, 1), (1, 0)]


def test_partitions_decided_together_tell_their_records_apart(desk: Desk) -> None:
    """The same offset in two partitions is two records: one redelivered, one a producer's retry, one decided."""
    other = Desk(desk.store, 1)
    desk.process(transaction("a"))
    late = Desk(desk.store, 0)
    late.lease = replace(desk.lease, watermark=-1)
    batches = (late, [transaction("a")]), (other, [transaction("a"), transaction("b")])
    outcome = Desk.prepare_together(*batches)
    assert [one.transaction_id for one in outcome.repeated] == ["a"]
    assert (decided_ids(outcome), outcome.duplicates) == (["b"], 1)
    applied, fresh = outcome.commit.advances
    assert applied.lease.watermark == applied.watermark == 0
    assert (fresh.lease.watermark, fresh.watermark) == (-1, 1)


# --- early labels ------------------------------------------------------------------------------------------------------


def test_an_early_label_is_counted_with_its_transaction(desk: Desk) -> None:
    """A fraud known beforehand stands in the terminal's row, for later windows, and in no feature of the batch itself."""
    assert desk.label(label("a"), label("b", is_fraud=False)) == [LabelStatus.PARKED] * 2
    outcome = desk.process(transaction("a"), transaction("b"), transaction("c"))
    assert outcome.commit.parked == [label("a"), label("b", is_fraud=False)]
    assert [features_of(d)["terminal_frauds"] for d in outcome.decided] == [0.0, 0.0, 0.0]
    later = desk.process(transaction("d", card="c2", at_ms=NOON_MS + 4 * HOUR_MS))
    assert features_of(later.decided[0])["terminal_frauds"] == 1.0


def test_an_early_label_goes_to_the_first_record_of_its_transaction(desk: Desk) -> None:
    """A duplicate in the same batch takes no part of it."""
    desk.label(label("a"))
    outcome = desk.process(transaction("a"), transaction("a", terminal="w2"))
    assert outcome.commit.parked == [label("a")]
    assert [update.keys for _, update in outcome.commit.shared] == [("w1",)]


# --- odd batches -------------------------------------------------------------------------------------------------------


def test_a_batch_without_new_transactions_asks_no_model(desk: Desk) -> None:
    """Empty or all duplicates, a batch decides nothing and still moves the watermark and the counters it was given."""
    desk.process(transaction("a"))
    question = ask(FEATURES, [Arrival(5, transaction("a"))])
    gathered = desk.store.gather(question.keys, question.sightings)
    counts = {"rejected.tombstone": 3, "nothing": 0}
    advances = [Advance(desk.lease, 9)]
    outcome = decide(FEATURES, desk.model, question, gathered, advances=advances, now_ms=NOON_MS, counts=counts)
    assert outcome.decided == []
    assert (outcome.commit.decisions, outcome.commit.rows, outcome.commit.shared) == ([], [], [])
    assert (last_of(outcome), outcome.commit.counts) == (9, {"rejected.tombstone": 3, "duplicates": 1})


def test_a_transaction_without_an_entitys_key_has_no_history_there() -> None:
    """A missing, null, empty or odd value of an own field gives zeros for that entity and touches no row."""
    features = FeatureSet.parse("""
        entities = { card = "card_id", shop = "shop" }
        windows.d1 = { length = "1d", hop = "1h" }
        [features]
        amount = { field = "amount" }
        card_count = { entity = "card", aggregate = "count", window = "d1" }
        shop_count = { entity = "shop", aggregate = "count", window = "d1" }
        shop_mean = { entity = "shop", aggregate = "mean", window = "d1" }
    """)
    desk = Desk(MemoryStore(features), features=features)
    plain = transaction("x")
    shops: Sequence[object] = ["s1", None, "", True, 1.5, ["s1"], "s1", 7, "7", "x" * 129]
    batch = [
        Transaction(f"t{n}", NOON_MS, "c1", "w1", 20.0, 2000, extra={"shop": shop}) for n, shop in enumerate(shops)
    ]
    outcome = desk.process(*batch, plain)
    counts = [features_of(d, features)["shop_count"] for d in outcome.decided]
    assert counts == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 2.0, 0.0, 0.0]
    assert [features_of(d, features)["card_count"] for d in outcome.decided] == [float(n) for n in range(1, 12)]
    assert sorted(k for name, update in outcome.commit.shared if name == "shop" for k in update.keys) == ["7", "s1"]


def test_every_transaction_knows_those_before_it_and_none_after_it(desk: Desk) -> None:
    """Inside a batch each is decided as if it came alone, in the order of the records, also out of order in time."""
    minutes = [0, 90, 30, 30, 200, 10, 0]
    stream = [
        transaction(f"t{n}", at_ms=NOON_MS + m * 60_000, card=f"c{n % 2}", minor=100 * (n + 1))
        for n, m in enumerate(minutes)
    ]
    together = desk.process(*stream).decided
    alone = Desk(MemoryStore(FEATURES))
    one_by_one = [alone.process(one).decided[0] for one in stream]
    assert [replace_offset(d) for d in together] == [replace_offset(d) for d in one_by_one]
    assert [d.offset for d in together] == list(range(7))


def replace_offset(decision: Decision) -> tuple[str, bytes, float, str]:
    return decision.transaction_id, decision.features, decision.score, decision.action


def test_a_decision_says_what_was_decided_by_whom_and_why(desk: Desk) -> None:
    """Scores meet their thresholds, alerts have reasons, and model, feature list, times and place are those of the call."""
    desk.model = toy_model(FEATURES, limit=500.0)
    desk.lease = replace(desk.lease, watermark=40)
    allow, review = desk.prepare(transaction("a", minor=49_999), transaction("b", minor=50_000)).decided
    assert (allow.action, allow.score, allow.threshold, allow.reasons) == ("allow", 0.01, 0.5, ())
    assert (review.action, review.score, review.threshold) == ("review", 0.99, 0.5)
    assert [reason.code for reason in review.reasons] == ["AMOUNT"]
    assert (review.model_name, review.model_version) == (desk.model.name, desk.model.version)
    assert review.features_digest == FEATURES.digest
    assert (review.event_time_ms, review.decided_at_ms) == (NOON_MS, NOON_MS)
    assert (review.partition, review.offset) == (0, 42)
    desk.model.block_threshold = 0.99
    assert [d.action for d in desk.prepare(transaction("c", minor=50_000)).decided] == ["block"]
    assert [d.threshold for d in desk.prepare(transaction("c", minor=50_000)).decided] == [0.99]

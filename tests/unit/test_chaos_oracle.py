"""The chaos run's own parts: a plan that its seed decides, and an oracle that sees what it is there for."""

from collections import Counter

import pytest
from tests.support.chaos.faults import PER_MINUTE, SESSION_S, plan
from tests.support.chaos.oracle import Read, check_published, check_state, check_sums
from tests.support.chaos.upstream import LABEL_SLICES_MAX, SLICE_TRANSACTIONS, Upstream


def test_the_seed_decides_the_plan_and_every_kind_of_fault_is_in_it() -> None:
    """Same seed, same faults; other seed, others; zombies sleep longer than their session."""
    faults = plan(7, 60, with_broker=True, away_s=3)
    assert faults == plan(7, 60, with_broker=True, away_s=3) != plan(8, 60, with_broker=True, away_s=3)
    assert {fault.kind for fault in faults} == PER_MINUTE.keys()
    assert all(fault.for_s > SESSION_S for fault in faults if fault.kind == "freeze")
    assert not any(fault.kind.startswith("broker") for fault in plan(7, 60, with_broker=False, away_s=3))


def test_the_seed_decides_what_upstream_sends() -> None:
    """Same seed, same slices; every transaction is in them, with retries, poison and labels."""
    one, again = (Upstream(7, 3 * SLICE_TRANSACTIONS) for _ in range(2))
    assert [(s.transactions, s.labels) for s in one.slices] == [(s.transactions, s.labels) for s in again.slices]
    sums = one.sums
    assert sum(len(s.transactions) for s in one.slices) == sums.transactions + sums.retries + sums.poison
    assert min(sums.retries, sums.poison, sums.poison_labels, sums.ghosts, LABEL_SLICES_MAX) > 0
    assert one.slices[-1].alone


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({b"row:a": b"1"}, "row:b"),
        ({b"row:a": b"1", b"row:b": b"3"}, "found b'3', expected b'2'"),
        ({b"row:a": b"1", b"row:b": b"2", b"row:c": b"9"}, "row:c"),
    ],
)
def test_a_key_that_is_missing_other_or_too_many_is_told(found: dict[bytes, bytes], told: str) -> None:
    """State is compared key for key, in both directions; fences may differ."""
    wanted = {b"row:a": b"1", b"row:b": b"2", b"models": {}, b"partition:0:fence": b"7"}
    with pytest.raises(AssertionError, match="1 keys differ") as caught:
        check_state({**found, b"models": {}}, wanted)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([b'{"transaction_id":"a","n":1}'], "1 alerts are missing"),
        ([b'{"transaction_id":"a","n":1}', b'{"transaction_id":"b","n":2}', b'{"transaction_id":"c"}'], "no stored"),
        ([b'{"transaction_id":"a","n":1}', b'{"transaction_id":"b","n":2}', b'{"transaction_id":"b"}'], "otherwise"),
    ],
)
def test_an_alert_that_is_missing_unexplained_or_repeated_otherwise_is_told(values: list[bytes], told: str) -> None:
    """Published records are held against the stored decisions to the byte; mere repetitions are counted."""
    wanted = {"a": b'{"transaction_id":"a","n":1}', "b": b'{"transaction_id":"b","n":2}'}
    assert check_published("alerts", _records([*wanted.values(), wanted["a"]]), wanted) == 1
    with pytest.raises(AssertionError, match=told):
        check_published("alerts", _records(values), wanted)


def test_what_the_log_has_twice_is_counted_twice_and_nothing_else_is_excused() -> None:
    """A batch that the broker took again explains as many duplicates and refusals; a record too few or unknown is told."""
    upstream = Upstream(7, SLICE_TRANSACTIONS)
    sent = Counter(one for part in upstream.slices for one in part.transactions)
    sums, refused = upstream.sums, next(iter(upstream.poison))
    good = next(one for one in sent if one not in upstream.poison)
    counts = {"decided": sums.transactions, "duplicates": sums.retries, "rejected.invalid_json": sums.poison}
    check_sums(upstream, counts, sums.transactions, sent)
    more = {"duplicates": sums.retries + 2, "rejected.invalid_json": sums.poison + 1}
    twice = sent + Counter({good: 2, refused: 1})
    check_sums(upstream, counts | more, sums.transactions, twice)
    with pytest.raises(AssertionError, match="stored, decided"):
        check_sums(upstream, counts, sums.transactions, twice)
    with pytest.raises(AssertionError, match="stored, decided"):
        check_sums(upstream, counts | more, sums.transactions, sent)
    with pytest.raises(AssertionError, match="1 records that upstream sent are not in the log"):
        check_sums(upstream, counts, sums.transactions, sent - Counter([good]))
    with pytest.raises(AssertionError, match="never sent"):
        check_sums(upstream, counts, sums.transactions, sent + Counter([(b"k", b"v")]))


def _records(values: list[bytes]) -> list[Read]:
    return [Read("alerts", 0, at, 0, None, value) for at, value in enumerate(values)]

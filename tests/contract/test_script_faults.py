"""Faults planted in the scripts that Redis runs: the contract must find each, or it proves nothing about their absence."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from fraudstream.adapters.redis_store import RedisStore
from fraudstream.core.ports import StateStore
from fraudstream.errors import StateUnavailable
from tests.contract import test_state_store as contract
from tests.contract.conftest import Forget
from tests.support.desk import FEATURES


class Fault(NamedTuple):
    """What stands in a script, what it is replaced by, and the test of the contract that must fail then."""

    script: str
    right: str
    wrong: str
    found_by: Callable[[StateStore], None]


def commit(right: str, wrong: str, found_by: Callable[[StateStore], None]) -> Fault:
    return Fault("commit", right, wrong, found_by)


FAULTS = {
    "fence not checked": commit(
        "if held > tonumber(fence) then return 'fenced' end",
        "",
        contract.test_a_worker_that_lost_its_partition_changes_nothing,
    ),
    "watermark not checked": commit(
        "return applied == seen and 'open' or 'rewound'",
        "return 'open'",
        functools.partial(contract.test_a_store_whose_watermark_is_another_refuses, seen=5),
    ),
    "other partitions not checked": commit(
        "if all and all ~= own then return {'conflict'} end",
        "own = all or own",
        functools.partial(
            contract.test_a_batch_of_several_partitions_leaves_nothing_where_one_is_not_as_expected,
            stale=1,
            how="fenced",
        ),
    ),
    "watermark not kept": commit(
        "call('SET', KEYS[9 + 2 * p], ARGV[partitions_at + 3 * p + 2])",
        "",
        contract.test_fences_grow_and_watermarks_stay,
    ),
    "a commit applied twice": commit(
        "if applied == new then return 'applied' end",
        "seen = applied",
        contract.test_a_commit_whose_answer_was_lost_is_applied_once,
    ),
    "the last decision wins": commit(
        "if call('HSETNX', slot, id, packed) == 0 then",
        "if call('HSET', slot, id, packed) < 0 then",
        contract.test_a_decision_stored_since_the_gather_is_a_conflict_and_leaves_nothing_behind,
    ),
    "a conflict half undone": commit(
        "call('HDEL', slot, id)",
        "",
        contract.test_a_decision_stored_since_the_gather_is_a_conflict_and_leaves_nothing_behind,
    ),
    "no look beyond an edge": commit(
        "while at <= #rivals do",
        "while false do",
        functools.partial(
            contract.test_two_copies_decided_at_once_on_both_sides_of_an_edge_conflict, first_is_later=False
        ),
    ),
    "heads not checked": commit(
        "if not holds then return {'conflict'} end",
        "",
        functools.partial(contract.test_a_moved_head_is_a_conflict_and_leaves_nothing_behind, hours_later=1),
    ),
    "a second first row": commit(
        "return update.seen ~= '' and heads ~= ''",
        "return heads ~= ''",
        contract.test_two_workers_that_both_make_a_terminals_first_row,
    ),
    "heads moved again": commit(
        "if heads == update.seen then return true, false end\n"
        "  return update.seen ~= '' and heads ~= '' and heads == update.heads, true",
        "return heads == update.seen or heads == update.heads, false",
        functools.partial(contract.test_two_workers_that_move_a_terminals_head_to_the_same_place_add_up, hours_later=1),
    ),
    "terminals written back": commit(
        "call('BITFIELD', key, 'OVERFLOW', 'SAT', unpack(ARGV, update.tokens, update.stop - 1))",
        "for t = update.tokens, update.stop - 1, 4 do call('BITFIELD', key, 'SET', ARGV[t + 1], ARGV[t + 2], ARGV[t + 3]) end",
        contract.test_two_workers_add_to_one_terminal,
    ),
    "an early label missed": commit(
        "if not known[id] and call('HEXISTS', KEYS[2], id) == 1 then return {'conflict'} end",
        "",
        contract.test_a_label_parked_while_its_transaction_was_being_decided_is_not_missed,
    ),
}


def plant(store: Any, fault: Fault) -> None:
    script = store._scripts[fault.script]
    assert script.count(fault.right) >= 1, f"{fault.script}.lua does not hold {fault.right!r} any more"
    store._scripts[fault.script] = script.replace(fault.right, fault.wrong)


@pytest.mark.parametrize("name", FAULTS)
def test_the_contract_finds(redis_url: str, name: str) -> None:
    """The test of the contract that is about it fails when this fault is planted."""
    store = RedisStore(redis_url, FEATURES)
    plant(store, FAULTS[name])
    with pytest.raises((AssertionError, StateUnavailable)):
        FAULTS[name].found_by(store)
    store.close()


@pytest.mark.parametrize("name", FAULTS)
def test_the_contract_holds_without(redis_url: str, name: str) -> None:
    """The same test passes on the script as it is: it is the fault that it finds."""
    store = RedisStore(redis_url, FEATURES)
    FAULTS[name].found_by(store)
    store.close()


def test_the_contract_finds_fences_that_are_counted(
    redis_url: str, open_store: contract.StoreFactory, forget: Forget, request: pytest.FixtureRequest
) -> None:
    """A Redis that was emptied would give the numbers of its former leases again."""
    store = open_store()
    if not isinstance(store, RedisStore):
        pytest.skip("about the script")
    plant(store, Fault("lease", "now_ms())", "0)", lambda _: None))
    with pytest.raises(AssertionError):
        contract.test_no_fence_is_given_twice_although_the_store_lost_its_data(lambda: store, forget)

"""One code path: what training computes from a file is what the worker computed, transaction by transaction."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudstream.adapters.memory import MemoryStore
from fraudstream.codec.amounts import minor_units
from fraudstream.events import Transaction
from fraudstream.models.history import replay, warm_states
from fraudstream.models.history_file import History
from tests.support.card_history import table, written
from tests.support.desk import FEATURES, HOUR_MS, NOON_MS, Desk, label

# The shortest delay of a fraud window in FEATURES: labels come just then, not a millisecond earlier.
LABEL_DELAY_MS = 2 * HOUR_MS


class Row(NamedTuple):
    transaction: Transaction
    fraud: bool


@st.composite
def histories(draw: st.DrawFn) -> list[Row]:
    """Transactions of a few keys in event-time order, minutes to a day apart; some at once, some amounts in thousandths."""
    now_ms = NOON_MS + draw(st.integers(0, HOUR_MS))
    rows = []
    amounts = st.one_of(st.integers(0, 50_000).map(lambda n: n / 100), st.sampled_from([0.285, 2.675, 1e6, 0.005]))
    for number in range(draw(st.integers(1, 30))):
        now_ms += draw(st.sampled_from([0, 1, 60_000, 20 * 60_000, HOUR_MS, 5 * HOUR_MS, 24 * HOUR_MS]))
        amount = draw(amounts)
        card, terminal = f"c{draw(st.integers(0, 2))}", f"w{draw(st.integers(0, 1))}"
        transaction = Transaction(f"t{number}", now_ms, card, terminal, amount, minor_units(amount))
        rows.append(Row(transaction, draw(st.booleans())))
    return rows


def file_of(rows: Sequence[Row], folder: str) -> Path:
    transactions = [row.transaction for row in rows]
    columns = (
        [t.transaction_id for t in transactions],
        [t.event_time_ms for t in transactions],
        [t.card_id for t in transactions],
        [t.terminal_id for t in transactions],
        [t.amount for t in transactions],
        [row.fraud for row in rows],
    )
    return written(table(*columns), Path(folder) / "history.parquet")


def replayed(file: Path, chunk_rows: int) -> bytes:
    history = History(file, FEATURES, chunk_rows=chunk_rows)
    return b"".join(part.matrix.astype("<f4").tobytes() for part in replay(FEATURES, history))


def live(desk: Desk, rows: Sequence[Row], batch_rows: int) -> bytes:
    """Micro-batches through the engine; each label comes as late as labels are, between two batches."""
    features = []
    waiting: list[Row] = []
    start = 0
    while start < len(rows):
        due_ms = rows[start].transaction.event_time_ms - LABEL_DELAY_MS
        for row in [row for row in waiting if row.transaction.event_time_ms <= due_ms]:
            desk.label(label(row.transaction.transaction_id, is_fraud=row.fraud))
            waiting.remove(row)
        # A batch ends where a label would come between its transactions.
        next_due_ms = (
            min((row.transaction.event_time_ms for row in (*waiting, *rows[start:])), default=0) + LABEL_DELAY_MS
        )
        batch = [row for row in rows[start : start + batch_rows] if row.transaction.event_time_ms < next_due_ms]
        outcome = desk.process(*(row.transaction for row in batch))
        features += [decision.features for decision in outcome.decided]
        waiting += batch
        start += len(batch)
    return b"".join(features)


@settings(max_examples=60, deadline=None)
@given(rows=histories(), chunk_rows=st.integers(1, 9), batch_rows=st.integers(1, 9))
def test_replayed_features_equal_live_ones_number_for_number(rows: list[Row], chunk_rows: int, batch_rows: int) -> None:
    """However file and stream are cut, with labels that come as late as declared, every feature is the same float32."""
    with tempfile.TemporaryDirectory() as folder:
        trained = replayed(file_of(rows, folder), chunk_rows)
    desk = Desk(MemoryStore(FEATURES, clock_ms=lambda: NOON_MS))
    assert live(desk, rows, batch_rows) == trained


@settings(max_examples=40, deadline=None)
@given(rows=histories(), chunk_rows=st.integers(1, 9), cut=st.integers(0, 30))
def test_a_worker_that_begins_warm_goes_on_as_the_replay(rows: list[Row], chunk_rows: int, cut: int) -> None:
    """Rows loaded from the history before a moment give every later transaction the features of one whole replay."""
    until_ms = rows[min(cut, len(rows) - 1)].transaction.event_time_ms
    later = [row for row in rows if row.transaction.event_time_ms >= until_ms]
    with tempfile.TemporaryDirectory() as folder:
        file = file_of(rows, folder)
        trained = replayed(file, chunk_rows)
        warm = warm_states(FEATURES, file, until_ms)
    store = MemoryStore(FEATURES, clock_ms=lambda: NOON_MS)
    for entity, of_entity in warm.items():
        store.load_rows(entity, of_entity)
    width = 4 * len(FEATURES.names)
    assert live(Desk(store), later, 5) == trained[width * (len(rows) - len(later)) :]


def test_matrices_are_float32_in_file_order() -> None:
    """A replay yields ids, times and labels beside the features, in the order of the file."""
    rows = [Row(Transaction(f"t{n}", NOON_MS + n, "c1", "w1", 1.0, 100), n % 2 == 0) for n in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        parts = list(replay(FEATURES, History(file_of(rows, folder), FEATURES, chunk_rows=2)))
    assert [name for part in parts for name in part.ids.to_pylist()] == [f"t{n}" for n in range(5)]
    assert np.concatenate([part.frauds for part in parts]).tolist() == [True, False, True, False, True]
    assert all(part.matrix.dtype == np.float32 for part in parts)
    assert np.concatenate([part.matrix[:, FEATURES.names.index("count")] for part in parts]).tolist() == [1, 2, 3, 4, 5]

"""A small labelled history with two kinds of fraud: large amounts, and terminals that are bad for a while."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

DAY_MS = 86_400_000
START_MS = 1_525_132_800_000  # 2018-05-01T00:00:00Z


def card_history(*, days: int = 40, per_day: int = 300, seed: int = 1) -> pa.Table:
    """`per_day` transactions on each of `days` days from 2018-05-01, in event-time order; 3 to 4 % are frauds."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    times = np.sort(rng.integers(0, days * DAY_MS, n)) + START_MS
    cards, terminals = rng.integers(0, 80, n), rng.integers(0, 60, n)
    amounts = np.round(rng.gamma(2.0, 5.0 + cards % 20), 2)
    large = rng.random(n) < 0.01
    amounts[large] += 250.0
    # Every terminal is bad for twelve days of its own; a third of what happens there then is fraud.
    bad = np.abs((times - START_MS) / DAY_MS - (terminals * 7) % days) < 6
    frauds = large | (bad & (terminals % 6 == 0) & (rng.random(n) < 0.6))
    return table(
        [f"t{at}" for at in range(n)],
        times,
        [f"c{card}" for card in cards],
        [f"w{terminal}" for terminal in terminals],
        amounts,
        frauds,
    )


def table(  # noqa: PLR0917 - the columns, in the order of the file
    ids: Any, times_ms: Any, cards: Any, terminals: Any, amounts: Any, frauds: Any
) -> pa.Table:
    """The columns of a history file."""
    times = pa.array(np.asarray(times_ms, np.int64)).cast(pa.timestamp("ms", "UTC"))
    names = ["transaction_id", "event_time", "card_id", "terminal_id", "amount", "is_fraud"]
    columns = [pa.array(ids), times, pa.array(cards), pa.array(terminals)]
    return pa.table([*columns, pa.array(amounts, pa.float64()), pa.array(frauds, pa.bool_())], names)


def written(history: pa.Table, path: Path) -> Path:
    """Write a history as Parquet or, by its name, as CSV; the path."""
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(history, path)
    else:
        pq.write_table(history, path)
    return path

"""A transaction that comes late, within the declared lateness, is judged as if it had come in time."""

import numpy as np

from fraudstream.core.features import DAY_MS, Columns, FeatureSet
from fraudstream.core.windows import States

LIST = """
[entities]
terminal = "terminal_id"
[calendar]
lateness = "{lateness}"
[windows]
late = {{ length = "3d", hop = "1d", delay = "2d" }}
[features]
count = {{ entity = "terminal", aggregate = "count", window = "late" }}
"""


def _counts(lateness: str, days: list[int]) -> list[float]:
    features = FeatureSet.parse(LIST.format(lateness=lateness))
    (entity,) = features.entities
    n = len(days)
    columns = Columns(np.array(days) * DAY_MS + 20_000 * DAY_MS, np.ones(n), np.full(n, 100), {"terminal": ["w1"] * n})
    states = States(entity.layout, 1)
    observed = features.observe(entity, states, np.zeros(n, np.int64), columns)
    return [float(value) for value in features.matrix(columns, {"terminal": observed})[:, 0]]


def test_within_the_lateness_the_window_is_whole() -> None:
    """Day 6 looks at days 1 to 3 whether or not day 7 came first."""
    in_order, late = _counts("1d", [1, 2, 3, 6, 7]), _counts("1d", [1, 2, 3, 7, 6])
    assert in_order[3] == late[4] == 3


def test_beyond_the_lateness_the_oldest_tile_is_forgotten() -> None:
    """Without lateness, a transaction that comes after a younger one misses the oldest day of its window."""
    assert _counts("0s", [1, 2, 3, 7, 6])[4] == 2

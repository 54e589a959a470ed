"""Whole simulated months through training, counting and watch: quiet where nothing moves, soon told where something does.

`benchmarks/bench_drift.py` does the same for more seeds and larger worlds; its figures are in docs/decisions/drift.md.
"""

from pathlib import Path

import pytest
from benchmarks.bench_drift import Month, month

CARDS = 300


def watched(seed: int, kind: str, directory: Path, days: int) -> Month:
    return month(seed, kind, directory, cards=CARDS, days=days, looks_every_h=3)


def test_months_without_drift_alarm_no_more_than_asked(tmp_path: Path) -> None:
    """Three months, one alarm a month asked for: at most three."""
    months = [watched(seed, "none", tmp_path, 30) for seed in (1, 2, 3)]
    told = [f"{alarm.kind} {alarm.subject}" for one in months for alarm in one.alarms]
    assert len(told) <= 3, told


@pytest.mark.parametrize(
    ("kind", "subjects"), [("amount", {"amount", "amount_to_card_mean"}), ("terminals", {"terminal_count_7d"})]
)
def test_drift_is_alarmed_within_a_day(kind: str, subjects: set[str], tmp_path: Path) -> None:
    """Amounts times 1.5, or all terminals renumbered: the first alarm within 600 transactions, and of the right thing."""
    found = watched(1, kind, tmp_path, 12)
    first = found.since_drift()
    assert first is not None
    assert first[0] <= 600
    assert subjects <= {alarm.subject for alarm in found.alarms if alarm.transactions > found.before}

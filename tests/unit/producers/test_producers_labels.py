"""Labels: how late they come, from whom, and that their time gives nothing away."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from fraudstream_producers.columns import epoch_ms
from fraudstream_producers.labels import Labels, verdicts
from fraudstream_producers.settings import Settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.world import WorldSettings

DAY_MS = 86_400_000
MANY = np.arange(100_000) % 2 == 0


@pytest.mark.parametrize("delay", ["lognormal", "gamma"])
def test_chargebacks_take_about_a_week_and_never_more_than_the_cap(delay: str) -> None:
    """Median 7 days within 3 %, a wide spread, and none after 120 days, for both distributions."""
    settings = msgspec.convert({"delay": delay, "analyst_fraud_share": 0.0, "analyst_honest_share": 0.0}, Labels)
    days = verdicts(settings, MANY, 7, 0).delay_ms / DAY_MS
    assert np.median(days) == pytest.approx(7.0, rel=0.03)
    assert np.quantile(days, 0.1) < 4
    assert np.quantile(days, 0.9) > 14
    assert days.max() <= 120


def test_lognormal_quantiles_are_those_of_the_formula() -> None:
    """With sigma 0.8 the quantiles at one standard deviation are median * exp(-0.8) and median * exp(0.8)."""
    settings = Labels(analyst_fraud_share=0.0, analyst_honest_share=0.0)
    low, high = np.quantile(verdicts(settings, MANY, 7, 0).delay_ms / DAY_MS, [0.1587, 0.8413])
    assert low == pytest.approx(7 * np.exp(-0.8), rel=0.03)
    assert high == pytest.approx(7 * np.exp(0.8), rel=0.03)


def test_analysts_are_quick_and_see_a_share() -> None:
    """An analyst's verdict comes within hours, for 15 % of the frauds and 1 % of the others."""
    known = verdicts(Labels(), MANY, 7, 0)
    hours = known.delay_ms[known.by_analyst] / 3_600_000
    assert np.median(hours) == pytest.approx(3.0, rel=0.05)
    assert np.quantile(hours, 0.99) < 24
    assert known.by_analyst[MANY[known.row]].mean() == pytest.approx(0.15, abs=0.01)
    assert known.by_analyst[~MANY[known.row]].mean() == pytest.approx(0.01, abs=0.003)


def test_the_time_of_a_chargeback_says_nothing_about_the_verdict() -> None:
    """Chargeback delays of frauds and of honest transactions have the same quantiles."""
    known = verdicts(Labels(), MANY, 7, 0)
    late = ~known.by_analyst
    fraud = MANY[known.row]
    for quantile in (0.1, 0.5, 0.9):
        one, other = (np.quantile(known.delay_ms[late & kind], quantile) for kind in (fraud, ~fraud))
        assert one == pytest.approx(other, rel=0.05)


def test_honest_transactions_can_stay_without_label() -> None:
    """With honest_share 0.25 every fraud and a quarter of the others get a label."""
    known = verdicts(Labels(honest_share=0.25), MANY, 7, 0)
    assert MANY[known.row].sum() == MANY.sum()
    assert (~MANY[known.row]).sum() / (~MANY).sum() == pytest.approx(0.25, abs=0.01)


def test_delays_scale() -> None:
    """Half the scale is half of each delay, with the same labels; no label is at or before its transaction."""
    full, half, none = (verdicts(Labels(), MANY, 7, 0, scale) for scale in (1.0, 0.5, 0.0))
    assert np.abs(half.delay_ms - full.delay_ms / 2).max() <= 1
    assert (half.row == full.row).all()
    assert none.delay_ms.min() == 1


def test_labels_tell_the_truth_in_the_columns_of_a_labels_file() -> None:
    """Each transaction has one right label, later than itself; a fraud's names its pattern, an honest one's nothing."""
    day = Simulation(Settings(world=WorldSettings(cards=500, terminals=800))).day(0)
    labels = day.labels()
    assert labels["transaction_id"].to_pylist() == day.transactions["transaction_id"].to_pylist()
    assert labels["is_fraud"].to_pylist() == day.transactions["is_fraud"].to_pylist()
    assert (epoch_ms(labels["label_time"]) > epoch_ms(day.transactions["event_time"])).all()
    honest = labels.filter(pa.array(day.pattern == 0))
    assert honest["reason"].null_count == len(honest)
    assert labels.filter(pa.array(day.pattern > 0))["reason"].null_count == 0
    assert set(labels["source"].to_pylist()) == {"chargeback", "analyst"}


def test_some_frauds_are_told_twice_with_the_same_verdict() -> None:
    """With again_share 0.5 half of the frauds an analyst found get a chargeback as well; nothing else changes."""
    once, twice = verdicts(Labels(), MANY, 7, 0), verdicts(Labels(again_share=0.5), MANY, 7, 0)
    count = len(once.row)
    for name in ("row", "delay_ms", "by_analyst"):
        assert np.array_equal(getattr(twice, name)[:count], getattr(once, name))
    again = twice.row[count:]
    found = once.row[once.by_analyst & MANY[once.row]]
    assert np.isin(again, found).all()
    assert len(again) / len(found) == pytest.approx(0.5, abs=0.02)
    assert not twice.by_analyst[count:].any()
    assert np.median(twice.delay_ms[count:]) / DAY_MS == pytest.approx(7.0, rel=0.05)

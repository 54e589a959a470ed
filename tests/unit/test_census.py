"""Counting for drift: every transaction in one hour and one run, in whole numbers, whatever the batches were."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core.census import HOUR_MS, RUN_OFFSETS, SCORE, Counts, Monitor, Seen
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Commit
from fraudstream.testing import Driver, card_transaction, toy_model

EDGES = {"amount": [10.0, 50.0, 100.0], "flag": [0.0]}
SCORE_EDGES = [0.1, 0.5]
MONITOR = Monitor(EDGES, SCORE_EDGES, ("new.card",))


def seen(count: int, seed: int = 0, first_offset: int = 0) -> Seen:
    random = np.random.default_rng(seed)
    scores = random.random(count)
    matrix = np.column_stack((random.choice([5, 10, 10.5, 50, 99, 100, 101], count), random.integers(0, 2, count)))
    return Seen(
        partitions=np.zeros(count, np.int64),
        offsets=np.arange(first_offset, first_offset + count),
        times_ms=random.integers(0, 3 * HOUR_MS, count),
        amounts_minor=random.integers(0, 100_000, count),
        matrix=matrix.astype(np.float32),
        champion=scores,
        scores=scores,
        alerts=scores >= 0.5,
        blocks=scores >= 0.9,
        firsts={"new.card": np.flatnonzero(random.random(count) < 0.3)},
    )


def part(whole: Seen, start: int, stop: int) -> Seen:
    cut = slice(start, stop)
    firsts = whole.firsts["new.card"]
    inside = firsts[(firsts >= start) & (firsts < stop)] - start
    fields = ("partitions", "offsets", "times_ms", "amounts_minor", "matrix", "champion", "scores", "alerts", "blocks")
    return Seen(**{name: getattr(whole, name)[cut] for name in fields}, firsts={"new.card": inside})


def counted(batches: Iterable[Seen], partition: int = 0) -> dict[str, bytes]:
    rows: dict[str, bytes] = {}
    for batch in batches:
        names = MONITOR.names(partition, batch.offsets.tolist(), batch.times_ms.tolist())
        there = replace(batch, partitions=np.full_like(batch.offsets, partition))
        rows.update(MONITOR.count({name: rows.get(name) for name in names}, there))
    return rows


def of_kind(rows: dict[str, bytes], kind: str) -> Counts:
    return MONITOR.read(row for name, row in rows.items() if name.rpartition(":")[2].startswith(kind))


def test_partitions_counted_together_are_counted_apart() -> None:
    """A batch of several partitions leaves the censuses that each would have left by itself."""
    whole = seen(600)
    partitions = np.random.default_rng(1).integers(0, 3, 600)
    together = dict(MONITOR.count({}, replace(whole, partitions=partitions), {1: [5], 4: [7]}))
    apart: dict[str, bytes] = {}
    for partition in range(5):
        own = partitions == partition
        fields = ("offsets", "times_ms", "amounts_minor", "matrix", "champion", "scores", "alerts", "blocks")
        new = np.flatnonzero(np.isin(np.flatnonzero(own), whole.firsts["new.card"]))
        cut = Seen(
            partitions=partitions[own], **{name: getattr(whole, name)[own] for name in fields}, firsts={"new.card": new}
        )
        apart.update(MONITOR.count({}, cut, {at: of for at, of in {1: [5], 4: [7]}.items() if at == partition}))
    assert together == apart


@pytest.mark.parametrize("kind", ["h", "r"])
def test_bins_and_sums_are_those_of_a_plain_count(kind: str) -> None:
    """Hours and runs alike add up to what numpy counts over all transactions at once."""
    batch = seen(3_000)
    counts = of_kind(counted([batch]), kind)
    for at, (name, edges) in enumerate(EDGES.items()):
        bins = [-np.inf, *edges, np.inf]
        values = batch.matrix[:, at]
        expected = [int(((values > low) & (values <= high)).sum()) for low, high in pairwise(bins)]
        assert counts.bins[name].tolist() == expected
    score_bins = [
        int((batch.scores <= 0.1).sum()),
        int(((batch.scores > 0.1) & (batch.scores <= 0.5)).sum()),
        int((batch.scores > 0.5).sum()),
    ]
    assert counts.bins[SCORE].tolist() == score_bins
    assert counts.transactions == 3_000
    assert counts.sums["alerts"] == int(batch.alerts.sum())
    assert counts.sums["blocks"] == int(batch.blocks.sum())
    assert counts.sums["new.card"] == len(batch.firsts["new.card"])
    assert counts.sums["amount"] == int(batch.amounts_minor.sum())
    assert counts.sums["score"] == pytest.approx(batch.scores.sum() * 1e6, abs=3_000)
    assert counts.sums["alert_score"] == pytest.approx(batch.scores[batch.alerts].sum() * 1e6, abs=3_000)
    lost = batch.amounts_minor * batch.scores
    assert counts.sums["amount_score"] == pytest.approx(lost.sum(), abs=3_000)
    assert counts.newest_ms == batch.times_ms.max()


@given(cuts=st.sets(st.integers(1, 2_999), max_size=8), seed=st.integers(0, 50))
def test_how_the_batches_were_cut_makes_no_difference(cuts: set[int], seed: int) -> None:
    """The same transactions in other batches leave the same bytes: a redelivery after a crash counts as it did."""
    whole = seen(3_000, seed)
    bounds = [0, *sorted(cuts), 3_000]
    pieces = [part(whole, start, stop) for start, stop in pairwise(bounds)]
    assert counted(pieces) == counted([whole])


def test_censuses_of_partitions_add_up() -> None:
    """The sum over the censuses of two partitions is that of one partition with the transactions of both."""
    one, other = seen(700, 1), seen(900, 2, first_offset=700)
    apart = counted([one], 0) | counted([other], 1)
    together = counted([one, other], 0)
    for kind in "hr":
        left, right = of_kind(apart, kind), of_kind(together, kind)
        assert left.sums == right.sums
        assert {n: b.tolist() for n, b in left.bins.items()} == {n: b.tolist() for n, b in right.bins.items()}


def test_the_bins_are_named_by_what_they_are() -> None:
    """Another edge is another digest: counts in different bins never meet under one key."""
    assert Monitor(EDGES, SCORE_EDGES).digest != Monitor(EDGES | {"flag": [0.5]}, SCORE_EDGES).digest
    assert Monitor(EDGES, SCORE_EDGES).digest != Monitor(EDGES, [0.1, 0.6]).digest
    assert Monitor(EDGES, SCORE_EDGES).digest != MONITOR.digest


# --- in a worker -------------------------------------------------------------------------------------------------------


def monitored() -> Driver:
    features = FeatureSet.parse("""
[entities]
card = "card_id"
shop = "shop"

[windows]
h2 = { length = "2h", hop = "1h" }

[features]
amount = { field = "amount" }
age = { field = "age" }
count = { entity = "card", aggregate = "count", window = "h2" }
shop_count = { entity = "shop", aggregate = "count", window = "h2" }
""")
    model = toy_model(features)
    model.monitor = Monitor({name: [10.0] for name in features.names}, [0.5], features.extra_counts)
    return Driver(model=model, features=features)


def total(driver: Driver, kind: str) -> Counts:
    monitor = driver.model.monitor
    assert monitor is not None
    names = monitor.names(0, range(0, 10 * RUN_OFFSETS, RUN_OFFSETS), range(0, 2**41, HOUR_MS))
    wanted = [name for name in names if name.rpartition(":")[2].startswith(kind)]
    return monitor.read(driver.store.rows({"#census": wanted})["#census"])


def test_a_worker_counts_first_sights_missing_fields_and_rejects() -> None:
    """A new card counts once, an absent or null field each time, a record that is no transaction in its run."""
    driver = monitored()
    for number, extra in enumerate(({"age": 30, "shop": "s1"}, {"age": None, "shop": "s1"}, {})):
        driver.pipe(card_transaction(transaction_id=f"t{number}", card_id="c2" if number == 2 else "c1", **extra))
    driver.pipe(b"no transaction")
    sums = total(driver, "r").sums
    found = {name: n for name, n in sums.items() if name.startswith(("new", "missing")) or name == "rejected"}
    assert found == {"rejected": 1, "new.card": 2, "new.shop": 1, "missing.age": 2, "missing.shop": 1}
    assert total(driver, "h").sums["rejected"] == 0
    assert driver.store.watermarks() == {0: 3}


def test_a_duplicate_and_a_redelivery_count_nothing() -> None:
    """Only what is decided is counted, and once: not a retry of the producer, not the same record after a crash."""
    driver = monitored()
    driver.append(card_transaction(transaction_id="a"), b"poison")
    driver.run(acknowledge=False)
    driver.crash()
    driver.run()
    driver.pipe(card_transaction(transaction_id="a", minutes=1))
    sums = total(driver, "r").sums
    assert (sums["transactions"], sums["rejected"]) == (1, 1)


def test_a_commit_without_a_monitor_has_no_census() -> None:
    """A model without a reference costs nothing."""
    assert Commit.__dataclass_fields__["census"].default == ()
    driver = Driver()
    driver.pipe(card_transaction())
    assert not [key for key in driver.store._rows if key[0] == "#census"]  # type: ignore[attr-defined]

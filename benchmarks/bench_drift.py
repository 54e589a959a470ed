"""How soon drift is alarmed, and how often nothing is: simulated months through the watch.

    python benchmarks/bench_drift.py [--seeds 20] [--cards 600] [--kinds none,amount,pattern,terminals]

For every seed: 90 days of the producers' simulator, on which a version is trained as `fraudstream train` does it, then 30
days that are counted as commits count them and watched as a worker watches, once an hour; labels come after seven days.
Drift, where there is some, begins on day 97, when a week of labels of the version's own days is known by then or soon
after. Printed are the alarms of each month, and how many transactions after its beginning a drift was first alarmed.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.core.alarms import Alarm
from fraudstream.core.census import CENSUS, HOUR_MS, Monitor, Seen
from fraudstream.core.features import DAY_MS, FeatureSet
from fraudstream.core.quality import Judged, Quality
from fraudstream.core.watch import Limits
from fraudstream.models.champion import OnnxModel
from fraudstream.models.history import Replayed, replay
from fraudstream.models.history_file import History
from fraudstream.models.registry import Registry
from fraudstream.models.train import TrainSettings, train
from fraudstream.services.watching import Watcher
from fraudstream_producers.drift import parse_drift
from fraudstream_producers.settings import Settings, WorldSettings, checked
from fraudstream_producers.simulation import Simulation

TRAINED_DAYS, DRIFT_DAY, LABEL_DAYS = 90, 97, 7
KINDS = {
    "none": (),
    "amount": (f"amount:{DRIFT_DAY}:1.5",),
    "pattern": (f"pattern:{DRIFT_DAY}:gift_cards:0.9",),
    "terminals": (f"terminals:{DRIFT_DAY}",),
}


@dataclass
class CountedStore:
    """What the watch reads of a state store: censuses, written here without transactions' state beside them."""

    rows_held: dict[str, bytes] = field(default_factory=dict)
    decided: int = 0

    def rows(self, keys: Mapping[str, Sequence[str]]) -> dict[str, list[bytes | None]]:
        return {CENSUS: [self.rows_held.get(name) for name in keys[CENSUS]]}

    def watermarks(self) -> dict[int, int]:
        return {0: self.decided - 1}

    def counts(self) -> dict[str, int]:
        return {"decided": self.decided}

    def count(self, monitor: Monitor, seen: Seen) -> None:
        names = monitor.names(0, seen.offsets.tolist(), seen.times_ms.tolist())
        self.rows_held.update(monitor.count({name: self.rows_held.get(name) for name in names}, seen))
        self.decided += len(seen.offsets)


@dataclass
class Kept:
    """The watch's state, and that of quality, as Redis would keep them."""

    state: bytes | None = None
    judged: Quality = field(default_factory=Quality)

    def hold(self, owner: str, ttl_ms: int) -> bool:
        return True

    def load(self) -> bytes | None:
        return self.state

    def save(self, owner: str, state: bytes) -> bool:
        self.state = state
        return True

    def quality(self) -> dict[str, bytes]:
        return self.judged.fields()


@dataclass
class Month:
    """What came of 30 days: alarms that began, and the number of transactions before the drift."""

    alarms: list[Alarm]
    before: int
    transactions: int

    def since_drift(self) -> tuple[int, Alarm] | None:
        """The first alarm of the drift, and after how many transactions of it."""
        drifted = [alarm for alarm in self.alarms if alarm.transactions > self.before]
        return (drifted[0].transactions - self.before, drifted[0]) if drifted else None


def simulate(seed: int, cards: int, kind: str, path: Path, days: int) -> None:
    world = msgspec.structs.replace(WorldSettings(), cards=cards, terminals=2 * cards)
    drift = tuple(parse_drift(spec) for spec in KINDS[kind])
    simulation = Simulation(checked(Settings(seed=seed, world=world, drift=drift)))
    pq.write_table(pa.concat_tables([simulation.day(day).transactions for day in range(days)]), path)


def month(
    seed: int, kind: str, directory: Path, *, cards: int, days: int = 30, alarms_per_month: float = 1.0,
    looks_every_h: int = 1, estimator: str | None = None,
) -> Month:  # fmt: skip
    """Train on what came before, then watch the days that follow."""
    path, features = directory / f"{kind}-{seed}.parquet", FeatureSet.default()
    simulate(seed, cards, kind, path, TRAINED_DAYS + days)
    history = History(path, features)
    start_ms = history.first_ms // DAY_MS * DAY_MS
    until_ms = start_ms + TRAINED_DAYS * DAY_MS
    chosen = {} if estimator is None else {"estimator": estimator}
    settings = TrainSettings(
        path,
        directory / f"registry-{kind}-{seed}",
        start_ms,
        until_ms,
        LABEL_DAYS * DAY_MS,
        alerts_per_day=10.0,
        **chosen,
    )  # type: ignore[arg-type]
    train(settings)
    model = OnnxModel(Registry(settings.registry).load("fraud", "1"), features)
    live = list(replay(features, History(path, features), from_ms=until_ms))
    return watch(model, live, start_ms, alarms_per_month, looks_every_h)


def watch(
    model: OnnxModel, live: Sequence[Replayed], start_ms: int, alarms_per_month: float, looks_every_h: int
) -> Month:
    """Count, judge and look, hour by hour."""
    times_ms, frauds = (np.concatenate([getattr(part, name) for part in live]) for name in ("times_ms", "frauds"))
    matrix = np.concatenate([part.matrix for part in live])
    minor = np.rint(np.concatenate([part.amounts for part in live]) * 100).astype(np.int64)
    scores = model.score(matrix).champion
    store, kept = CountedStore(), Kept()
    watcher = Watcher(
        (model.name, model.version), model.monitor, model.reference, store,  # type: ignore[arg-type]
        state=kept, publisher=MemoryPublisher(), limits=Limits(alarms_per_month), cool_down_ms=DAY_MS,
        look_every_ms=10_000, wall_ms=lambda: int(times_ms[-1]),
    )  # fmt: skip
    alarms: list[Alarm] = []
    hours, judged_day = times_ms // HOUR_MS, int(times_ms[0] // DAY_MS)
    for hour in range(int(hours[0]), int(hours[-1]) + 1):
        rows = slice(*np.searchsorted(hours, (hour, hour + 1)).tolist())
        n = rows.stop - rows.start
        if n:
            alerts = scores[rows] >= model.review_threshold
            blocks = scores[rows] >= model.block_threshold
            offsets = np.arange(store.decided, store.decided + n)
            store.count(
                model.monitor,
                Seen(
                    np.zeros(n, np.int64),
                    offsets,
                    times_ms[rows],
                    minor[rows],
                    matrix[rows],
                    scores[rows],
                    scores[rows],
                    alerts,
                    blocks,
                    {},
                ),
            )
        while judged_day + LABEL_DAYS < hour // 24:
            known = times_ms // DAY_MS == judged_day
            limits = (np.full(known.sum(), limit) for limit in (model.review_threshold, model.block_threshold))
            kept.judged.update(
                Judged(f"{model.name} {model.version}", times_ms[known], frauds[known], minor[known], *limits,
                       {"champion": scores[known]})
            )  # fmt: skip
            judged_day += 1
        if hour % looks_every_h == 0:
            alarms += [alarm for alarm in watcher.look() if alarm.ended_ms is None]
    before = int((times_ms < start_ms + DRIFT_DAY * DAY_MS).sum())
    return Month(alarms, before, len(times_ms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cards", type=int, default=600)
    parser.add_argument("--kinds", default="none,amount,pattern,terminals")
    parser.add_argument("--alarms-per-month", type=float, default=1.0)
    options = parser.parse_args()
    logging.getLogger("fraudstream.watch").setLevel(logging.ERROR)
    for kind in options.kinds.split(","):
        counts, delays = [], []
        for seed in range(1, options.seeds + 1):
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as directory:
                found = month(
                    seed, kind, Path(directory), cards=options.cards, alarms_per_month=options.alarms_per_month
                )
            counts.append(len(found.alarms))
            first = found.since_drift() if kind != "none" else None
            delays.append(first[0] if first else None)
            told = ", ".join(f"{alarm.kind} {alarm.subject} {alarm.value / alarm.limit:.2f}" for alarm in found.alarms)
            after = f"; first after {first[0]:,} ({first[1].kind} {first[1].subject})" if first else ""
            print(
                f"{kind} seed {seed}: {found.transactions:,} transactions, {len(found.alarms)} alarms{after} "
                f"[{told[:300]}] {time.perf_counter() - began:.0f} s",
                flush=True,
            )
        known = [delay for delay in delays if delay is not None]
        print(f"{kind}: {np.mean(counts):.2f} alarms a month on average", end="")
        if kind != "none":
            print(f"; alarmed in {len(known)} of {len(delays)}", end="")
            print(
                f", after {np.median(known):,.0f} transactions (median), {max(known):,} (latest)" if known else "",
                end="",
            )
        print()


if __name__ == "__main__":
    main()

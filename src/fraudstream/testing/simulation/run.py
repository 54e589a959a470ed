"""A seed's run: stages of logs, workers that come and go, faults between any two steps; then healing and the questions.

Everything is decided by one `random.Random(seed)` on one virtual clock, so a run can be repeated to the byte.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from faust.types import TP

from fraudstream.core.features import DAY_MS, FeatureSet
from fraudstream.core.ports import Model
from fraudstream.errors import BrokerUnavailable, SettingsError, StateUnavailable
from fraudstream.testing.faults import ForgetfulStore, WorkerKilled
from fraudstream.testing.simulation.logs import FEATURES, STAGE_BEGIN_MS, Logs, Upstream
from fraudstream.testing.simulation.oracle import check
from fraudstream.testing.simulation.promises import PromiseBroken
from fraudstream.testing.simulation.worker import AgeingModel, VirtualBroker, VirtualWorker

# Far above what any seed needs (about 15); a partition that stands still must not hang the suite.
DRAIN_TURNS_MAX = 100
WORKERS_MAX = 3
# Others may act inside a worker's step, and others again inside theirs; deeper nesting tests nothing new.
NESTING_MAX = 2


class StuckError(PromiseBroken):
    """Healed, and still not drained."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of, to be replaced by parts of your own: a model, a feature list, a store, a worker.

    `model` makes the model of the worker with a number; its models have to agree in all but their version. A window of
    a terminal needs a delay of a day or more: between partitions that are read in any order, nothing younger can be the
    same in every run.
    """

    store: type[ForgetfulStore] = ForgetfulStore
    worker: type[VirtualWorker] = VirtualWorker
    features: FeatureSet = FEATURES
    model: Callable[[FeatureSet, int], Model] = AgeingModel

    def __post_init__(self) -> None:
        shared = {entity.name for entity in self.features.entities if not entity.owned}
        spec = self.features.spec
        delays_ms = [spec.windows[f.window].delay_ms for f in spec.features.values() if f.entity in shared and f.window]
        strange = {entity.field for entity in self.features.entities} - {"card_id", "terminal_id"}
        if strange or min(delays_ms, default=DAY_MS) < DAY_MS:
            raise SettingsError("the simulation knows cards, and terminals whose windows have a delay of a day or more")


@dataclass
class Weather:
    """How often what goes wrong in this seed, per moment or per step. Every seed has a weather of its own."""

    kill: float
    outage: float
    others_first: float
    rebalance: float
    rewinds: bool
    runs_ahead: bool  # workers answer provisionally while the store is away


@dataclass
class Simulation:
    """One seed."""

    seed: int
    parts: Parts = field(default_factory=Parts)
    trace: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        self.rng = rng = Random(self.seed)
        self.weather = Weather(
            kill=rng.choice((0.0, 0.02, 0.06)),
            outage=rng.choice((0.0, 0.04, 0.1)),
            others_first=rng.choice((0.0, 0.15, 0.4)),
            rebalance=rng.choice((0.05, 0.2, 0.35)),
            rewinds=rng.random() < 0.3,
            runs_ahead=rng.random() < 0.4,
        )
        self.logs: Logs = Upstream(rng, data_is_lost=self.weather.rewinds).write()
        self.now_ms = STAGE_BEGIN_MS + DAY_MS
        self.store = self.parts.store(self.parts.features, clock_ms=lambda: self.now_ms)
        self.broker = VirtualBroker()
        self.workers: list[VirtualWorker] = []
        self.hired = 0
        self.rewound = 0
        self._healthy = True
        self._nesting = 0

    def run(self) -> None:
        """All stages; raises `PromiseBroken` where a promise is broken."""
        for number, records in enumerate(self.logs.stages, 1):
            # Traffic goes on after the faults: a store that lost data is noticed with the next record of each partition.
            ends = {tp: len(some) - 1 for tp, some in records.items()}
            self.broker.append({tp: some[: ends[tp]] for tp, some in records.items()})
            self.say(
                f"--- stage {number}: "
                + ", ".join(f"{tp.topic}[{tp.partition}] +{len(r)}" for tp, r in records.items())
            )
            # Data lost is data of this stage: older stages are what its windows see, and must be there whole.
            self.save()
            self._healthy = False
            if not any(worker.is_member for worker in self.workers):
                self.rebalance()
            for _ in range(self.rng.randint(4, 14)):
                self.step()
            self.heal()
            self.broker.append({tp: some[ends[tp] :] for tp, some in records.items()})
            self.drain()
        check(self)

    def say(self, text: str) -> None:
        if self.trace:
            self.trace("  " * self._nesting + text)

    # -- what happens

    def step(self) -> None:
        """One thing happens somewhere."""
        rng, weather = self.rng, self.weather
        self.now_ms += rng.randrange(100, 5000)
        free = [worker for worker in self.workers if worker.alive and not worker.busy]
        roll = rng.random()
        if roll < weather.rebalance or not free:
            self.rebalance()
        elif roll < weather.rebalance + 0.1 and weather.rewinds:
            self.save() if rng.random() < 0.5 else self.rewind()
        else:
            self.turn(rng.choice(free))

    def turn(self, worker: VirtualWorker, *, eager: bool = False) -> None:
        worker.turn(eager=eager)
        if self.trace:
            self.say(f"{worker.name}: {worker.said}" + ("" if worker.is_member or not worker.alive else " (zombie)"))

    def rebalance(self, *, everyone: bool = False) -> None:
        """A new generation. Who is busy, or does not hear of it, is a zombie until a later one."""
        rng = self.rng
        free = [worker for worker in self.workers if worker.alive and not worker.busy]
        if not free or (len(free) < WORKERS_MAX and rng.random() < 0.3):
            free.append(self._hire())
        members = free if everyone else [w for w in free if rng.random() < 0.7] or [rng.choice(free)]
        for worker in members:
            worker.leave()
        self.broker.generation += 1
        shares: dict[str, list[TP]] = {worker.name: [] for worker in members}
        tps = list(self.broker.logs)
        rng.shuffle(tps)
        for number, tp in enumerate(tps):
            shares[members[number % len(members)].name].append(tp)
        for worker in members:
            worker.join(shares[worker.name])
        if self.trace:
            told = {name: [f"{tp.topic[0]}{tp.partition}" for tp in share] for name, share in shares.items()}
            self.say(f"generation {self.broker.generation}: {told}")

    def _hire(self) -> VirtualWorker:
        self.hired += 1
        worker: VirtualWorker

        def at(moment: str) -> None:
            self.hit(worker, moment)

        worker = self.parts.worker(
            self.hired,
            self.broker,
            self.store,
            features=self.parts.features,
            model=self.parts.model(self.parts.features, self.hired),
            rng=self.rng,
            at=at,
            clock_ms=lambda: self.now_ms,
            runs_ahead=self.weather.runs_ahead,
        )
        self.workers.append(worker)
        return worker

    def hit(self, worker: VirtualWorker, moment: str) -> None:
        """A worker is between two steps: what hits it there?"""
        if self._healthy:
            return
        weather, roll = self.weather, self.rng.random()
        if roll < weather.kill:
            worker.said += f", killed {moment}"
            raise WorkerKilled(moment)
        roll -= weather.kill
        if roll < weather.outage:
            raise (BrokerUnavailable if moment.endswith("publish") else StateUnavailable)(f"away {moment}")
        roll -= weather.outage
        # Between what was read and what is written from it is the worst moment to be overtaken.
        likelihood = weather.others_first * (2.5 if moment in ("after gather", "after rows") else 1.0)
        if roll < likelihood and self._nesting < NESTING_MAX:
            self.say(f"{worker.name} rests {moment}, {worker.said}:")
            self._nesting += 1
            for _ in range(self.rng.randint(1, 3)):
                self.step()
            self._nesting -= 1

    def save(self) -> None:
        self.store.remember()
        self.say("store saved")

    def rewind(self) -> None:
        """Redis comes back as it was saved last. Nobody is told: whoever reads on has to notice."""
        self.rewound += 1
        self.say("store rewound")
        self.store.forget()

    # -- and in the end

    def heal(self) -> None:
        """No more faults. Every worker that lives hears of its group, unless all members live: then nobody is told."""
        self._healthy = True
        owners = {tp for worker in self.workers if worker.is_member for tp in worker.assigned}
        if owners != set(self.broker.logs) or any(w.alive and not w.is_member for w in self.workers):
            self.rebalance(everyone=True)
        self.say("--- healed")

    def drain(self) -> None:
        for _ in range(DRAIN_TURNS_MAX):
            if self.broker.drained():
                break
            for worker in self.workers:
                if worker.is_member:
                    self.now_ms += 1
                    self.turn(worker, eager=True)
        else:
            behind = {
                f"{tp.topic}[{tp.partition}]": (self.broker.committed.get(tp, 0), len(log))
                for tp, log in self.broker.logs.items()
            }
            raise StuckError(f"not drained after {DRAIN_TURNS_MAX} turns; committed and end: {behind}")

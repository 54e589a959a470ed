"""Seeds that do to the system whatever can be done to it, and what must hold all the same.

The real core, the real bookkeeping of the transport and the contract of the state store run on a virtual clock. A seed
decides crashes between any two steps, duplicates, the order across partitions, rebalances, zombies, outages of Redis and
Kafka, lost data and records that are none; then all is healed, drained and held against one sequential pass.

    python -m fraudstream.testing.simulation --seed 1234

tells a seed step by step; `--seeds 0:2000` runs many. For a model, a feature list or a store of your own:

>>> from fraudstream.testing.simulation import simulate
>>> simulate(7)
"""

from collections.abc import Callable

from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Model
from fraudstream.testing.simulation.logs import FEATURES
from fraudstream.testing.simulation.promises import PromiseBroken
from fraudstream.testing.simulation.run import Parts, Simulation
from fraudstream.testing.simulation.worker import AgeingModel, VirtualWorker

__all__ = ["AgeingModel", "Parts", "PromiseBroken", "Simulation", "VirtualWorker", "replay_command", "simulate"]


def simulate(
    seed: int,
    *,
    features: FeatureSet = FEATURES,
    model: Callable[[FeatureSet, int], Model] = AgeingModel,
    trace: Callable[[str], None] | None = None,
) -> None:
    """Run one seed to its end.

    Parameters
    ----------
    seed
        Decides everything: the same seed is the same run, to the byte.
    features, model
        See `Parts`, which also takes a store or a worker of your own: `Simulation(seed, Parts(store=...)).run()`.
    trace
        Told every step, for a story of what led to a fault.

    Raises
    ------
    PromiseBroken
        When something that must always hold did not.
    """
    Simulation(seed, Parts(features=features, model=model), trace=trace).run()


def replay_command(seed: int) -> str:
    """The command that tells a seed again."""
    return f"python -m fraudstream.testing.simulation --seed {seed}"

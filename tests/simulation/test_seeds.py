"""The promises of the system under everything that a seed can do to it. `SIMULATION_SEEDS=100000` tries more of them."""

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import Scores
from fraudstream.errors import SettingsError
from fraudstream.testing.simulation import AgeingModel, Parts, PromiseBroken, Simulation, replay_command, simulate

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000"))
SEEDS_PER_CASE = 100


def seeds() -> list[range]:
    return [range(start, min(start + SEEDS_PER_CASE, SEEDS)) for start in range(0, SEEDS, SEEDS_PER_CASE)]


@pytest.mark.parametrize("some", seeds(), ids=lambda some: f"{some.start}-{some.stop - 1}")
def test_any_run_ends_as_one_sequential_pass(some: range) -> None:
    """After crashes, rebalances, zombies, outages, retries and lost data every record, row and alert is as it must be."""
    for seed in some:
        try:
            simulate(seed)
        except Exception as error:  # noqa: BLE001 - whatever a run dies of, the seed has to be told
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\nrepeat with: {replay_command(seed)}", False)


def test_a_seed_is_told_again_to_the_letter() -> None:
    """The command that a failure names runs the same steps as the run that failed."""
    told: list[str] = []
    simulate(5, trace=told.append)
    _, *command = replay_command(5).split()
    again = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout.splitlines() == [*told, "seed 5: no promise broken"]


class Fickle(AgeingModel):
    """A model that is another one after each answer: it has no business in a stream."""

    def score(self, matrix: npt.NDArray[np.float32]) -> Scores:
        self._at = 1 - self._at
        return super().score(matrix)


def test_users_bring_a_model_and_a_list_of_their_own() -> None:
    """A model that answers the same holds in every seed, and one that does not is found out."""
    features = FeatureSet.parse("""
        entities.card = "card_id"
        windows.h1 = { length = "1h", hop = "30m" }
        features.amount = { field = "amount" }
        features.spent = { entity = "card", aggregate = "sum", window = "h1" }
    """)
    for seed in range(20):
        simulate(seed, features=features)
    assert any(breaks(seed, features) for seed in range(20))


def breaks(seed: int, features: FeatureSet) -> bool:
    try:
        simulate(seed, features=features, model=Fickle)
    except PromiseBroken:
        return True
    return False


def test_a_list_that_no_order_could_hold_is_refused() -> None:
    """Windows of terminals without a delay differ with the order in which partitions are read."""
    young = FeatureSet.parse("""
        entities.terminal = "terminal_id"
        windows.h1 = { length = "1h", hop = "30m" }
        features.amount = { field = "amount" }
        features.busy = { entity = "terminal", aggregate = "count", window = "h1" }
    """)
    with pytest.raises(SettingsError, match="the simulation knows cards, and terminals whose"):
        Simulation(0, Parts(features=young))

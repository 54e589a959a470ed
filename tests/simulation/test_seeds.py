"""The promises of the system under everything that a seed can do to it.

    SIMULATION_SEED=1234 python -m pytest tests/simulation/test_seeds.py

repeats one seed, step by step to the byte; `SIMULATION_SEEDS=100000` tries more of them.
"""

import contextlib
import os

import pytest

from tests.simulation.simulation import Simulation

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000"))
SEEDS_PER_CASE = 100
ONLY_SEED = os.environ.get("SIMULATION_SEED")


def seeds() -> list[range]:
    if ONLY_SEED is not None:
        return [range(int(ONLY_SEED), int(ONLY_SEED) + 1)]
    return [range(start, min(start + SEEDS_PER_CASE, SEEDS)) for start in range(0, SEEDS, SEEDS_PER_CASE)]


def story(seed: int) -> str:
    """What happened in a seed, step by step."""
    told: list[str] = []
    with contextlib.suppress(Exception):  # told by the caller, who met it first
        Simulation(seed, trace=told.append).run()
    return "\n".join(told)


@pytest.mark.parametrize("some", seeds(), ids=lambda some: f"{some.start}-{some.stop - 1}")
def test_any_run_ends_as_one_sequential_pass(some: range) -> None:
    """After crashes, rebalances, zombies, outages, retries and lost data every record, row and alert is as it must be."""
    for seed in some:
        try:
            Simulation(seed).run()
        except Exception as error:  # noqa: BLE001 - whatever a run dies of, the seed has to be told
            again = f"SIMULATION_SEED={seed} python -m pytest tests/simulation/test_seeds.py"
            pytest.fail(f"{story(seed)}\nseed {seed}: {type(error).__name__}: {error}\nrepeat with: {again}", False)

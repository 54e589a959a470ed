"""Random numbers that depend on what they are for, not on when they are drawn.

Every use has a generator of its own, named by the seed, a stream and numbers such as the day. That is why a day of
the simulation is the same whether it is made first, last or alone.
"""

from enum import IntEnum

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

# Campaigns run before day 0 as well, but a seed sequence takes no negative numbers. Ten years are longer than any campaign.
_NUMBERS_OFFSET = 3_650


class Stream(IntEnum):
    """What the numbers are for. The values are part of every seed's world: never renumber."""

    CARDS = 0
    TERMINALS = 1
    TRAFFIC = 2
    CAMPAIGNS = 3
    FRAUDS = 4
    LABELS = 5
    FAULTS = 6
    DRIFT = 7


def generator(seed: int, stream: Stream, *numbers: int) -> Generator:
    """A generator for one purpose: equal arguments give equal numbers, on every machine.

    `seed` is at least 0; each of `numbers` (a day, a pattern) is at least -3650.
    """
    return np.random.Generator(PCG64(SeedSequence([seed, stream, *(n + _NUMBERS_OFFSET for n in numbers)])))

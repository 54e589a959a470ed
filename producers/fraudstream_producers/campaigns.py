"""When campaigns begin: as many of each pattern as the fraud rate asks for, spread evenly over the days."""

from collections.abc import Sequence

import numpy as np

from fraudstream_producers.drift import Drift, shares_on
from fraudstream_producers.frauds import Frauds
from fraudstream_producers.randomness import Stream, generator
from fraudstream_producers.world import Floats, Ints, Traffic, World


class Campaigns:
    """The frauds of any day, as a pure function of seed, settings and day.

    The number of campaigns that begin on a day is not drawn: it is what keeps the running total next to the wanted
    one (rounded, from a random start), so that even a short simulation comes close to its fraud rate.
    """

    def __init__(self, world: World, frauds: Frauds, drift: Sequence[Drift]) -> None:
        self._world = world
        self._frauds = frauds
        self._drift = drift
        self._patterns = list(frauds.patterns().items())
        self._days_max = max(pattern.days for _, pattern in self._patterns)
        self._frauds_each = [pattern.frauds_per_campaign(world) for _, pattern in self._patterns]
        self._phase = generator(world.seed, Stream.CAMPAIGNS).random(len(self._patterns))
        # Campaigns that began before day 0 are still running on it. _due[k] is for the days before k - _days_max.
        self._due = [np.zeros(len(self._patterns))]

    def act(self, traffic: Traffic, day: int) -> Traffic:
        """The day's honest traffic with every running campaign's frauds in it (not in time order)."""
        for place, (_, pattern) in enumerate(self._patterns):
            targets = [self._targets(place, began) for began in range(day - pattern.days + 1, day + 1)]
            rng = generator(self._world.seed, Stream.FRAUDS, place, day)
            traffic = pattern.act(self._world, traffic, np.concatenate(targets), place + 1, rng)
        return traffic

    def _targets(self, place: int, began: int) -> Ints:
        row = began + self._days_max
        self._extend_due(row + 1)
        before, after = (self._due[k][place] + self._phase[place] for k in (row, row + 1))
        count = int(np.floor(after) - np.floor(before))
        if not count:
            return np.empty(0, np.int64)
        rng = generator(self._world.seed, Stream.CAMPAIGNS, place, began)
        return self._patterns[place][1].targets(self._world, count, rng)

    def _extend_due(self, row: int) -> None:
        while len(self._due) <= row:
            day = len(self._due) - 1 - self._days_max
            self._due.append(self._due[-1] + self._per_day(day))

    def _per_day(self, day: int) -> Floats:
        """Wanted number of beginning campaigns per pattern on one day."""
        weights = {name: pattern.share_of_frauds for name, pattern in self._patterns}
        shares = shares_on(day, weights, self._drift)
        added = sum(shares[name] for name, pattern in self._patterns if pattern.adds)
        rate = self._frauds.rate
        # F = rate * (honest traffic + added share * F): what a campaign adds makes the total larger as well.
        frauds = rate * self._world.honest_per_day / (1 - rate * added)
        return np.array(
            [frauds * shares[name] / each for (name, _), each in zip(self._patterns, self._frauds_each, strict=True)]
        )

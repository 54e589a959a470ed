"""Cards with habits, terminals in space, and a day of honest traffic between them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.random import Generator
from numpy.typing import NDArray

from fraudstream_producers.randomness import Stream, generator

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

# A card has this many places it goes to, the first one most often (Zipf), and explores for the rest of its purchases.
FAVOURITES = 16
EXPLORE_SHARE = 0.12
# Some purchases keep no hours (subscriptions, travel), and one in a hundred is an occasion: a fridge, a flight.
ANY_HOUR_SHARE = 0.04
OCCASION_SHARE = 0.01
# About this many terminals fall into a cell of the map, so that a point finds one close by without a search tree.
TERMINALS_PER_CELL = 4
RURAL_SHARE = 0.15
# One card sends at most this many transactions on an average day; the tail of the gamma would make shops of people.
TRANSACTIONS_PER_DAY_MAX = 12.0


class WorldSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size and shape of the world. Amounts in major units, distances in km."""

    cards: Annotated[int, Meta(ge=1, le=5_000_000)] = 5_000
    terminals: Annotated[int, Meta(ge=1, le=5_000_000)] = 10_000
    transactions_per_card_day: Annotated[float, Meta(gt=0, le=10)] = 2.0
    spend_median: Annotated[float, Meta(gt=0, le=100_000)] = 35.0
    side_km: Annotated[float, Meta(gt=0)] = 300.0
    card_radius_km: Annotated[float, Meta(gt=0)] = 5.0


@dataclass(slots=True)
class Traffic:
    """Transactions as columns of equal length. `pattern` is 0 for honest ones, else the number of the fraud pattern."""

    time_ms: Ints  # since midnight UTC, 0 to DAY_MS - 1
    card: Ints
    terminal: Ints
    amount: Floats  # major units, before rounding
    pattern: Ints

    def __len__(self) -> int:
        return len(self.time_ms)

    @staticmethod
    def concatenated(parts: list[Traffic]) -> Traffic:
        """All parts after one another."""
        return Traffic(
            *(
                np.concatenate([getattr(p, name) for p in parts])
                for name in ("time_ms", "card", "terminal", "amount", "pattern")
            )
        )

    def in_time_order(self) -> Traffic:
        """The same transactions by time; those of the same millisecond keep their order."""
        order = np.argsort(self.time_ms, kind="stable")
        return Traffic(
            self.time_ms[order], self.card[order], self.terminal[order], self.amount[order], self.pattern[order]
        )


@dataclass(frozen=True, slots=True)
class Cards:
    """Habits, one entry per card."""

    home_km: Floats  # [n, 2]
    radius_km: Floats
    per_day: Floats  # transactions on an average day
    weekend: Floats  # how much livelier a Saturday or Sunday is than the average day
    peak_hour: Floats
    width_hours: Floats
    log_spend: Floats  # logarithm of the median amount
    log_spread: Floats  # standard deviation of the logarithm


class Terminals:
    """Terminals on a map, found by a point near them."""

    def __init__(self, position_km: Floats, log_price: Floats, side_km: float) -> None:
        self.position_km = position_km  # [n, 2]
        self.log_price = log_price
        self._cells_per_side = max(1, int(np.sqrt(len(position_km) / TERMINALS_PER_CELL)))
        self._cell_km = side_km / self._cells_per_side
        cell = self._cell(position_km)
        self._by_cell = np.argsort(cell, kind="stable")
        self._count = np.bincount(cell, minlength=self._cells_per_side**2)
        self._first = np.cumsum(self._count) - self._count
        self._nearest = self._nearest_filled_cell()

    def __len__(self) -> int:
        return len(self.log_price)

    def near(self, point_km: Floats, rng: Generator) -> Ints:
        """One terminal near each of the points [n, 2]: of the point's cell, or of the closest cell that has any."""
        cell = self._nearest[self._cell(point_km)]
        place = self._first[cell] + (rng.random(len(cell)) * self._count[cell]).astype(np.int64)
        return np.take(self._by_cell, place)

    def _cell(self, point_km: Floats) -> Ints:
        column = np.clip((point_km / self._cell_km).astype(np.int64), 0, self._cells_per_side - 1)
        return column[:, 0] * self._cells_per_side + column[:, 1]

    def _nearest_filled_cell(self) -> Ints:
        """For each cell itself or, where it is empty, a filled one close by: filled cells grow by one cell a step."""
        side = self._cells_per_side
        cell = np.where(self._count > 0, np.arange(side * side), -1).reshape(side, side)
        while (cell < 0).any():
            padded = np.pad(cell, 1, constant_values=-1)
            for shifted in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
                cell = np.where(cell < 0, shifted, cell)
        return cell.reshape(-1)


class World:
    """Everything that stays as it is while days go by. A pure function of seed and settings."""

    def __init__(self, seed: int, settings: WorldSettings) -> None:
        self.seed = seed
        self.settings = settings
        self._cities_km = _cities(generator(seed, Stream.TERMINALS, 0), settings)
        self.terminals = _terminals(generator(seed, Stream.TERMINALS, 1), settings, self._cities_km)
        rng = generator(seed, Stream.CARDS)
        self.cards = _cards(rng, settings, self._cities_km)
        count = settings.cards
        self.favourites = np.stack(
            [self.terminals.near(self._point_near_home(np.arange(count), rng), rng) for _ in range(FAVOURITES)], axis=1
        )
        weight = 1 / np.arange(1, FAVOURITES + 1)
        self._favourite_cumulated = np.cumsum(weight / weight.sum())
        self.terminal_per_day = self._terminal_per_day(weight / weight.sum())

    @property
    def honest_per_day(self) -> float:
        """Expected honest transactions on an average day of the week."""
        return float(self.cards.per_day.sum())

    def traffic(self, day: int, date: dt.date) -> Traffic:
        """The honest transactions of one day, by card (not by time)."""
        rng = generator(self.seed, Stream.TRAFFIC, day)
        cards = self.cards
        weekend = date.weekday() >= 5
        factor = cards.weekend if weekend else (7 - 2 * cards.weekend) / 5  # the week's mean stays 1
        card = np.repeat(np.arange(len(cards.per_day)), rng.poisson(cards.per_day * factor))
        terminal = self.habitual_terminal(card, rng)
        amount = self.habitual_amount(card, terminal, rng)
        occasion = rng.random(len(card)) < OCCASION_SHARE
        amount[occasion] *= rng.uniform(2, 6, int(occasion.sum()))
        return Traffic(self.habitual_time(card, rng), card, terminal, amount, np.zeros(len(card), np.int64))

    def habitual_time(self, card: Ints, rng: Generator) -> Ints:
        """A time of day (ms since midnight) for each entry of `card`, by the hours that card keeps."""
        hour = rng.normal(self.cards.peak_hour[card], self.cards.width_hours[card]) % 24
        any_hour = rng.random(len(card)) < ANY_HOUR_SHARE
        hour[any_hour] = rng.uniform(0, 24, int(any_hour.sum()))
        return np.minimum((hour * HOUR_MS).astype(np.int64), DAY_MS - 1)

    def habitual_terminal(self, card: Ints, rng: Generator) -> Ints:
        """A terminal for each entry of `card`: mostly one of its favourites, sometimes another one around its home."""
        rank = np.searchsorted(self._favourite_cumulated, rng.random(len(card)))
        terminal = self.favourites[card, np.minimum(rank, FAVOURITES - 1)]
        explores = rng.random(len(card)) < EXPLORE_SHARE
        terminal[explores] = self.terminals.near(self._point_near_home(card[explores], rng), rng)
        return terminal

    def habitual_amount(self, card: Ints, terminal: Ints, rng: Generator) -> Floats:
        """An amount for each entry: the card's level and spread (log-normal), times the terminal's price level."""
        level = self.cards.log_spend[card] + self.terminals.log_price[terminal]
        return np.exp(rng.normal(level, self.cards.log_spread[card]))

    def far_terminal(self, card: Ints, rng: Generator) -> Ints:
        """A terminal far from the home of each entry's card: the farthest of six drawn at random."""
        drawn = rng.integers(0, len(self.terminals), (len(card), 6))
        distance = np.linalg.norm(self.terminals.position_km[drawn] - self.cards.home_km[card][:, None, :], axis=2)
        return np.take_along_axis(drawn, np.argmax(distance, axis=1)[:, None], axis=1)[:, 0]

    def _point_near_home(self, card: Ints, rng: Generator) -> Floats:
        spread = self.cards.radius_km[card][:, None] * rng.normal(size=(len(card), 2))
        return np.clip(self.cards.home_km[card] + spread, 0, self.settings.side_km)

    def _terminal_per_day(self, favourite_weight: Floats) -> Floats:
        """Expected transactions a day per terminal; what exploring adds is spread evenly, which is close enough."""
        weight = self.cards.per_day[:, None] * favourite_weight
        habitual: Floats = np.bincount(
            self.favourites.reshape(-1), weight.reshape(-1), minlength=len(self.terminals)
        ).astype(np.float64)
        return (1 - EXPLORE_SHARE) * habitual + EXPLORE_SHARE * self.honest_per_day / len(self.terminals)


def _cities(rng: Generator, settings: WorldSettings) -> Floats:
    """Centre [:, :2] and standard deviation [:, 2] of each city, in km."""
    count = int(np.clip(settings.terminals // 400, 3, 200))
    centre = rng.uniform(0.05, 0.95, (count, 2)) * settings.side_km
    spread = settings.side_km * 0.02 * np.exp(rng.normal(0, 0.4, (count, 1)))
    return np.hstack([centre, spread])


def _places(rng: Generator, count: int, cities_km: Floats, side_km: float) -> Floats:
    """Positions [count, 2]: most of them in cities, the earlier cities larger, the others anywhere."""
    size = 1 / np.arange(1, len(cities_km) + 1)
    city = rng.choice(len(cities_km), count, p=size / size.sum())
    place = cities_km[city, :2] + cities_km[city, 2:] * rng.normal(size=(count, 2))
    rural = rng.random(count) < RURAL_SHARE
    place[rural] = rng.uniform(0, side_km, (int(rural.sum()), 2))
    return np.clip(place, 0, side_km)


def _terminals(rng: Generator, settings: WorldSettings, cities_km: Floats) -> Terminals:
    position = _places(rng, settings.terminals, cities_km, settings.side_km)
    return Terminals(position, rng.normal(0, 0.25, settings.terminals), settings.side_km)


def _cards(rng: Generator, settings: WorldSettings, cities_km: Floats) -> Cards:
    count = settings.cards
    per_day = np.minimum(rng.gamma(1.5, 1 / 1.5, count), TRANSACTIONS_PER_DAY_MAX / settings.transactions_per_card_day)
    return Cards(
        home_km=_places(rng, count, cities_km, settings.side_km),
        radius_km=settings.card_radius_km * np.exp(rng.normal(0, 0.5, count)),
        per_day=per_day * (settings.transactions_per_card_day / per_day.mean()),
        weekend=np.clip(np.exp(rng.normal(0.05, 0.3, count)), 0.3, 2.5),
        peak_hour=rng.normal(14.5, 2.5, count),
        width_hours=rng.uniform(2.0, 4.5, count),
        log_spend=np.log(settings.spend_median) + rng.normal(0, 0.6, count),
        log_spread=rng.uniform(0.25, 0.6, count),
    )

"""Fraud patterns and the campaigns that carry them out.

A pattern says whom a campaign strikes (`targets`), how long (`days`), and what it does to a day's traffic (`act`). It
also knows how many frauds one campaign makes on average, which is what lets a fraud rate be asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta, Struct
from numpy.random import Generator

from fraudstream_producers.world import DAY_MS, HOUR_MS, Floats, Ints, Traffic, World

MINUTE_MS = 60_000
Share = Annotated[float, Meta(ge=0, le=1)]
# Whoever steals picks cards and terminals that are in use; these have at least this part of the mean traffic.
IN_USE_SHARE = 0.25
ROUND_AMOUNTS = np.array([25.0, 50.0, 100.0, 150.0, 200.0])


class Pattern(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way of fraud. `share_of_frauds` is its weight against the other patterns'."""

    adds: ClassVar[bool] = True  # whether its frauds come on top of the honest traffic, or are part of it

    share_of_frauds: Annotated[float, Meta(ge=0)] = 0.0
    days: Annotated[int, Meta(ge=1, le=365)] = 1

    def frauds_per_campaign(self, world: World) -> float:
        """Expected number of frauds of one campaign, over all its days."""
        raise NotImplementedError

    def targets(self, world: World, count: int, rng: Generator) -> Ints:
        """Whom `count` campaigns that begin on the same day strike: cards or terminals, one each."""
        return _cards_in_use(world, count, rng)

    def act(self, world: World, traffic: Traffic, targets: Ints, number: int, rng: Generator) -> Traffic:
        """The day's traffic with the frauds of the campaigns on `targets`, marked with the pattern's `number`."""
        raise NotImplementedError


class LargeAmount(Pattern, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stolen card buys one thing above a limit that honest purchases seldom reach."""

    share_of_frauds: Annotated[float, Meta(ge=0)] = 0.10
    limit: Annotated[float, Meta(gt=0)] = 250.0

    def frauds_per_campaign(self, world: World) -> float:  # noqa: ARG002
        return 1.0

    def act(self, world: World, traffic: Traffic, targets: Ints, number: int, rng: Generator) -> Traffic:
        amount = self.limit * (1 + rng.exponential(0.6, len(targets)))
        terminal = world.habitual_terminal(targets, rng)
        return _with(
            traffic, number, time_ms=world.habitual_time(targets, rng), card=targets, terminal=terminal, amount=amount
        )


class CompromisedTerminal(Pattern, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whoever pays at a certain terminal is defrauded, for weeks: only its past frauds give it away."""

    adds: ClassVar[bool] = False

    share_of_frauds: Annotated[float, Meta(ge=0)] = 0.35
    days: Annotated[int, Meta(ge=1, le=365)] = 28
    hit_share: Share = 0.85  # of the transactions at the terminal

    def frauds_per_campaign(self, world: World) -> float:
        return float(world.terminal_per_day[self._candidates(world)].mean()) * self.days * self.hit_share

    def targets(self, world: World, count: int, rng: Generator) -> Ints:
        candidates = self._candidates(world)
        return candidates[rng.integers(0, len(candidates), count)]

    def act(self, world: World, traffic: Traffic, targets: Ints, number: int, rng: Generator) -> Traffic:
        struck = np.zeros(len(world.terminals), bool)
        struck[targets] = True
        hit = struck[traffic.terminal] & (rng.random(len(traffic)) < self.hit_share) & (traffic.pattern == 0)
        traffic.pattern[hit] = number
        return traffic

    @staticmethod
    def _candidates(world: World) -> Ints:
        """Terminals in use, without the busiest twentieth: one of those alone would exceed the fraud rate asked for."""
        busy = world.terminal_per_day
        fit = np.flatnonzero((busy >= IN_USE_SHARE * busy.mean()) & (busy <= np.quantile(busy, 0.95)))
        return fit if len(fit) else np.arange(len(busy))


class LeakedCard(Pattern, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A card's details are for sale: a part of its transactions are somebody else's, with multiplied amounts."""

    adds: ClassVar[bool] = False

    share_of_frauds: Annotated[float, Meta(ge=0)] = 0.30
    days: Annotated[int, Meta(ge=1, le=365)] = 14
    hit_share: Share = 1 / 3  # of the card's transactions
    multiplier: Annotated[float, Meta(gt=0)] = 5.0

    def frauds_per_campaign(self, world: World) -> float:
        return float(world.cards.per_day[_in_use(world)].mean()) * self.days * self.hit_share

    def act(self, world: World, traffic: Traffic, targets: Ints, number: int, rng: Generator) -> Traffic:
        struck = np.zeros(len(world.cards.per_day), bool)
        struck[targets] = True
        hit = struck[traffic.card] & (rng.random(len(traffic)) < self.hit_share) & (traffic.pattern == 0)
        traffic.amount[hit] *= self.multiplier
        traffic.pattern[hit] = number
        return traffic


class CardTesting(Pattern, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Is the card alive? Many tiny amounts within minutes at one terminal; then, half the time, one large purchase."""

    share_of_frauds: Annotated[float, Meta(ge=0)] = 0.15
    tries_min: Annotated[int, Meta(ge=2)] = 6
    tries_max: Annotated[int, Meta(ge=2, le=1_000)] = 16
    minutes: Annotated[float, Meta(gt=0, le=600)] = 8.0
    cash_out_share: Share = 0.5

    def frauds_per_campaign(self, world: World) -> float:  # noqa: ARG002
        return (self.tries_min + max(self.tries_min, self.tries_max)) / 2 + self.cash_out_share

    def act(self, world: World, traffic: Traffic, targets: Ints, number: int, rng: Generator) -> Traffic:
        tries = rng.integers(self.tries_min, max(self.tries_min, self.tries_max) + 1, len(targets))
        campaign = np.repeat(np.arange(len(targets)), tries)
        span_ms = self.minutes * MINUTE_MS
        start_ms = rng.integers(0, int(DAY_MS - span_ms - 2 * HOUR_MS), len(targets))
        terminal = rng.integers(0, len(world.terminals), len(targets))
        time_ms = start_ms[campaign] + (rng.random(len(campaign)) * span_ms).astype(np.int64)
        amount = rng.uniform(0.2, 3.0, len(campaign))
        traffic = _with(
            traffic, number, time_ms=time_ms, card=targets[campaign], terminal=terminal[campaign], amount=amount
        )
        cashed = np.flatnonzero(rng.random(len(targets)) < self.cash_out_share)
        after_ms = start_ms[cashed] + int(span_ms) + rng.integers(MINUTE_MS, 2 * HOUR_MS, len(cashed))
        place = rng.integers(0, len(world.terminals), len(cashed))
        amount = rng.uniform(80, 500, len(cashed))
        return _with(traffic, number, time_ms=after_ms, card=targets[cashed], terminal=place, amount=amount)


class FastTravel(Pattern, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cloned card is used at terminals far from home and from each other, in quicker succession than anyone travels."""

    share_of_frauds: Annotated[float, Meta(ge=0)] = 0.10
    stops_min: Annotated[int, Meta(ge=2)] = 2
    stops_max: Annotated[int, Meta(ge=2, le=100)] = 5
    minutes: Annotated[float, Meta(gt=0, le=600)] = 60.0

    def frauds_per_campaign(self, world: World) -> float:  # noqa: ARG002
        return (self.stops_min + max(self.stops_min, self.stops_max)) / 2

    def act(self, world: World, traffic: Traffic, targets: Ints, number: int, rng: Generator) -> Traffic:
        stops = rng.integers(self.stops_min, max(self.stops_min, self.stops_max) + 1, len(targets))
        campaign = np.repeat(np.arange(len(targets)), stops)
        span_ms = self.minutes * MINUTE_MS
        start_ms = rng.integers(0, int(DAY_MS - span_ms), len(targets))
        time_ms = start_ms[campaign] + (rng.random(len(campaign)) * span_ms).astype(np.int64)
        card = targets[campaign]
        terminal = world.far_terminal(card, rng)
        amount = world.habitual_amount(card, terminal, rng) * rng.uniform(1, 3, len(card))
        return _with(traffic, number, time_ms=time_ms, card=card, terminal=terminal, amount=amount)


class GiftCards(Pattern, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By night, a few round amounts within the hour at one of a small set of terminals. Off unless drift begins it."""

    purchases_min: Annotated[int, Meta(ge=1)] = 2
    purchases_max: Annotated[int, Meta(ge=1, le=100)] = 5
    terminals: Annotated[int, Meta(ge=1)] = 40

    def frauds_per_campaign(self, world: World) -> float:  # noqa: ARG002
        return (self.purchases_min + max(self.purchases_min, self.purchases_max)) / 2

    def act(self, world: World, traffic: Traffic, targets: Ints, number: int, rng: Generator) -> Traffic:
        purchases = rng.integers(self.purchases_min, max(self.purchases_min, self.purchases_max) + 1, len(targets))
        campaign = np.repeat(np.arange(len(targets)), purchases)
        start_ms = rng.integers(0, 5 * HOUR_MS, len(targets))
        time_ms = start_ms[campaign] + rng.integers(0, HOUR_MS, len(campaign))
        # Every n-th terminal of the map sells gift cards; which ones they are stays the same for the whole simulation.
        shops = np.linspace(0, len(world.terminals) - 1, min(self.terminals, len(world.terminals))).astype(np.int64)
        terminal = shops[rng.integers(0, len(shops), len(targets))][campaign]
        amount = ROUND_AMOUNTS[rng.integers(0, len(ROUND_AMOUNTS), len(campaign))]
        return _with(traffic, number, time_ms=time_ms, card=targets[campaign], terminal=terminal, amount=amount)


class Frauds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much fraud there is, and of which kinds."""

    rate: Annotated[float, Meta(ge=0, le=0.2)] = 0.008  # frauds among all transactions
    large_amount: LargeAmount = LargeAmount()
    compromised_terminal: CompromisedTerminal = CompromisedTerminal()
    leaked_card: LeakedCard = LeakedCard()
    card_testing: CardTesting = CardTesting()
    fast_travel: FastTravel = FastTravel()
    gift_cards: GiftCards = GiftCards()

    def patterns(self) -> dict[str, Pattern]:
        """Every pattern by name. Its place, counted from 1, is its number in `Traffic.pattern`."""
        named: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in named.items() if isinstance(value, Pattern)}


PATTERN_NAMES = tuple(Frauds().patterns())


def _with(traffic: Traffic, number: int, *, time_ms: Ints, card: Ints, terminal: Ints, amount: Floats) -> Traffic:
    """The traffic and, after it, the frauds of the given columns."""
    frauds = Traffic(time_ms, card, terminal, amount, np.full(len(card), number, np.int64))
    return Traffic.concatenated([traffic, frauds])


def _in_use(world: World) -> Ints:
    per_day = world.cards.per_day
    return np.flatnonzero(per_day >= IN_USE_SHARE * per_day.mean())


def _cards_in_use(world: World, count: int, rng: Generator) -> Ints:
    cards = _in_use(world)
    return cards[rng.integers(0, len(cards), count)]

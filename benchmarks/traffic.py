"""Endless seeded records and a way out that leads nowhere, for benchmarks that drive the scorer in this process."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fraudstream.benchmark.stages import Delivered
from fraudstream.core.ports import Outgoing

START_MS: Final = 1_735_689_600_000  # 2025-01-01
TERMINAL_SPREAD: Final = 1.5  # of the logarithm: a few shops see most of the cards


class Traffic:
    """Batches of records: every card equally likely, terminals as different in size as shops are."""

    def __init__(self, cards: int, terminals: int, *, per_s: float, seed: int = 11) -> None:
        self._random = np.random.default_rng(seed)
        self._cards = cards
        weights = self._random.lognormal(0, TERMINAL_SPREAD, terminals)
        self._until = np.cumsum(weights / weights.sum())
        self._step_ms = 1000 / per_s
        self._terminals = terminals
        self.sent = 0

    def batch(self, size: int, partition: int = 0) -> list[Delivered]:
        """The next records of a partition; offsets count on."""
        random, first = self._random, self.sent
        cards = random.integers(0, self._cards, size).tolist()
        terminals = np.minimum(np.searchsorted(self._until, random.random(size)), self._terminals - 1).tolist()
        cents = random.lognormal(8, 1, size).astype(np.int64).clip(1, 10**8).tolist()
        self.sent += size
        records = []
        for at in range(size):
            number, minor = first + at, cents[at]
            at_ms = START_MS + int(number * self._step_ms)
            value = (
                f'{{"transaction_id":"t{number:011d}","event_time":{at_ms},"card_id":"card{cards[at]:08d}",'
                f'"terminal_id":"term{terminals[at]:07d}","amount":{minor // 100}.{minor % 100:02d}}}'
            )
            key = b"card%08d" % cards[at]
            records.append(Delivered("transactions", partition, number, at_ms, key, value.encode()))
        return records


class Nowhere:
    """A publisher that only counts: what is measured then is everything but Kafka."""

    def __init__(self) -> None:
        self.published = 0

    def publish(self, messages: Sequence[Outgoing]) -> None:
        self.published += len(messages)

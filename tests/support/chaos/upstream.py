"""What upstream sends in a chaos run: transactions and labels in slices of an hour of event time, and what is wrong with
them.

Everything a decision depends on is the same whatever happens to the workers, so that one sequential pass says what each
must be, number for number. Cards are written by one partition. What many partitions write, a terminal's windows, is read a
day later (`FEATURES`), and slice k is sent when all slices before k - `SLICES_OPEN_MAX` are done with. A window of slice k
ends a day before it: with event times up to an hour early and labels up to `LABEL_SLICES_MAX` late, nothing in it comes
from a slice after k - 19. So partitions may be 18 slices apart, and no decision can tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from tests.support.card_history import table

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
SLICE_MS: Final = HOUR_MS
SLICE_TRANSACTIONS: Final = 2_500
SLICES_OPEN_MAX: Final = 18
LABEL_SLICES_MAX: Final = 3
# The edge of a generation of stored decisions at the default retention (generations of 6 days) lies in the second day.
START_MS: Final = 3380 * 6 * DAY_MS - 30 * HOUR_MS
CARDS: Final = 12_000
TERMINALS: Final = 300
TRAINING_DAYS: Final = 12
TRAINING_PART: Final = 20

# Windows shorter than the run, so that rings turn over and tiles are emptied; `lateness` is what partitions may be apart.
FEATURES: Final = """
[entities]
card = "card_id"
terminal = "terminal_id"

[calendar]
lateness = "1d"

[windows]
h2 = { length = "2h", hop = "1h" }
d1 = { length = "1d", hop = "6h" }
late = { length = "6h", hop = "1h", delay = "1d" }
late_d1 = { length = "1d", hop = "6h", delay = "1d" }

[features]
amount = { field = "amount" }
is_night = { calendar = "night" }
card_count_2h = { entity = "card", aggregate = "count", window = "h2" }
card_max_2h = { entity = "card", aggregate = "max", window = "h2" }
card_mean_1d = { entity = "card", aggregate = "mean", window = "d1" }
card_std_1d = { entity = "card", aggregate = "std", window = "d1" }
card_idle = { entity = "card", aggregate = "seconds_since_last" }
amount_to_mean = { ratio = ["amount", "card_mean_1d"] }
terminal_count = { entity = "terminal", aggregate = "count", window = "late" }
terminal_mean = { entity = "terminal", aggregate = "mean", window = "late_d1" }
terminal_frauds = { entity = "terminal", aggregate = "frauds", window = "late" }
terminal_fraud_share = { entity = "terminal", aggregate = "fraud_share", window = "late_d1" }
"""

Sent = tuple[bytes | None, bytes | None]  # key, value
_encode: Final = msgspec.json.encode


@dataclass
class Slice:
    """What is sent together, `alone` once all before it is done with. `time_ms`, of its records, names it in the log."""

    time_ms: int
    alone: bool = False
    transactions: list[Sent] = field(default_factory=list)
    labels: list[Sent] = field(default_factory=list)


@dataclass
class Sums:
    """What the whole input comes to, for the oracle to be held against as well."""

    transactions: int = 0
    retries: int = 0
    poison: int = 0
    poison_labels: int = 0
    ghosts: int = 0


class Upstream:
    """The whole input of a seed, slice by slice."""

    def __init__(self, seed: int, transactions: int) -> None:
        self._rng = Random(seed)
        self.sums = Sums(transactions=transactions)
        self.poison: set[Sent] = set()
        self.slices = [Slice(START_MS + at * SLICE_MS) for at in range(-(-transactions // SLICE_TRANSACTIONS))]
        unlabelled: list[bytes] = []
        for number, name, value, is_fraud in _transactions(seed, transactions):
            self._send(number, value)
            if is_fraud or self._rng.random() < 0.1:
                self._label(number, name, is_fraud=is_fraud)
            elif self._rng.random() < 0.02:
                unlabelled.append(name)
        # Chargebacks of days ago, after the last transaction: the oldest concern tiles that are gone.
        last = Slice(START_MS + len(self.slices) * SLICE_MS, alone=True)
        last.labels = [_label(name, is_fraud=True) for name in unlabelled]
        self.slices.append(last)

    def _send(self, number: int, value: dict[str, object]) -> None:
        """A transaction, now and then sent again, or in the company of a record that is none."""
        key = str(value["card_id"]).encode()
        payload = _encode(value)
        self.slices[number].transactions.append((key, payload))
        chance = self._rng.random()
        if chance < 0.03:
            self.sums.retries += 1
            again = payload if chance < 0.02 else _encode(self._read_anew(value))
            later = min(number + self._rng.choice((0, 0, 1, 2)), len(self.slices) - 1)
            self.slices[later].transactions.append((key, again))
        elif chance > 0.99:
            self.sums.poison += 1
            poison = self._poison(key, payload)
            self.poison.add(poison)
            self.slices[number].transactions.append(poison)

    def _read_anew(self, value: dict[str, object]) -> dict[str, object]:
        """A retry whose sender looked at its clock again, and at the amount: the first one counts."""
        moved_ms = self._rng.randrange(-59, 60) * 60_000
        time_ms = value["event_time"]
        assert isinstance(time_ms, int)
        return {**value, "event_time": time_ms + moved_ms, "amount": 999.0}

    def _poison(self, key: bytes, payload: bytes) -> Sent:
        return self._rng.choice(
            (
                (key, payload[:-7]),
                (key, None),
                (key, payload.replace(b'"amount":', b'"amount":-')),
                (key, b"\xff\xfe" + payload),
                (None, payload),
                (key + b"x", payload),
            )
        )

    def _label(self, number: int, name: bytes, *, is_fraud: bool) -> None:
        """A verdict: early, late, twice, contradicted, of no transaction, or no verdict at all."""
        chance = self._rng.random()
        at = number - 1 if chance < 0.15 and number else number + self._rng.randrange(LABEL_SLICES_MAX + 1)
        labels = self.slices[min(at, len(self.slices) - 1)].labels
        labels.append(_label(name, is_fraud=is_fraud))
        if chance > 0.9:
            labels.append(_label(name, is_fraud=is_fraud if chance > 0.95 else not is_fraud))
        elif chance > 0.88:
            self.sums.poison_labels += 1
            labels.append((name, b'{"transaction_id": 1'))
        elif chance > 0.87:
            self.sums.ghosts += 1
            labels.append(_label(b"ghost-" + name, is_fraud=True))


def training_history() -> pa.Table:
    """A labelled history to train on: the same business with a twentieth of the cards and terminals."""
    count = TRAINING_DAYS * 24 * SLICE_TRANSACTIONS // TRAINING_PART
    drawn = _Drawn(0, count, part=TRAINING_PART)
    order = np.argsort(drawn.times_ms, kind="stable")
    cards, terminals = (
        [f"{kind}{key}" for key in keys[order]] for kind, keys in (("c", drawn.cards), ("w", drawn.terminals))
    )
    return table(
        [f"h{at}" for at in range(count)],
        drawn.times_ms[order],
        cards,
        terminals,
        drawn.amounts[order],
        drawn.frauds[order],
    )


class _Drawn:
    """Columns of transactions, in the order of sending. `part` makes it a smaller business."""

    def __init__(self, seed: int, count: int, *, part: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.slices = np.arange(count) // (SLICE_TRANSACTIONS // part)
        within = np.sort(rng.random(count) + self.slices) - self.slices  # in order of time within each slice
        early_ms = np.where(rng.random(count) < 0.1, rng.integers(0, 45 * 60_000, count), 0)
        self.times_ms = START_MS + self.slices * SLICE_MS + (within * SLICE_MS).astype(np.int64) - early_ms
        self.cards = rng.integers(0, CARDS // part, count)
        self.terminals = rng.integers(0, TERMINALS // part, count)
        self.amounts = np.round(0.5 + rng.gamma(2.0, 5.0 + self.cards % 20), 2)
        large = rng.random(count) < 0.01
        self.amounts[large] += 250.0
        self.frauds = large | ((self.terminals % 12 == 0) & (rng.random(count) < 0.3))


def _transactions(seed: int, count: int) -> Iterator[tuple[int, bytes, dict[str, object], bool]]:
    """(slice, id, transaction, is it fraud), in the order of sending."""
    drawn = _Drawn(seed, count)
    columns = drawn.slices, drawn.times_ms, drawn.cards, drawn.terminals, drawn.amounts, drawn.frauds
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for at, (number, time_ms, card, terminal, amount, is_fraud) in enumerate(rows):
        name = f"t{at:07d}"
        value = {
            "transaction_id": name,
            "event_time": time_ms,
            "card_id": f"c{card}",
            "terminal_id": f"w{terminal}",
            "amount": amount,
        }
        yield number, name.encode(), value, is_fraud


def _label(name: bytes, *, is_fraud: bool) -> Sent:
    value = {"transaction_id": name.decode(), "is_fraud": is_fraud, "label_time": START_MS, "source": "chargeback"}
    return name, _encode(value)

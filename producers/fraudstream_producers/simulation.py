"""A simulation, day by day: settings in, transactions and labels of any day out."""

import datetime as dt

import numpy as np
import pyarrow as pa

from fraudstream_producers.campaigns import Campaigns
from fraudstream_producers.columns import LABELS, TRANSACTIONS, epoch_ms, numbered, timestamps
from fraudstream_producers.drift import amount_factor, terminal_numbers
from fraudstream_producers.frauds import PATTERN_NAMES
from fraudstream_producers.labels import verdicts
from fraudstream_producers.settings import Settings
from fraudstream_producers.world import DAY_MS, Ints, World

# 7 digits number the transactions of a day (5 million cards at 2 a day need them), cards and terminals; 5 the days.
ID_DIGITS = 7
DAY_DIGITS = 5
# Nobody pays nothing; a cent is what card-testing would try at least.
AMOUNT_MINOR_MIN = 1


class Day:
    """The transactions of one day, in event-time order, and their labels.

    `transactions` has the columns of `columns.TRANSACTIONS`; `pattern` the number of each transaction's fraud pattern
    (0 honest, else its place in `frauds.PATTERN_NAMES` counted from 1).
    """

    def __init__(self, settings: Settings, day: int, transactions: pa.Table, pattern: Ints) -> None:
        self._settings = settings
        self._day = day
        self._pattern_of_day = pattern  # labels are drawn for the whole day, so that a part gets the same ones
        self._first = 0
        self.transactions = transactions
        self.pattern = pattern

    def part(self, first: int, last: int) -> "Day":
        """The transactions [first, last) alone, with the same labels as before."""
        part = Day(self._settings, self._day, self.transactions.slice(first, last - first), self._pattern_of_day)
        part._first = self._first + first
        part.pattern = self.pattern[first:last]
        return part

    def retimed(self, event_time_ms: Ints) -> "Day":
        """The same transactions at other times (one for each, never decreasing); labels keep their delays."""
        day = self.part(0, len(self.pattern))
        day.transactions = self.transactions.set_column(1, "event_time", timestamps(event_time_ms))
        return day

    def labels(self, scale: float = 1.0) -> pa.Table:
        """The labels of the day's transactions (columns of `columns.LABELS`), in the order of the transactions.

        `scale` multiplies the delays, so that a demo of a minute sees labels at all.
        """
        known = verdicts(self._settings.labels, self._pattern_of_day > 0, self._settings.seed, self._day, scale)
        kept = (known.row >= self._first) & (known.row < self._first + len(self.pattern))
        kept_row = known.row[kept] - self._first
        row = pa.array(kept_row)
        reasons = pa.array([None, *PATTERN_NAMES], pa.string())
        label_time_ms = epoch_ms(self.transactions["event_time"])[kept_row] + known.delay_ms[kept]
        columns = {
            "transaction_id": self.transactions["transaction_id"].take(row),
            "card_id": self.transactions["card_id"].take(row),
            "is_fraud": self.transactions["is_fraud"].take(row),
            "label_time": timestamps(label_time_ms),
            "source": pa.array(["chargeback", "analyst"]).take(pa.array(known.by_analyst[kept].astype(np.int64))),
            "reason": reasons.take(pa.array(self.pattern[kept_row])),
        }
        return pa.table(columns, schema=LABELS)


class Simulation:
    """Card traffic without end. A day depends on the settings and its number alone, not on what was asked before."""

    def __init__(self, settings: Settings, *, id_prefix: str | None = None) -> None:
        self.settings = settings
        self._id_prefix = f"s{settings.seed}" if id_prefix is None else id_prefix
        self._world = World(settings.seed, settings.world)
        self._campaigns = Campaigns(self._world, settings.frauds, settings.drift)
        self._card_ids = numbered("card", np.arange(settings.world.cards), ID_DIGITS)

    @property
    def transactions_per_day(self) -> float:
        """Expected number of transactions on an average day, frauds included (to a few per cent)."""
        return self._world.honest_per_day * (1 + self.settings.frauds.rate / 2)

    def day_start_ms(self, day: int) -> int:
        """Midnight (UTC) at which day `day` begins, in ms since the epoch."""
        midnight = dt.datetime.combine(self.settings.start, dt.time(), dt.UTC)
        return int(midnight.timestamp()) * 1000 + day * DAY_MS

    def day(self, day: int) -> Day:
        """The transactions of day `day`, counted from 0 at `settings.start`."""
        settings = self.settings
        honest = self._world.traffic(day, settings.start + dt.timedelta(days=day))
        traffic = self._campaigns.act(honest, day).in_time_order()
        numbers = terminal_numbers(day, settings.world.terminals, settings.seed, settings.drift)
        minor = np.rint(traffic.amount * (100 * amount_factor(day, settings.drift)))
        columns = {
            "transaction_id": numbered(f"{self._id_prefix}-{day:0{DAY_DIGITS}d}-", np.arange(len(traffic)), ID_DIGITS),
            "event_time": timestamps(self.day_start_ms(day) + traffic.time_ms),
            "card_id": self._card_ids.take(pa.array(traffic.card)),
            "terminal_id": numbered("term", numbers[traffic.terminal], ID_DIGITS),
            "amount": np.maximum(minor, AMOUNT_MINOR_MIN) / 100,
            "is_fraud": traffic.pattern > 0,
        }
        return Day(settings, day, pa.table(columns, schema=TRANSACTIONS), traffic.pattern)

"""What upstream wrote: transactions and labels in partitions, with everything that goes wrong before they reach us.

A log comes in stages. Windows that many partitions write (a terminal's) look a day back, so what stage 1 left is what
stage 2 sees, whatever the order within a stage was: the decisions of any run can be compared number for number.
"""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any
from zlib import crc32

from faust.types import TP

from fraudstream.core.features import DAY_MS, FeatureSet
from fraudstream.testing.driver import MINUTE_MS, FakeRecord
from fraudstream.topics import TOPICS

# The edge of a generation of stored decisions at the default retention of 30 days: generations of six.
EDGE_MS = 3320 * 6 * DAY_MS

FEATURES = FeatureSet.parse("""
[entities]
card = "card_id"
terminal = "terminal_id"

[windows]
h2 = { length = "2h", hop = "1h" }
late = { length = "4h", hop = "1h", delay = "24h" }

[features]
amount = { field = "amount" }
card_count = { entity = "card", aggregate = "count", window = "h2" }
card_max = { entity = "card", aggregate = "max", window = "h2" }
card_idle = { entity = "card", aggregate = "seconds_since_last" }
terminal_count = { entity = "terminal", aggregate = "count", window = "late" }
terminal_frauds = { entity = "terminal", aggregate = "frauds", window = "late" }
""")

# A stage spans less than four tiles of the late window; 24 h later its tiles are in the windows and still in the rings,
# whichever partition moved a ring's head first. It begins before the edge of a generation of stored decisions.
STAGE_BEGIN_MS = EDGE_MS - 90 * MINUTE_MS
STAGE_MINUTES = 180
ALERT_FROM = 500.0
TERMINALS = ("w0", "w1", "w8", "w9")  # w8: of crossed retries; w9: of the late labels' stage

Position = tuple[int, int]  # partition, offset


@dataclass
class Logs:
    """All records of a seed, stage by stage, and what their writer knows about them."""

    stages: list[dict[TP, list[FakeRecord]]] = field(default_factory=list)
    copies: dict[str, list[Position]] = field(default_factory=dict)  # transaction id -> its records, retries included
    crossed: set[str] = field(default_factory=set)  # ids with copies in two partitions
    poison: set[Position] = field(default_factory=set)
    poison_labels: set[Position] = field(default_factory=set)
    verdicts: dict[str, bool] = field(default_factory=dict)  # the first of each transaction, ghosts included
    size: int = 0  # records of transactions
    cards: dict[str, None] = field(default_factory=dict)

    def all(self, stages: int | None = None) -> dict[TP, list[FakeRecord]]:
        """The whole log of each partition, as of the end of a stage."""
        whole: dict[TP, list[FakeRecord]] = {}
        for stage in self.stages[:stages]:
            for tp, records in stage.items():
                whole.setdefault(tp, []).extend(records)
        return whole


class Upstream:
    """Writes the logs of a seed."""

    def __init__(self, rng: Random, *, data_is_lost: bool) -> None:
        self._rng = rng
        # What was first, of two copies in different partitions or of two verdicts, is kept by the store alone: without
        # its memory the other may come first, after the first was published.
        self._rivals = not data_is_lost
        self._partitions = rng.choice((2, 2, 3))
        self._label_partitions = rng.choice((1, 1, 2))
        self._ends: dict[TP, int] = {}
        self._unlabelled: list[str] = []
        self.logs = Logs()

    def write(self) -> Logs:
        """All stages."""
        stages = self._rng.choice((1, 2, 2))
        for stage in range(stages):
            self._write_stage(stage)
        if self._rng.random() < 0.5:
            self._begin()
            for name in self._unlabelled:  # late: chargebacks of days ago
                self._label(name)
            for partition in range(self._partitions):
                self._transaction(stages, partition, 0, terminal="w9")
        return self.logs

    def _begin(self) -> None:
        tps = [TP(TOPICS.transactions, n) for n in range(self._partitions)]
        tps += [TP(TOPICS.labels, n) for n in range(self._label_partitions)]
        self.logs.stages.append({tp: [] for tp in tps})

    def _write_stage(self, stage: int) -> None:
        rng = self._rng
        self._begin()
        labelled: list[str] = []
        written: dict[int, list[dict[str, Any]]] = {partition: [] for partition in range(self._partitions)}
        places = [(minute, p) for p in written for minute in rng.sample(range(STAGE_MINUTES), rng.randint(2, 7))]
        crossings = rng.choice((0, 2, 4)) if self._rivals else 0
        if crossings:  # the head of their terminal is moved before they come, see `_cross`
            written[0].append(self._transaction(stage, 0, 119, terminal="w8"))
        # Mostly first in both partitions, so that two workers often have both copies in hand at once.
        places += [(rng.choice((0, 0, rng.randrange(STAGE_MINUTES))), -1) for _ in range(crossings)]
        for minute, partition in sorted(places):
            kind = rng.random()
            if partition < 0:
                labelled.append(self._cross(stage))
            elif kind < 0.12:
                self._poison(partition, stage)
            elif kind < 0.27 and written[partition]:
                self._retry(partition, rng.choice(written[partition]), stage)
            else:
                written[partition].append(self._transaction(stage, partition, minute))
        for partition, values in written.items():
            values.append(self._transaction(stage, partition, STAGE_MINUTES - 1))
            labelled += [value["transaction_id"] for value in values]
        rng.shuffle(labelled)
        for name in labelled:
            if rng.random() < 0.6:
                self._label(name)
            else:
                self._unlabelled.append(name)
        if rng.random() < 0.3:
            self._label(f"ghost{stage}")

    def _transaction(
        self, stage: int, partition: int, minute: int, *, card: str = "", terminal: str = ""
    ) -> dict[str, Any]:
        rng = self._rng
        # Now and then a little older than the record before it, as events of several terminals are.
        at_ms = max(0, minute - rng.choice((0, 0, 0, 7, 40))) * MINUTE_MS + rng.randrange(MINUTE_MS)
        value = {
            "transaction_id": f"t{len(self.logs.copies)}",
            "event_time": STAGE_BEGIN_MS + stage * DAY_MS + at_ms,
            "card_id": card or f"c{partition}{rng.randrange(2)}",
            "terminal_id": terminal or rng.choice(TERMINALS[:2]),
            "amount": rng.choice((5.0, 12.34, 99.99, 500.0, 812.5)),
        }
        self._append(partition, value)
        return value

    def _retry(self, partition: int, value: dict[str, Any], stage: int) -> None:
        """The same transaction again, now and then with its clock read anew, from another terminal, or another amount."""
        changed = dict(value)
        if self._rng.random() < 0.5:
            changed["event_time"] = self._near(value["event_time"], stage)
            changed["terminal_id"] = self._rng.choice(TERMINALS[:2])
            changed["amount"] = 700.0
        self._append(partition, changed)

    def _near(self, at_ms: int, stage: int) -> int:
        """A time within the retry horizon, and within the stage."""
        begin_ms = STAGE_BEGIN_MS + stage * DAY_MS
        moved = at_ms + self._rng.choice((-59, -1, 1, 59)) * MINUTE_MS
        return min(max(moved, begin_ms), begin_ms + STAGE_MINUTES * MINUTE_MS - 1)

    def _cross(self, stage: int) -> str:
        """A retry that another partitioner sent elsewhere. Its card has no other transaction: cards have one writer.

        Its terminal has few moves of a head, which would make the store refuse the second copy for another reason.
        """
        here, there = self._rng.sample(range(self._partitions), 2)
        minute = self._rng.randrange(85, 118)  # the edge of a generation is at minute 90
        value = self._transaction(stage, here, minute, card=f"x{len(self.logs.copies)}", terminal="w8")
        name: str = value["transaction_id"]
        earlier_ms = self._rng.choice((0, 1, 30, 45, 59)) * MINUTE_MS
        self._append(there, {**value, "event_time": value["event_time"] - earlier_ms})
        self.logs.crossed.add(name)
        return name

    def _poison(self, partition: int, stage: int) -> None:
        fine = {"transaction_id": "p", "event_time": STAGE_BEGIN_MS, "card_id": "c", "terminal_id": "w", "amount": 1.0}
        key, payload = self._rng.choice(
            (
                (b"c", None),
                (b"c", b"{"),
                (b"c", b"\xff\xfe"),
                (b"c", b"[" * 50),
                (b"c", json.dumps({**fine, "amount": -1.0}).encode()),
                (b"c", json.dumps({**fine, "event_time": "yesterday"}).encode()),
                (b"other", json.dumps(fine).encode()),
                (None, json.dumps(fine).encode()),
            )
        )
        self.logs.poison.add(self._put(TOPICS.transactions, partition, key, payload, STAGE_BEGIN_MS + stage * DAY_MS))

    def _append(self, partition: int, value: dict[str, Any]) -> None:
        card = value["card_id"]
        payload = json.dumps(value).encode()
        position = self._put(TOPICS.transactions, partition, card.encode(), payload, value["event_time"])
        self.logs.copies.setdefault(value["transaction_id"], []).append(position)
        self.logs.cards[card] = None

    def _label(self, name: str) -> None:
        """A verdict; now and then again, or contradicted: the first one counts."""
        rng = self._rng
        partition = crc32(name.encode()) % self._label_partitions
        first = rng.random() < 0.6
        told = [first]
        if rng.random() < 0.4:
            told.append(rng.random() < 0.4 if self._rivals else first)
        self.logs.verdicts.setdefault(name, first)
        for is_fraud in told:
            label = {
                "transaction_id": name,
                "is_fraud": is_fraud,
                "label_time": STAGE_BEGIN_MS + DAY_MS,
                "source": "chargeback",
            }
            self._put(TOPICS.labels, partition, name.encode(), json.dumps(label).encode(), STAGE_BEGIN_MS)
        if rng.random() < 0.05:
            self.logs.poison_labels.add(self._put(TOPICS.labels, partition, b"l", b"{}", STAGE_BEGIN_MS))

    def _put(self, topic: str, partition: int, key: bytes | None, value: bytes | None, at_ms: int) -> Position:
        tp = TP(topic, partition)
        offset = self._ends.get(tp, 0)
        self._ends[tp] = offset + 1
        self.logs.stages[-1][tp].append(FakeRecord(topic, partition, offset, at_ms, key, value))
        self.logs.size += topic == TOPICS.transactions
        return partition, offset

"""A worker's hands without its Kafka: batches through gather, engine and commit, one step at a time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fraudstream.core.census import Monitor
from fraudstream.core.engine import Arrival, Outcome, Question, ask, decide, fraud_keys, label_updates
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import NO_OFFSET, Advance, Commit, CommitStatus, LabelStatus, LabelStep, StateStore
from fraudstream.events import Label, Transaction
from fraudstream.testing import toy_model

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# The edge of a generation at the default retention of 30 days (generations of 6).
EDGE_MS = 3320 * 6 * DAY_MS
NOON_MS = EDGE_MS + 12 * HOUR_MS

FEATURES = FeatureSet.parse("""
[entities]
card = "card_id"
terminal = "terminal_id"

[windows]
h2 = { length = "2h", hop = "1h" }
d3 = { length = "3d", hop = "1d" }
late = { length = "4h", hop = "1h", delay = "2h" }
late_d = { length = "2d", hop = "1d", delay = "1d" }

[features]
amount = { field = "amount" }
count = { entity = "card", aggregate = "count", window = "h2" }
std = { entity = "card", aggregate = "std", window = "d3" }
max = { entity = "card", aggregate = "max", window = "h2" }
idle = { entity = "card", aggregate = "seconds_since_last" }
terminal_count = { entity = "terminal", aggregate = "count", window = "h2" }
terminal_mean = { entity = "terminal", aggregate = "mean", window = "d3" }
terminal_std = { entity = "terminal", aggregate = "std", window = "d3" }
terminal_frauds = { entity = "terminal", aggregate = "frauds", window = "late" }
terminal_share = { entity = "terminal", aggregate = "fraud_share", window = "late_d" }
""")


def transaction(
    name: str, *, at_ms: int = NOON_MS, card: str = "c1", terminal: str = "w1", minor: int = 2000
) -> Transaction:
    return Transaction(name, at_ms, card, terminal, minor / 100, minor)


def label(name: str, *, is_fraud: bool = True) -> Label:
    return Label(name, is_fraud, NOON_MS + DAY_MS, "chargeback")


def monitor_of(features: FeatureSet) -> Monitor:
    """Bins that the transactions of tests fall on both sides of."""
    return Monitor({name: [0.0, 20.0] for name in features.names}, [0.5], features.extra_counts)


class Desk:
    """One worker: it holds a store and the lease of one partition, and numbers the records it is given."""

    def __init__(self, store: StateStore, partition: int = 0, features: FeatureSet = FEATURES) -> None:
        self.store = store
        self.features = features
        self.model = toy_model(features)
        self.model.monitor = monitor_of(features)
        self.lease = store.take_lease(partition)
        self.labels_told = 0

    def prepare(self, *transactions: Transaction, first_offset: int | None = None) -> Outcome:
        """Gather and decide; what would have to be committed is in the outcome."""
        start = self.lease.watermark + 1 if first_offset is None else first_offset
        partition = self.lease.partition
        arrivals = [Arrival(start + n, transaction, partition) for n, transaction in enumerate(transactions)]
        question = ask(self.features, arrivals, monitor=self.model.monitor)
        gathered = self.store.gather(question.keys, question.sightings)
        advances = [Advance(self.lease, start + len(transactions) - 1)]
        return decide(self.features, self.model, question, gathered, advances=advances, now_ms=NOON_MS, counts={})

    @staticmethod
    def prepare_together(*batches: tuple["Desk", Sequence[Transaction]]) -> Outcome:
        """Gather and decide the batches of several partitions as one."""
        first = batches[0][0]
        arrivals = [
            Arrival(desk.lease.watermark + 1 + n, one, desk.lease.partition)
            for desk, transactions in batches
            for n, one in enumerate(transactions)
        ]
        question = ask(first.features, arrivals, monitor=first.model.monitor)
        gathered = first.store.gather(question.keys, question.sightings)
        advances = [Advance(desk.lease, desk.lease.watermark + len(batch)) for desk, batch in batches]
        return decide(first.features, first.model, question, gathered, advances=advances, now_ms=NOON_MS, counts={})

    def commit(self, commit: Commit) -> CommitStatus:
        """Commit; if applied, the lease moves on."""
        status = self.store.commit(commit)
        if status is CommitStatus.APPLIED:
            (advance,) = commit.advances
            self.lease = replace(self.lease, watermark=advance.watermark)
        return status

    def process(self, *transactions: Transaction) -> Outcome:
        """A batch that must be applied at once."""
        outcome = self.prepare(*transactions)
        assert self.commit(outcome.commit) is CommitStatus.APPLIED
        return outcome

    def prepare_labels(self, *labels: Label, first_offset: int | None = None) -> list[LabelStep]:
        """Look for the decisions and rows of labels; what would have to be settled. Offsets go on by themselves."""
        decisions = self.store.gather_decisions([one.transaction_id for one in labels])
        wanted: dict[str, list[str]] = {}
        for decision in decisions:
            for entity, key in () if decision is None else fraud_keys(self.features, decision):
                wanted.setdefault(entity.name, []).append(key)
        rows = self.store.rows(wanted)
        by_key = {name: dict(zip(keys, rows[name], strict=True)) for name, keys in wanted.items()}
        verdicts = [(one.is_fraud, decision) for one, decision in zip(labels, decisions, strict=True)]
        updates = label_updates(self.features, verdicts, by_key)
        start = self.labels_told if first_offset is None else first_offset
        self.labels_told = max(self.labels_told, start + len(labels))
        found = zip(labels, decisions, updates, strict=True)
        return [LabelStep(start + n, one, decision, shared) for n, (one, decision, shared) in enumerate(found)]

    def settle(self, steps: Sequence[LabelStep]) -> list[LabelStatus]:
        """As many as are settled before the first conflict."""
        statuses = self.store.settle_labels(self.lease.partition, steps, after=NO_OFFSET)
        assert statuses is not None
        return list(statuses)

    def label(self, *labels: Label, first_offset: int | None = None) -> list[LabelStatus]:
        """Labels that meet no conflict."""
        return self.settle(self.prepare_labels(*labels, first_offset=first_offset))


def everything(store: StateStore, cards: Sequence[str], terminals: Sequence[str], names: Sequence[str]) -> Any:
    """All that a store holds about these keys and transactions."""
    return store.rows({"card": cards, "terminal": terminals}), store.gather_decisions(names), dict(store.counts())


def question(*transactions: Transaction) -> Question:
    return ask(FEATURES, [Arrival(n, transaction) for n, transaction in enumerate(transactions)])

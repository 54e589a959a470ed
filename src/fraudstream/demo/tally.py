"""What the demo has seen on the topics, and what that adds up to. Pure: told by the watcher, asked by the view."""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fraudstream.events import Example, ModelEvent, ModelEventKind

ALERTS_SHOWN_MAX: Final = 12
EVENTS_SHOWN_MAX: Final = 5
RATE_SECONDS_SHOWN: Final = 60
# Transactions whose answer is still awaited; at 1,000 a second that is far more than are ever under way.
WAITING_MAX: Final = 200_000
# A score of exactly 0 or 1 would make one mistake infinitely expensive.
PROBABILITY_MIN: Final = 1e-6
SCORES: Final = ("champion", "online", "decided")


@dataclass
class Tally:
    """Counts, latencies and verdicts of one run. Times in milliseconds since the epoch, latencies in milliseconds.

    `truth` is the verdict on each transaction; `drift_begins_with` the first transaction of the scheduled drift.
    """

    truth: Mapping[str, bool] = field(default_factory=dict)
    produced: int = 0
    decided: int = 0
    alerts: int = 0
    repeated: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    latest_alerts: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=ALERTS_SHOWN_MAX))
    decision_ms: list[int] = field(default_factory=list)
    alert_ms: list[int] = field(default_factory=list)
    per_second: dict[int, int] = field(default_factory=dict)
    first_decision_at_ms: int | None = None
    labels: int = 0
    examples: int = 0
    log_loss_sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SCORES, 0.0))
    online_said: int = 0
    model_events: Counter[str] = field(default_factory=Counter)
    latest_model_events: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=EVENTS_SHOWN_MAX))
    drift_begins_with: str | None = None
    drift_began_at_ms: int | None = None
    drift_alarm_at_ms: int | None = None
    drift_alarm: str | None = None
    _arrived: dict[str, int] = field(default_factory=dict)
    _alerted: set[str] = field(default_factory=set)
    _decided: set[str] = field(default_factory=set)
    _learned: set[str] = field(default_factory=set)
    _events: set[str] = field(default_factory=set)

    def saw_transaction(self, transaction_id: str | None, at_ms: int) -> None:
        """A record was appended to `transactions`; `transaction_id` None if it has no readable one."""
        self.produced += 1
        if transaction_id is not None and transaction_id == self.drift_begins_with:
            self.drift_began_at_ms = self.drift_began_at_ms or at_ms
        if not transaction_id or transaction_id in self._arrived or transaction_id in self._decided:
            return
        if len(self._arrived) < WAITING_MAX:
            self._arrived[transaction_id] = at_ms

    def saw_decision(self, decision: Mapping[str, Any], at_ms: int) -> None:
        """A decision was appended."""
        name = decision["transaction_id"]
        if name in self._decided:
            self.repeated += 1
            return
        self._decided.add(name)
        self.decided += 1
        self.actions[decision["action"]] += 1
        second = at_ms // 1000
        self.per_second[second] = self.per_second.get(second, 0) + 1
        if self.first_decision_at_ms is None:
            self.first_decision_at_ms = at_ms
        arrived = self._arrival(name, last=decision["action"] == "allow" or name in self._alerted)
        if arrived is not None:
            self.decision_ms.append(at_ms - arrived)

    def saw_alert(self, alert: Mapping[str, Any], at_ms: int) -> None:
        """An alert was appended."""
        name = alert["transaction_id"]
        if name in self._alerted:
            return
        self._alerted.add(name)
        self.alerts += 1
        arrived = self._arrival(name, last=name in self._decided)
        if arrived is not None:
            self.alert_ms.append(at_ms - arrived)
        self.latest_alerts.append({**alert, "fraud": self.truth.get(name)})

    def _arrival(self, name: str, *, last: bool) -> int | None:
        """When the transaction came; forgotten with its last answer."""
        return self._arrived.pop(name, None) if last else self._arrived.get(name)

    def saw_dead_letter(self, reason: str) -> None:
        """A record was refused."""
        self.rejects[reason] += 1

    def saw_label(self) -> None:
        """A record was appended to `labels`."""
        self.labels += 1

    def saw_example(self, example: Example) -> None:
        """A decision met its verdict: what each model had said about it, before anybody knew."""
        if example.transaction_id in self._learned:
            return
        self._learned.add(example.transaction_id)
        self.examples += 1
        scores = {"champion": example.champion_score, "decided": example.score}
        # Before it has learned the online model says nothing; the champion's word is taken for it until then.
        scores["online"] = example.champion_score if example.online_score is None else example.online_score
        self.online_said += example.online_score is not None
        for name, score in scores.items():
            right = score if example.is_fraud else 1.0 - score
            self.log_loss_sums[name] -= math.log(max(right, PROBABILITY_MIN))

    def saw_model_event(self, event: ModelEvent, at_ms: int) -> None:
        """Drift, a freeze, ... began, ended or happened."""
        if event.event_id in self._events:
            return
        self._events.add(event.event_id)
        self.model_events[f"{event.kind.value} {event.state}"] += 1
        self.latest_model_events.append((at_ms, event.message))
        began = self.drift_began_at_ms
        first = began is not None and self.drift_alarm_at_ms is None
        if event.kind is ModelEventKind.DRIFT and event.state == "began" and first:
            self.drift_alarm_at_ms, self.drift_alarm = at_ms, event.message

    @property
    def log_loss(self) -> dict[str, float | None]:
        """Mean log-loss of the champion's scores, the online model's and those that decided, over all examples."""
        said = {"champion": self.examples, "online": self.online_said, "decided": self.examples}
        return {name: sums / self.examples if said[name] else None for name, sums in self.log_loss_sums.items()}

    @property
    def verdicts(self) -> dict[str, int]:
        """Alerts that were frauds or not, and frauds that were decided without an alert."""
        caught = sum(1 for name in self._alerted if self.truth.get(name))
        frauds = sum(1 for name in self._decided if self.truth.get(name))
        return {
            "true_positives": caught,
            "false_positives": sum(1 for name in self._alerted if self.truth.get(name) is False),
            "false_negatives": frauds - caught,
        }

    def rates(self, now_ms: int) -> list[int]:
        """Decisions in each of the last full seconds, oldest first."""
        last = now_ms // 1000 - 1
        return [self.per_second.get(second, 0) for second in range(last - RATE_SECONDS_SHOWN + 1, last + 1)]


def percentiles(latencies_ms: list[int]) -> dict[str, float | None]:
    """p50, p95 and p99, None without a sample."""
    if not latencies_ms:
        return {"p50": None, "p95": None, "p99": None}
    values = np.percentile(np.asarray(latencies_ms), [50, 95, 99])
    return {name: round(float(value), 1) for name, value in zip(("p50", "p95", "p99"), values, strict=True)}

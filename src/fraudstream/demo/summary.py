"""What a demo came to, as data and as text."""

from collections.abc import Mapping
from typing import Any

from fraudstream.core.outcomes import AFTERWARDS, WAYS, label_outcomes
from fraudstream.demo.tally import Tally, percentiles


def summary(tally: Tally, counts: Mapping[str, int], *, began_ms: int, interrupted: bool = False) -> dict[str, Any]:
    """The figures of a run. `counts` are the worker's counters; `unaccounted` is 0 if every record ended somewhere."""
    dead_lettered = sum(tally.rejects.values())
    duplicates = counts.get("duplicates", 0)
    first = tally.first_decision_at_ms
    labels = {"produced": tally.labels, **label_outcomes(counts)}
    return {
        "produced": tally.produced,
        "decided": tally.decided,
        "dead_lettered": dead_lettered,
        "duplicates": duplicates,
        "unaccounted": tally.produced - tally.decided - dead_lettered - duplicates,
        "alerts": tally.alerts,
        **tally.verdicts,
        "dead_letters_by_reason": dict(tally.rejects.most_common()),
        "actions": dict(tally.actions),
        "record_to_alert_ms": percentiles(tally.alert_ms),
        "record_to_decision_ms": percentiles(tally.decision_ms),
        "start_to_first_decision_s": _seconds(began_ms, first),
        "decisions_per_second_highest": max(tally.per_second.values(), default=0),
        "labels": {**labels, "unaccounted": labels["produced"] - labels["told"]},
        "examples": tally.examples,
        "log_loss": {name: None if loss is None else round(loss, 5) for name, loss in tally.log_loss.items()},
        "model_events": dict(tally.model_events),
        "drift_began": tally.drift_began_at_ms is not None,
        "drift_alarm_after_s": _seconds(tally.drift_began_at_ms, tally.drift_alarm_at_ms),
        "drift_alarm": tally.drift_alarm,
        "interrupted": interrupted,
    }


def _seconds(begin_ms: int | None, end_ms: int | None) -> float | None:
    return None if begin_ms is None or end_ms is None else round((end_ms - begin_ms) / 1000, 1)


def told(outcome: Mapping[str, Any]) -> str:
    """The summary in words."""
    alert, decision = outcome["record_to_alert_ms"], outcome["record_to_decision_ms"]
    rejects = ", ".join(f"{reason} {n}" for reason, n in outcome["dead_letters_by_reason"].items()) or "none"
    lines = [
        f"produced {outcome['produced']:,} = decided {outcome['decided']:,} + dead-lettered "
        f"{outcome['dead_lettered']:,} + duplicates {outcome['duplicates']:,}"
        + (
            f" + UNACCOUNTED {outcome['unaccounted']:,}"
            if outcome["unaccounted"]
            else "; every record is accounted for"
        ),
        (
            f"alerts {outcome['alerts']:,}: {outcome['true_positives']:,} frauds caught, {outcome['false_positives']:,} "
            f"false alarms; {outcome['false_negatives']:,} frauds missed"
        ),
        f"record to alert    p50 {alert['p50']} ms  p95 {alert['p95']} ms  p99 {alert['p99']} ms",
        f"record to decision p50 {decision['p50']} ms  p95 {decision['p95']} ms  p99 {decision['p99']} ms",
        f"first decision {outcome['start_to_first_decision_s']} s after the start; dead letters: {rejects}",
        *_learning(outcome),
    ]
    return "\n".join(lines)


def _learning(outcome: Mapping[str, Any]) -> list[str]:
    labels, loss = outcome["labels"], outcome["log_loss"]
    ways = ", ".join(f"{way} {labels[way]:,}" for way in (*WAYS, *AFTERWARDS) if labels[way]) or "none"
    lost = f" + UNACCOUNTED {labels['unaccounted']:,}" if labels["unaccounted"] else ""
    lines = [f"labels {labels['produced']:,}: {ways}{lost}; examples {outcome['examples']:,}"]
    if outcome["examples"]:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in loss.items() if value is not None)
        lines.append(f"log-loss under late labels (lower is better): {figures}")
    if outcome["model_events"]:
        lines.append("model events: " + ", ".join(f"{name} {n}" for name, n in outcome["model_events"].items()))
    if outcome["drift_began"]:
        after, why = outcome["drift_alarm_after_s"], outcome["drift_alarm"]
        lines.append("drift began, not alarmed" if after is None else f"drift alarmed {after} s after it began: {why}")
    return lines

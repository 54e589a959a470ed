"""What a demo came to, as data and as text."""

from collections.abc import Mapping
from typing import Any

from fraudstream.demo.tally import Tally, percentiles


def summary(tally: Tally, counts: Mapping[str, int], *, began_ms: int, interrupted: bool = False) -> dict[str, Any]:
    """The figures of a run. `counts` are the worker's counters; `unaccounted` is 0 if every record ended somewhere."""
    dead_lettered = sum(tally.rejects.values())
    duplicates = counts.get("duplicates", 0)
    first = tally.first_decision_at_ms
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
        "start_to_first_decision_s": None if first is None else round((first - began_ms) / 1000, 1),
        "decisions_per_second_highest": max(tally.per_second.values(), default=0),
        "interrupted": interrupted,
    }


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
    ]
    return "\n".join(lines)

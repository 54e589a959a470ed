"""What the demo adds up and shows, told step by step."""

import io
import math

import pytest
from rich.console import Console

from fraudstream.demo.summary import summary, told
from fraudstream.demo.tally import Tally, percentiles
from fraudstream.demo.view import render, spark
from fraudstream.events import Example, ModelEvent, ModelEventKind


def _alert(name: str) -> dict[str, object]:
    reasons = [{"code": "amount", "text": "amount 5 times the mean", "contribution": 1.0}]
    return {
        "transaction_id": name, "card_id": "c1", "amount": 12.5, "score": 0.9, "action": "review", "reasons": reasons
    }  # fmt: skip


def _told() -> Tally:
    tally = Tally(truth={"a": True, "b": False, "c": True})
    for at, name in enumerate(["a", "b", "c", "a", None]):
        tally.saw_transaction(name, 1_000 + at)
    tally.saw_decision({"transaction_id": "a", "action": "review"}, 1_010)
    tally.saw_alert(_alert("a"), 1_012)
    tally.saw_alert(_alert("b"), 1_021)  # an alert may be seen before its decision
    tally.saw_decision({"transaction_id": "b", "action": "review"}, 1_020)
    tally.saw_decision({"transaction_id": "c", "action": "allow"}, 1_030)
    tally.saw_decision({"transaction_id": "c", "action": "allow"}, 9_999)
    tally.saw_alert(_alert("a"), 9_999)
    tally.saw_dead_letter("invalid_json")
    return tally


def test_every_record_is_counted_once_and_timed_from_its_arrival() -> None:
    """Repeated decisions and alerts change nothing; latencies are those of the first of each."""
    tally = _told()
    assert (tally.produced, tally.decided, tally.alerts, tally.repeated) == (5, 3, 2, 1)
    assert tally.decision_ms == [10, 19, 28]
    assert tally.alert_ms == [12, 20]
    assert tally.verdicts == {"true_positives": 1, "false_positives": 1, "false_negatives": 1}


def test_what_was_answered_is_forgotten() -> None:
    """The list of arrivals holds only what still waits, so that a long run is timed to its end."""
    tally = _told()
    tally.saw_transaction("c", 2_000)  # a duplicate after the answer
    assert tally._arrived == {}


def test_the_summary_accounts_for_every_record() -> None:
    """Produced is decided, dead-lettered and duplicates; what is left over is said loudly."""
    outcome = summary(_told(), {"duplicates": 1}, began_ms=0)
    assert (outcome["unaccounted"], outcome["start_to_first_decision_s"]) == (0, 1.0)
    assert "every record is accounted for" in told(outcome)
    lost = summary(_told(), {}, began_ms=0)
    assert lost["unaccounted"] == 1
    assert "UNACCOUNTED 1" in told(lost)


def test_a_summary_of_nothing_can_be_told() -> None:
    """A run that ended before its first record has a summary too."""
    assert "produced 0" in told(summary(Tally(), {}, began_ms=0, interrupted=True))
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_the_view_shows_alerts_reasons_and_rejects() -> None:
    """All of it fits a terminal, also before anything has happened."""
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(Tally(), {}, now_ms=1_000, phase="starting"))
    console.print(render(_told(), {"duplicates": 1}, now_ms=2_500, phase="Ctrl-C ends it"))
    shown = console.export_text()
    assert "none yet" in shown
    for part in ("amount 5 times the mean", "invalid_json 1", "caught 1", "Ctrl-C ends it"):
        assert part in shown


def test_bars_are_as_high_as_their_values() -> None:
    """The highest value has the highest bar; zero has the lowest."""
    assert spark([0, 7, 14]) == "▁▄█"
    assert spark([0, 0]) == "▁▁"
    assert not spark([])


def _example(name: str, *, is_fraud: bool, champion: float, online: float | None) -> Example:
    score = champion if online is None else online
    return Example(
        transaction_id=name, card_id="c1", event_time_ms=1, label_time_ms=2, is_fraud=is_fraud, source="chargeback",
        amount=1.0, action="allow", score=score, champion_score=champion, online_score=online, threshold=0.5,
        model_name="fraud", model_version="1", features_digest="x", features=b"",
    )  # fmt: skip


def _event(event_id: str, state: str = "began") -> ModelEvent:
    return ModelEvent(event_id, ModelEventKind.DRIFT, state, 5, "amount", "amount has moved", "fraud", "1", {})  # type: ignore[arg-type] # a Literal


def test_examples_are_judged_once_by_what_was_said_before_the_verdict() -> None:
    """Mean log-loss of both models and of what decided; an example that comes twice counts once."""
    tally = Tally()
    tally.saw_example(_example("a", is_fraud=True, champion=0.5, online=None))
    assert tally.log_loss == {
        "champion": pytest.approx(math.log(2)),
        "online": None,
        "decided": pytest.approx(math.log(2)),
    }
    for _ in range(2):
        tally.saw_example(_example("b", is_fraud=False, champion=0.0, online=0.5))
    assert tally.examples == 2
    half = math.log(2) / 2
    assert tally.log_loss == {
        "champion": pytest.approx(half, abs=1e-5),
        "online": pytest.approx(2 * half),
        "decided": pytest.approx(2 * half),
    }


def test_the_alarm_is_timed_from_the_first_drifted_transaction() -> None:
    """Alarms before the drift began, ends, and an event told again do not count."""
    tally = Tally(drift_begins_with="d1")
    tally.saw_model_event(_event("0"), 500)
    tally.saw_transaction("d1", 1_000)
    tally.saw_model_event(_event("0"), 1_500)
    tally.saw_model_event(_event("1", "ended"), 2_000)
    tally.saw_model_event(_event("2"), 9_000)
    outcome = summary(tally, {}, began_ms=0)
    assert outcome["drift_alarm_after_s"] == 8.0
    assert outcome["model_events"] == {"drift began": 2, "drift ended": 1}
    assert "drift alarmed 8.0 s after it began: amount has moved" in told(outcome)
    assert "drift began, not alarmed" in told(summary(_drifted(), {}, began_ms=0))


def _drifted() -> Tally:
    tally = Tally(drift_begins_with="d1")
    tally.saw_transaction("d1", 1_000)
    return tally


def test_labels_are_accounted_for_as_records_are() -> None:
    """Each way has its number; a label that ended nowhere is said loudly."""
    tally = Tally()
    for _ in range(5):
        tally.saw_label()
    counts = {"labels.joined": 2, "labels.parked": 2, "labels.early": 1, "labels.duplicate": 1}
    outcome = summary(tally, counts, began_ms=0)
    assert outcome["labels"]["unaccounted"] == 0
    assert "labels 5: joined 2, parked 2, duplicate 1, early 1, waiting 1" in told(outcome)
    assert "UNACCOUNTED 1" in told(summary(tally, counts | {"labels.joined": 1}, began_ms=0))


def test_the_view_shows_labels_learning_and_drift() -> None:
    """How labels ended, the losses, and the newest model events in words."""
    tally = _drifted()
    tally.saw_model_event(_event("1"), 2_000)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(tally, {"labels.joined": 7}, now_ms=2_500, phase=""))
    shown = console.export_text()
    assert "joined 7" in shown
    assert "amount has moved" in shown

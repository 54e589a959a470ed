"""What the demo adds up and shows, told step by step."""

import io

from rich.console import Console

from fraudstream.demo.summary import summary, told
from fraudstream.demo.tally import Tally, percentiles
from fraudstream.demo.view import render, spark


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

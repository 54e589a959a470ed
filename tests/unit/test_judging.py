"""Quality beside the learner: in its commit, the same whatever dies and however examples are batched, and shown."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from fraudstream.cli.quality import show
from fraudstream.core.quality import QUALITY, Quality
from fraudstream.core.quality_figures import CostMatrix
from fraudstream.core.quality_report import DECIDED, report
from fraudstream.core.watch import Estimated
from fraudstream.events import Example
from fraudstream.models.quality_page import render
from fraudstream.services.judging import Judge

DAY_MS = 86_400_000


def examples(count: int, seed: int = 0) -> list[Example]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        fraud = bool(random.random() < 0.1)
        champion = float(random.beta(6, 4) if fraud else random.beta(1, 20))
        found.append(
            Example(
                f"t{number}", "c", int(random.integers(0, 3 * DAY_MS)), 0, fraud, "chargeback", 10.0 + number,
                "review" if champion >= 0.5 else "allow", champion, champion, champion / 2 if number % 2 else None, 0.5,
                "fraud", "1", "digest", b"",
            )
        )  # fmt: skip
    return found


def test_the_fields_that_changed_make_up_the_state_however_examples_come() -> None:
    """One by one with a crash after each, or all at once: the same fields in the learner's hash."""
    some = examples(60)
    stored: dict[str, bytes] = {}
    for example in some:
        judge = Judge()
        judge.load(stored)
        judge.judge([example])
        stored |= judge.parts()
    at_once = Judge()
    at_once.judge(some)
    assert stored == at_once.parts()
    assert all(name.startswith(QUALITY) for name in stored)


def test_the_thresholds_of_the_version_count_and_of_others_those_of_the_action() -> None:
    """A champion's score between review and block is an alert although the decision was a block."""
    blocked = msg = examples(1)[0]
    blocked = Example(
        msg.transaction_id,
        msg.card_id,
        0,
        0,
        True,
        "analyst",
        50.0,
        "block",
        0.95,
        0.7,
        None,
        0.9,
        "fraud",
        "1",
        "d",
        b"",
    )
    known, unknown = Judge({"fraud 1": (0.5, 0.9)}), Judge()
    for judge in (known, unknown):
        judge.judge([blocked])
    assert known.quality.total("fraud 1", "champion")["alerts"] == 1
    assert unknown.quality.total("fraud 1", "champion")["alerts"] == 0
    assert unknown.quality.total("fraud 1", "decided")["blocks"] == 1


def test_degraded_decisions_are_not_judged_and_a_missing_online_score_is_left_out() -> None:
    """Decided without state says nothing of a model; before there is an online model only the others count."""
    some = examples(10)
    degraded = Example(*[getattr(some[0], name) for name in Example.__struct_fields__[:-1]], degraded=True)
    judge = Judge()
    judge.judge([*some, degraded])
    counts = {name: judge.quality.total("fraud 1", name)["examples"] for name in ("champion", "online", "decided")}
    assert counts == {"champion": 10, "online": 5, "decided": 10}


def test_a_figure_that_cannot_be_read_costs_itself_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It is told as an error, the others go on, and the next commit empties it."""
    judge = Judge()
    judge.judge(examples(30))
    whole = judge.parts()
    broken = QUALITY + "fraud 1|online|-1"
    judge.load(whole | {broken: b"broken", "state": b"{}"})
    assert judge.quality.scores("fraud 1") == ["champion", "decided", "online"]
    assert judge.quality.total("fraud 1", "champion")["examples"] == 30
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "fraud 1|online|-1" in caplog.text
    assert judge.parts() == {broken: b""}


def test_amounts_are_counted_as_they_are_decided_on() -> None:
    """Half a hundredth goes where decimal arithmetic takes it, not where a product of doubles does."""
    judge = Judge()
    judge.judge([msgspec.structs.replace(examples(1)[0], is_fraud=True, amount=2.675)])
    total = judge.quality.total("fraud 1", "champion")
    assert total["saved"] + total["missed"] == 268


def test_figures_are_shown_beside_what_was_estimated(tmp_path: Path) -> None:
    """Tables and page: every score of the version, days with labels and days without."""
    judge = Judge()
    judge.judge(examples(300))
    days = {day: Estimated(100, 5, 4.0, 0.8, 0.6, 0.05, 900.0, 100.0) for day in range(5)}
    found = report(judge.quality, days, CostMatrix(), budget=10)
    assert [score.name for score in found.versions[0].scores] == ["champion", "decided", "online"]
    assert [day.found is not None for day in found.days] == [True] * 3 + [False] * 2
    assert found.versions[0].scores[1].name == DECIDED
    total = found.versions[0].scores[0].total
    assert total.examples == 300
    assert total.precision is not None
    assert not math.isnan(total.precision)
    console = Console(record=True, width=220, file=(tmp_path / "out").open("w"))
    show(found, console)
    assert "fraud 1" in console.export_text()
    page = render(found)
    assert page.count("<svg") == 2
    assert "estimated from the scores" in page


@pytest.mark.parametrize("days", [{}, {3: Estimated(1, 0, 0.1, None, 0.0, 0.0, 0.0, 0.0)}])
def test_before_any_label_there_is_something_to_show(days: dict[int, Estimated]) -> None:
    """No example yet: a page and tables all the same."""
    found = report(Quality(), days, CostMatrix(), budget=10)
    assert "no label has come yet" in render(found)
    show(found, Console(quiet=True))

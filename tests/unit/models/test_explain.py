"""Reasons: what raised the score, in words, at most four, the same every time."""

import numpy as np
import pytest

from fraudstream.core.features import FeatureSet
from fraudstream.core.windows import FloatArray
from fraudstream.models.artefact import Artefact, FeatureBaseline, Matrix
from fraudstream.models.champion import OnnxModel
from fraudstream.models.explain import CONTRIBUTION_MIN, Explainer, describe, groups_of

FEATURES = FeatureSet.parse("""
[entities]
card = "card_id"
terminal = "terminal_id"
[windows]
d1 = { length = "1d", hop = "1h" }
d7 = { length = "7d", hop = "1d" }
late = { length = "7d", hop = "6h", delay = "7d" }
late_h = { length = "6h", hop = "6h", delay = "30h" }
[features]
amount = { field = "amount", text = "amount" }
night = { calendar = "night" }
hour = { calendar = "hour" }
risk = { field = "device_risk" }
count_1d = { entity = "card", aggregate = "count", window = "d1" }
count_7d = { entity = "card", aggregate = "count", window = "d7" }
mean_7d = { entity = "card", aggregate = "mean", window = "d7" }
max_7d = { entity = "card", aggregate = "max", window = "d7", before = true }
std_7d = { entity = "card", aggregate = "std", window = "d7" }
sum_1d = { entity = "card", aggregate = "sum", window = "d1" }
idle = { entity = "card", aggregate = "seconds_since_last" }
amount_to_mean = { ratio = ["amount", "mean_7d"], text = "amount against the card's mean" }
mean_to_max = { ratio = ["mean_7d", "max_7d"] }
odd = { deviation = ["amount", "mean_7d", "std_7d"] }
share = { entity = "terminal", aggregate = "fraud_share", window = "late" }
frauds = { entity = "terminal", aggregate = "frauds", window = "late_h" }
""")


def log_odds_sum(weights: dict[str, float]) -> object:
    """A model whose log-odds are a weighted sum: what occlusion must find is known."""
    row = np.array([weights.get(name, 0.0) for name in FEATURES.names])

    def score(matrix: Matrix) -> FloatArray:
        return 1.0 / (1.0 + np.exp(-(matrix.astype(np.float64) @ row)))

    return score


def explainer(weights: dict[str, float], usual: dict[str, float] | None = None) -> Explainer:
    known = usual or {}
    baseline = {name: FeatureBaseline((0.0, 10.0), (1, 1, 1), known.get(name, 0.0)) for name in FEATURES.names}
    return Explainer(FEATURES, baseline, log_odds_sum(weights))  # type: ignore[arg-type]


def row(**values: float) -> Matrix:
    return np.array([[values.get(name, 0.0) for name in FEATURES.names]], np.float32)


def test_features_that_hide_behind_each_other_form_one_group() -> None:
    """Windows of one count, amounts of one card, frauds of one terminal, and ratios with what they measure, move together."""
    groups = {group.code: [FEATURES.names[column] for column in group.columns] for group in groups_of(FEATURES.spec)}
    assert groups == {
        "AMOUNT": ["amount", "amount_to_mean", "odd"],
        "NIGHT": ["night"],
        "HOUR": ["hour"],
        "RISK": ["risk"],
        "CARD_COUNT": ["count_1d", "count_7d"],
        "CARD_AMOUNTS": ["mean_7d", "max_7d", "std_7d", "sum_1d", "mean_to_max"],
        "IDLE": ["idle"],
        "TERMINAL_FRAUDS": ["share", "frauds"],
    }


def test_contributions_are_the_fall_of_the_log_odds() -> None:
    """Each reason is what the group adds to the log-odds over its usual value, the largest first."""
    found = explainer({"amount": 0.01, "count_1d": 0.5, "night": 1.0}, {"amount": 100.0, "count_1d": 2.0}).reasons(
        row(amount=300.0, count_1d=8.0, night=1.0)
    )
    assert [(reason.code, round(reason.contribution, 6)) for reason in found[0]] == [
        ("CARD_COUNT", 3.0),
        ("AMOUNT", 2.0),
        ("NIGHT", 1.0),
    ]
    assert [reason.text for reason in found[0]] == [
        "8 transactions of the card in the last day (usually 2)",
        "amount 300.00, usually about 100.00",
        "at night",
    ]


def test_only_what_raised_the_score_is_a_reason() -> None:
    """What lowered it, and what hardly moved it, is left out; a row may have no reason at all."""
    found = explainer({"amount": -1.0, "night": CONTRIBUTION_MIN / 2, "risk": 1.0}).reasons(
        np.concatenate([row(amount=1.0, night=1.0, risk=1.0), row(amount=1.0, night=1.0)])
    )
    assert [[reason.code for reason in of_row] for of_row in found] == [["RISK"], []]


def test_at_most_four_and_ties_in_the_order_of_the_list() -> None:
    """Of seven equal groups the first four of the feature list are told."""
    names = ("amount", "night", "hour", "risk", "count_1d", "idle", "share")
    found = explainer(dict.fromkeys(names, 1.0)).reasons(row(**dict.fromkeys(names, 1.0)))
    assert [reason.code for reason in found[0]] == ["AMOUNT", "NIGHT", "HOUR", "RISK"]


def test_a_group_is_told_by_its_most_unusual_feature() -> None:
    """Of several windows, the one farthest from usual, by its own spread, is put into words."""
    found = explainer({"count_1d": 1.0, "count_7d": 1.0}, {"count_7d": 5.0}).reasons(row(count_1d=2.0, count_7d=30.0))
    assert found[0][0].text == "30 transactions of the card in the last 7 days (usually 5)"


def test_certain_scores_give_bounded_contributions() -> None:
    """A score of exactly 1 against one of 0 is a finite number, not infinity."""
    found = explainer({"amount": 1e6}).reasons(row(amount=1.0))
    assert 0 < found[0][0].contribution < 30


def test_no_rows_give_no_reasons() -> None:
    """A batch without alerts asks the model nothing."""
    assert explainer({}).reasons(row()[:0]) == []


@pytest.mark.parametrize(
    ("name", "value", "usual", "words"),
    [
        ("night", 0.0, 0.0, "not at night"),
        ("hour", 3.0, 14.0, "hour of the day 03"),
        ("risk", 0.75, 0.1, "risk 0.75, usually about 0.10"),
        ("count_1d", 1.0, 2.0, "1 transaction of the card in the last day (usually 2)"),
        ("mean_7d", 91.5, 40.0, "mean amount of the card in the last 7 days 91.50 (usually 40.00)"),
        ("max_7d", 91.5, 40.0, "largest amount of the card in the last 7 days before this one 91.50 (usually 40.00)"),
        ("sum_1d", 91.5, 40.0, "total amount of the card in the last day 91.50 (usually 40.00)"),
        ("std_7d", 91.5, 40.0, "spread of the amounts of the card in the last 7 days 91.50 (usually 40.00)"),
        ("idle", 12.0, 7200.0, "12 seconds since the last transaction of the card (usually 2.0 hours)"),
        ("idle", 2_592_000.0, 90_000.0, "30 days or more since the last transaction of the card (usually 1.0 days)"),
        ("amount_to_mean", 8.0, 1.0, "amount against the card's mean 8.00, usually about 1.00"),
        ("mean_to_max", 0.5, 0.8, "mean 7d against max 7d 0.50, usually about 0.80"),
        ("odd", 3.0, 0.0, "standard deviations of amount from mean 7d 3.00, usually about 0.00"),
        (
            "share",
            0.6,
            0.0,
            "60 % of the transactions of the terminal in the 7 days that ended 7 days ago were fraud (usually 0 %)",
        ),
        ("frauds", 1.0, 0.0, "1 fraud of the terminal in the 6 hours that ended 30 hours ago (usually 0)"),
    ],
)
def test_every_kind_of_feature_is_put_into_words(name: str, value: float, usual: float, words: str) -> None:
    """Each kind says what it counts, over which time, and what is usual."""
    assert describe(FEATURES.spec, name, value, usual) == words


def test_a_trained_version_gives_reasons_for_its_highest_scores(artefact: Artefact) -> None:
    """The golden rows with the highest scores have reasons with codes of the default list, the same on every call."""
    model, golden = OnnxModel(artefact), artefact.golden()
    highest = golden.matrix[np.argsort(-golden.scores)[:20]]
    found = model.reasons(highest)
    assert all(1 <= len(of_row) <= 4 for of_row in found)
    assert {reason.code for of_row in found for reason in of_row} & {"AMOUNT", "TERMINAL_FRAUDS"}
    assert found == model.reasons(highest)
    alone = [model.reasons(highest[at : at + 1])[0] for at in range(len(highest))]
    assert alone == list(found)

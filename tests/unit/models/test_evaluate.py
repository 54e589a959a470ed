"""Backtests: the scores of the version, in figures that can be checked, as text, JSON and a page."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.support.card_history import DAY_MS, START_MS

from fraudstream.errors import SettingsError
from fraudstream.models import metrics
from fraudstream.models.artefact import Artefact
from fraudstream.models.card import figure
from fraudstream.models.champion import OnnxModel
from fraudstream.models.evaluate import EvaluateSettings, Evaluation, evaluate
from fraudstream.models.history import replay
from fraudstream.models.history_file import History
from fraudstream.models.learner import LearnerSettings
from fraudstream.models.quality import label_of
from fraudstream.models.report import render
from fraudstream.models.train import TrainSettings


@pytest.fixture(scope="module")
def range_(settings: TrainSettings) -> EvaluateSettings:
    """The last five days of the history, after the training."""
    return EvaluateSettings(settings.transactions, START_MS + 35 * DAY_MS, START_MS + 40 * DAY_MS)


@pytest.fixture(scope="module")
def evaluation(artefact: Artefact, range_: EvaluateSettings) -> Evaluation:
    return evaluate(artefact, range_)


def test_scores_are_those_of_the_model_over_the_replay(
    artefact: Artefact, range_: EvaluateSettings, evaluation: Evaluation
) -> None:
    """Every transaction of the range is scored with the state that all earlier ones of the file left."""
    model = OnnxModel(artefact)
    history = History(range_.transactions, model.features)
    parts = list(replay(model.features, history))
    times = np.concatenate([part.times_ms for part in parts])
    inside = (times >= range_.from_ms) & (times < range_.until_ms)
    scores = np.concatenate([model.score(part.matrix).score for part in parts])[inside]
    assert evaluation.scored.scores.tolist() == scores.tolist()
    assert evaluation.report.transactions == np.count_nonzero(inside)


def test_areas_equal_scikit_learns_over_all_transactions(evaluation: Evaluation) -> None:
    """AUC and average precision are those of all transactions of the range, known cards included."""
    frauds, scores, figures = evaluation.scored.frauds, evaluation.scored.scores, evaluation.report.metrics
    assert figures["auc"] == pytest.approx(roc_auc_score(frauds, scores), abs=1e-12)
    assert figures["ap"] == pytest.approx(average_precision_score(frauds, scores), abs=1e-12)


def test_days_add_up(evaluation: Evaluation) -> None:
    """Per-day lines cover every day once and sum to the totals and to precision and recall at the threshold."""
    report = evaluation.report
    assert [day.date for day in report.days] == [f"2018-06-0{day}" for day in range(5, 10)]
    assert sum(day.transactions for day in report.days) == report.transactions
    assert sum(day.frauds for day in report.days) == report.frauds
    alerts, hits = sum(day.alerts for day in report.days), sum(day.hits for day in report.days)
    assert report.metrics["precision_review"] == pytest.approx(hits / alerts)
    assert report.metrics["recall_review"] == pytest.approx(hits / report.frauds)
    assert report.metrics["alerts_per_day"] == pytest.approx(alerts / 5)


def test_slices_cover_all_transactions(evaluation: Evaluation) -> None:
    """Amount bands are a partition, and so are night and day."""
    counts = {name: values["transactions"] or 0 for name, values in evaluation.report.slices.items()}
    amounts = sum(count for name, count in counts.items() if name.startswith("amount"))
    assert amounts == counts["night"] + counts["day"] == evaluation.report.transactions


def test_a_cold_start_has_no_history(artefact: Artefact, range_: EvaluateSettings, evaluation: Evaluation) -> None:
    """Begun cold, the same transactions meet empty windows: other scores, the same truth and the same known cards."""
    cold = evaluate(artefact, replace(range_, cold=True))
    assert cold.report.cold
    assert cold.scored.frauds.tolist() == evaluation.scored.frauds.tolist()
    assert cold.scored.scores.tolist() != evaluation.scored.scores.tolist()
    removed = [
        evaluate(artefact, replace(range_, cold=c, remove_known_cards=True)).report.removed for c in (True, False)
    ]
    assert removed[0] == removed[1] > 0


def test_known_cards_are_removed_by_the_protocol(
    artefact: Artefact, range_: EvaluateSettings, evaluation: Evaluation
) -> None:
    """A card is left out once it had a fraud, since two weeks before the range, that is more than the label delay old."""
    model = OnnxModel(artefact)
    past: dict[int, int] = {}
    kept = []
    for part in replay(model.features, History(range_.transactions, model.features)):
        for time_ms, card, fraud in zip(part.times_ms.tolist(), part.cards.tolist(), part.frauds.tolist(), strict=True):
            day = time_ms // DAY_MS
            if time_ms >= range_.from_ms:
                kept.append(past.get(card, day) >= day - 7)
            if fraud and time_ms >= range_.from_ms - 14 * DAY_MS:
                past.setdefault(card, day)
    found = evaluate(artefact, replace(range_, remove_known_cards=True))
    rest = evaluation.scored.where(np.array(kept))
    assert 0 < len(rest) < len(kept)
    assert found.report.transactions == len(rest)
    points = metrics.curve(rest.frauds, rest.scores)
    assert found.report.metrics["auc"] == pytest.approx(metrics.auc_roc(points))
    for name in ("cp_100", "cp_100_unknown_cards"):
        assert found.report.metrics[name] == evaluation.report.metrics[name]


def test_a_range_that_was_fitted_is_said(artefact: Artefact, range_: EvaluateSettings, evaluation: Evaluation) -> None:
    """Figures on fitted transactions carry a note, figures after the training none."""
    assert evaluation.report.notes == ()
    overlapping = evaluate(artefact, replace(range_, from_ms=START_MS + 20 * DAY_MS))
    assert "too good" in overlapping.report.notes[0]
    before = evaluate(artefact, replace(range_, from_ms=START_MS + 30 * DAY_MS))
    assert "could not have decided then" in before.report.notes[0]


@pytest.mark.parametrize(
    ("from_day", "until_day", "complaint"),
    [(10, 10, "is not before"), (50, 60, "the file has 2018-05-01T.* to 2018-06-09T")],
)
def test_an_empty_range_is_said(
    artefact: Artefact, range_: EvaluateSettings, from_day: int, until_day: int, complaint: str
) -> None:
    """A range without transactions ends with one line that says what the file has."""
    chosen = replace(range_, from_ms=START_MS + from_day * DAY_MS, until_ms=START_MS + until_day * DAY_MS)
    with pytest.raises(SettingsError, match=complaint):
        evaluate(artefact, chosen)


def test_days_without_frauds_are_reported(artefact: Artefact, range_: EvaluateSettings) -> None:
    """Where nothing can be computed the figure is null in JSON and n/a on the page, not an error."""
    short = evaluate(artefact, replace(range_, until_ms=range_.from_ms + 60 * 60_000))
    figures = msgspec.json.decode(msgspec.json.encode(short.report))["metrics"]
    if not short.report.frauds:
        assert figures["auc"] is None
        assert "n/a" in render(short)
    assert figures["alerts_per_day"] is not None


# --- the page ----------------------------------------------------------------------------------------------------------

VOID = {"meta"}


class Page(HTMLParser):
    """Tags in balance, and what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(evaluation: Evaluation) -> None:
    """Tags are balanced, six plots are in it, and neither script, link, font nor address from elsewhere."""
    text = render(evaluation)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.seen.count("svg") == 6
    assert page.links == []
    assert not {"script", "link", "iframe", "img"} & set(page.seen)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<style>.*?</style>", "", text))


def test_the_page_shows_the_figures(evaluation: Evaluation) -> None:
    """Every figure, slice and day of the report is on the page."""
    text = render(evaluation)
    for name in evaluation.report.metrics:
        assert f"<td>{label_of(name)}</td><td>{figure(evaluation.report.metrics[name])}</td>" in text
    for name in evaluation.report.slices:
        assert f"<td>{name}</td>" in text
    for day in evaluation.report.days:
        assert f"<td>{day.date}</td>" in text


def test_names_are_escaped(evaluation: Evaluation) -> None:
    """A file name with mark-up in it is text on the page."""
    report = msgspec.structs.replace(evaluation.report, source="<b>x</b>.parquet", notes=("a & b",))
    text = render(Evaluation(report, evaluation.scored))
    assert "&lt;b&gt;x&lt;/b&gt;.parquet" in text
    assert "a &amp; b" in text


def test_a_page_of_one_transaction_renders(evaluation: Evaluation) -> None:
    """The plots stand the least there can be to plot."""
    scored = evaluation.scored.where(np.arange(1))
    report = msgspec.structs.replace(evaluation.report, days=evaluation.report.days[:1])
    assert "<svg" in render(Evaluation(report, scored))


def test_the_report_is_written_small(evaluation: Evaluation, tmp_path: Path) -> None:
    """A page of any number of transactions stays within some hundred kilobytes."""
    (tmp_path / "report.html").write_text(render(evaluation), encoding="utf-8")
    assert (tmp_path / "report.html").stat().st_size < 200_000


def test_the_online_model_learns_only_what_is_known(artefact: Artefact, range_: EvaluateSettings) -> None:
    """Labels a week late: within a week nothing is learned and all three scores are one; later each hour knows more."""
    delay_ms = artefact.manifest.training.label_delay_ms
    early = evaluate(artefact, replace(range_, online=LearnerSettings(warm_up=100))).report.online
    assert early is not None
    assert delay_ms == 7 * DAY_MS
    assert (early.learned, early.champion, early.champion) == (0, early.online, early.blend)
    longer = replace(range_, from_ms=range_.until_ms - 12 * DAY_MS, online_from_ms=range_.until_ms - 4 * DAY_MS)
    later = evaluate(artefact, replace(longer, online=LearnerSettings(warm_up=100))).report
    found = later.online
    assert found is not None
    model = OnnxModel(artefact)
    parts = list(replay(model.features, History(range_.transactions, model.features)))
    times = np.concatenate([part.times_ms for part in parts])
    last_hour_ms = int(times[times < range_.until_ms][-1]) // 3_600_000 * 3_600_000
    assert found.learned == np.count_nonzero((times >= longer.from_ms) & (times <= last_hour_ms - delay_ms))
    assert found.transactions == np.count_nonzero((times >= range_.until_ms - 4 * DAY_MS) & (times < range_.until_ms))
    assert found.online != found.champion
    assert 0 < found.share < 1


def test_another_classifier_is_asked_itself(artefact: Artefact, range_: EvaluateSettings) -> None:
    """A model without arrays is scored row by row, as scorers do: its figures are its own, not the champion's."""
    settings = LearnerSettings(classifier="river.naive_bayes.GaussianNB", pickle_key=b"key")
    longer = replace(range_, from_ms=range_.until_ms - 12 * DAY_MS, online_from_ms=range_.until_ms - 4 * DAY_MS)
    found = evaluate(artefact, replace(longer, online=settings)).report.online
    assert found is not None
    assert found.learned > 0
    assert found.online != found.champion
    assert found.online != found.blend

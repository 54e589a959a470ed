"""The backtest as one HTML page: figures, plots, days, slices. Self-contained: no script, no font, no network."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import numpy as np

from fraudstream.core.windows import FloatArray
from fraudstream.models import metrics
from fraudstream.models.card import figure
from fraudstream.models.evaluate import Evaluation, Report
from fraudstream.models.metrics import Curve
from fraudstream.models.plots import (
    Plot,
    count_axis,
    log_axis,
    odds_axis,
    share_axis,
    thinned,
)
from fraudstream.models.quality import Scored, label_of

HISTOGRAM_BINS = 40
# Bins of the calibration plot: even in log-odds, where scores of rare events live.
CALIBRATION_EDGES = (0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)
# Two-sided 95 %: the quantile of the normal distribution in Wilson's interval.
_Z95 = 1.96

_TILES: Mapping[str, tuple[str, str]] = {
    "auc": ("AUC ROC", "a random fraud scores higher than a random legitimate transaction this often"),
    "ap": ("Average precision", "precision, averaged over the frauds found one after the other"),
    "cp_100": ("CP@100", "share of each day's 100 most suspicious cards that are compromised; all cards"),
    "cp_100_unknown_cards": ("CP@100, unknown cards", "the same without cards already known"),
    "precision_review": ("Precision", "share of alerts that are frauds"),
    "recall_review": ("Recall", "share of frauds that raised an alert"),
    "alerts_per_day": ("Alerts a day", "on average"),
    "expected_calibration_error": ("Calibration error", "how far scores are from shares of fraud, on average"),
}


def render(evaluation: Evaluation) -> str:
    """The page."""
    report, scored = evaluation.report, evaluation.scored
    points = metrics.curve(scored.frauds, scored.scores)
    title = f"{report.model} version {report.version}"
    style = files("fraudstream.models").joinpath("report.css").read_text("utf-8")
    plots = (
        (
            "Precision and recall",
            "What each threshold gives; the dots are the thresholds in force.",
            _pr_plot(points, report),
        ),
        (
            "What more alerts buy",
            "Recall and precision by the alerts a day one can look into.",
            _budget_plot(points, scored),
        ),
        ("ROC", "Frauds found against false alarms.", _roc_plot(points, report)),
        ("Scores", "Number of transactions by score; each step up is ten times as many.", _histogram_plot(scored)),
        (
            "Calibration",
            "Share of frauds where the model said so much; on the diagonal it is right.",
            _calibration_plot(scored),
        ),
        ("Day by day", "Precision and recall at the review threshold.", _days_plot(report)),
    )
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_subtitle(report))}</p></header>",
        *(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        f'<section class="tiles">{_tiles(report)}</section>',
        '<section class="plots">',
        *(f"<figure><h2>{escape(name)}</h2><p>{escape(text)}</p>{svg}</figure>" for name, text, svg in plots),
        "</section>",
        table("All figures", ("figure", "value"), [(label_of(k), figure(v)) for k, v in report.metrics.items()]),
        _slices_table(report),
        _days_table(report),
        f"<footer>{escape(_footer(report))}</footer>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _subtitle(report: Report) -> str:
    removed = f", {report.removed:,} of known cards removed" if report.known_cards_removed else ""
    start = "begun without history" if report.cold else "all earlier transactions of the file as history"
    return (
        f"{report.source}, {report.from_time[:10]} to {report.until_time[:10]} (not included): "
        f"{report.transactions:,} transactions{removed}, {report.frauds:,} frauds, {report.cards:,} cards; {start}"
    )


def _footer(report: Report) -> str:
    block = "off" if report.thresholds.block is None else f"{report.thresholds.block:.4g}"
    return (
        f"Thresholds: review {report.thresholds.review:.4g}, block {block}. Days are UTC. CP@100 after Le Borgne et al., "
        "Reproducible Machine Learning for Credit Card Fraud Detection, 2022."
    )


def _tiles(report: Report) -> str:
    return "".join(
        f'<div title="{escape(text)}"><b>{figure(report.metrics.get(key))}</b><span>{escape(name)}</span></div>'
        for key, (name, text) in _TILES.items()
    )


def _thresholds(report: Report) -> list[tuple[str, float]]:
    block = report.thresholds.block
    return [("review", report.thresholds.review), *([("block", block)] if block is not None else [])]


def _at(points: Curve, threshold: float) -> int | None:
    """The last operating point at or above a threshold; None if nothing scores as high."""
    at = int(np.searchsorted(-points.thresholds, -threshold, side="right")) - 1
    return at if at >= 0 else None


def _operating(
    points: Curve, report: Report, x: FloatArray, y: FloatArray
) -> tuple[list[tuple[float, float]], list[str]]:
    found = [(name, at) for name, threshold in _thresholds(report) if (at := _at(points, threshold)) is not None]
    return [(float(x[at]), float(y[at])) for _, at in found], [
        f"{name}: precision {points.precision[at]:.3f}, recall {points.recall[at]:.3f}" for name, at in found
    ]


def _pr_plot(points: Curve, report: Report) -> str:
    plot = Plot(share_axis("recall"), share_axis("precision"), "Precision against recall")
    plot.line(thinned(points.recall, points.precision), "c1")
    return plot.dots(*_dots("c2", _operating(points, report, points.recall, points.precision))).svg()


def _dots(
    css: str, found: tuple[list[tuple[float, float]], list[str]]
) -> tuple[list[tuple[float, float]], str, list[str], str]:
    return found[0], css, found[1], "review and block thresholds" if found[0] else ""


def _roc_plot(points: Curve, report: Report) -> str:
    plot = Plot(share_axis("share of legitimate transactions"), share_axis("share of frauds"), "ROC curve")
    plot.line([(0.0, 0.0), (1.0, 1.0)], "muted", "chance")
    x, y = np.concatenate(([0.0], points.false_positive_rate)), np.concatenate(([0.0], points.recall))
    plot.line(thinned(x, y), "c1")
    return plot.dots(*_dots("c2", _operating(points, report, points.false_positive_rate, points.recall))).svg()


def _budget_plot(points: Curve, scored: Scored) -> str:
    per_day = points.alerts / max(scored.day_count, 1)
    shown = per_day >= min(1.0, float(per_day.max(initial=1.0)))
    x = np.log10(per_day[shown])
    plot = Plot(
        log_axis(1.0, max(float(per_day.max(initial=1.0)), 10.0), "alerts a day"), share_axis("share"), "Alert budget"
    )
    for values, css, name in ((points.recall, "c1", "recall"), (points.precision, "c2", "precision")):
        plot.line([(10.0**at, y) for at, y in thinned(x, values[shown])], css, name)
    return plot.svg()


def _histogram_plot(scored: Scored) -> str:
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    legit = np.histogram(scored.scores[~scored.frauds], edges)[0]
    fraud = np.histogram(scored.scores[scored.frauds], edges)[0]
    top = float(max(legit.max(initial=1), fraud.max(initial=1)))
    plot = Plot(share_axis("score"), log_axis(0.5, top, "transactions"), "Histogram of scores")
    lefts, rights = edges[:-1].tolist(), edges[1:].tolist()
    plot.bars(lefts, rights, legit.astype(float).tolist(), "c1", "legitimate")
    return plot.bars(lefts, rights, fraud.astype(float).tolist(), "c2", "fraud").svg()


def _calibration_plot(scored: Scored) -> str:
    bins = metrics.reliability(scored.frauds, scored.scores, np.array(CALIBRATION_EDGES))
    plot = Plot(odds_axis("mean score"), odds_axis("share of frauds"), "Calibration")
    plot.line([(0.0001, 0.0001), (0.9995, 0.9995)], "muted", "right")
    low, high = _wilson(bins.frauds.astype(float), bins.counts.astype(float))
    spans = list(zip(bins.mean_scores.tolist(), low.tolist(), high.tolist(), strict=True))
    shown = list(zip(bins.mean_scores.tolist(), bins.fraud_shares.tolist(), strict=True))
    titles = [
        f"{frauds:,} frauds among {count:,} transactions, mean score {score:.4f}"
        for frauds, count, score in zip(
            bins.frauds.tolist(), bins.counts.tolist(), bins.mean_scores.tolist(), strict=True
        )
    ]
    return plot.spans(spans, "c1").dots(shown, "c1", titles, "share of frauds, with its 95 % interval").svg()


def _wilson(hits: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Wilson's interval of a share (Wilson, JASA 1927)."""
    p = hits / counts
    middle = p + _Z95**2 / (2 * counts)
    half = _Z95 * np.sqrt(p * (1 - p) / counts + _Z95**2 / (4 * counts**2))
    scale = 1 + _Z95**2 / counts
    return (middle - half) / scale, (middle + half) / scale


def _days_plot(report: Report) -> str:
    days = report.days
    marks = np.unique(np.linspace(0, len(days) - 1, min(len(days), 6)).astype(int)).tolist()
    axis = count_axis(1.0, "day")
    axis = type(axis)(0.0, float(max(len(days) - 1, 1)), [(at, days[at].date[5:]) for at in marks], "day")
    plot = Plot(axis, share_axis("share"), "Precision and recall day by day")
    for css, name in (("c1", "recall"), ("c2", "precision")):
        values = [(float(at), getattr(day, name)) for at, day in enumerate(days)]
        known = [(x, y) for x, y in values if y is not None]
        plot.line(known, css, name)
        plot.dots(known, css, [f"{days[int(x)].date}: {name} {y:.3f}" for x, y in known])
    return plot.svg()


def _slices_table(report: Report) -> str:
    columns = list(next(iter(report.slices.values()), {}))
    rows = [(name, *(figure(values[column]) for column in columns)) for name, values in report.slices.items()]
    return table("By slice", ("slice", *map(label_of, columns)), rows)


def _days_table(report: Report) -> str:
    rows = [
        (
            day.date,
            *(f"{n:,}" for n in (day.transactions, day.frauds, day.alerts, day.hits)),
            figure(day.precision),
            figure(day.recall),
        )
        for day in report.days
    ]
    return table("By day", ("date", "transactions", "frauds", "alerts", "right", "precision", "recall"), rows)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text with its title."""
    columns = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<section class="table"><h2>{escape(title)}</h2><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{lines}</tbody></table></section>"
    )

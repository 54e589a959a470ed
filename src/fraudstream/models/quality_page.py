"""Quality under delayed labels as one HTML page: figures, days, and what is estimated until labels come. Self-contained."""

from collections.abc import Callable
from html import escape
from importlib.resources import files

import msgspec
import numpy as np

from fraudstream.codec.times import write_time
from fraudstream.core.features import DAY_MS
from fraudstream.core.quality import DAYS_MAX
from fraudstream.core.quality_figures import Figures
from fraudstream.core.quality_report import DAYS_TOLD, DayQuality, Report
from fraudstream.models.card import figure
from fraudstream.models.plots import Axis, Plot, share_axis
from fraudstream.models.quality import label_of
from fraudstream.models.report import table

_FOOTER = (
    "Every score is judged by what it was when the transaction was decided. AUC, average precision and the budget's figures "
    "are sketched, with the bound of their error; all others are exact. The budget's are of the days that are told one by one "
    f"(the newest {DAYS_MAX}), all others since the start. Estimated figures come from the scores alone."
)


def render(found: Report) -> str:
    """The page."""
    title = "Quality of decisions"
    style = files("fraudstream.models").joinpath("report.css").read_text("utf-8")
    names = ", ".join(version.name for version in found.versions) or "no label has come yet"
    body = [
        f"<header><h1>{title}</h1><p>{escape(names)}</p></header>",
        f'<section class="plots">{_day_plots(found)}</section>',
        *(_version(found, at) for at in range(len(found.versions))),
        _days(found),
        f"<footer>{_FOOTER}</footer>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _version(found: Report, at: int) -> str:
    version = found.versions[at]
    columns = [(score.name, score.total) for score in version.scores]
    columns += [(f"{score.name}, newest {DAYS_TOLD} days", score.rolling) for score in version.scores]
    told = [msgspec.to_builtins(figures) for _, figures in columns]
    rows = [(label_of(name), *(figure(values[name]) for values in told)) for name in Figures.__struct_fields__]
    return table(version.name, ("figure", *(name for name, _ in columns)), rows)


def _day_plots(found: Report) -> str:
    if not found.days:
        return ""
    plots = []
    for title, text, estimated, realised in (
        ("Precision day by day", "Share of alerts that are frauds.", _estimated("precision"), _found("precision")),
        ("Recall day by day", "Share of frauds that raised an alert.", _estimated("recall"), _found("recall")),
    ):
        first, last = found.days[0].day, found.days[-1].day
        marks = np.unique(np.linspace(first, last, 6).astype(int)).tolist()
        axis = Axis(
            float(first), float(max(last, first + 1)), [(at, write_time(at * DAY_MS)[5:10]) for at in marks], "day"
        )
        plot = Plot(axis, share_axis("share"), title)
        for css, name, value in (("c2", "estimated from the scores", estimated), ("c1", "found by labels", realised)):
            known = [(float(day.day), y) for day in found.days if (y := value(day)) is not None]
            plot.line(known, css, name)
            plot.dots(known, css, [f"{write_time(int(x) * DAY_MS)[:10]}: {y:.3f}" for x, y in known])
        plots.append(f"<figure><h2>{title}</h2><p>{text}</p>{plot.svg()}</figure>")
    return "".join(plots)


def _estimated(name: str) -> Callable[[DayQuality], float | None]:
    return lambda day: getattr(day.estimated, name) if day.estimated else None


def _found(name: str) -> Callable[[DayQuality], float | None]:
    return lambda day: getattr(day.found, name) if day.found else None


def _days(found: Report) -> str:
    rows = []
    for day in reversed(found.days):
        guess, truth = day.estimated, day.found
        values = (
            guess.transactions if guess else None, guess.frauds if guess else None, guess.precision if guess else None,
            guess.recall if guess else None, truth.examples if truth else None, truth.frauds if truth else None,
            truth.precision if truth else None, truth.recall if truth else None, truth.log_loss if truth else None,
        )  # fmt: skip
        rows.append((write_time(day.day * DAY_MS)[:10], *(figure(value) for value in values)))
    head = ("day", "transactions", "est. frauds", "est. precision", "est. recall", "labelled", "frauds", "precision",
            "recall", "log-loss")  # fmt: skip
    return table("By day of the transactions", head, rows)

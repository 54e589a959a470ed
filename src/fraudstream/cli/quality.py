"""`fraudstream quality`: how good the decisions were, once their labels have come; and until then, by the scores alone."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from fraudstream import settings
from fraudstream.codec.times import write_time
from fraudstream.core.features import DAY_MS
from fraudstream.core.quality import Quality
from fraudstream.core.quality_report import DAYS_TOLD, Report, report
from fraudstream.models.card import figure
from fraudstream.services.watching import read_state

_COLUMNS = (
    ("examples", "examples"), ("frauds", "frauds"), ("auc", "AUC"), ("average_precision", "AP"), ("log_loss", "log-loss"),
    ("expected_calibration_error", "calibration"), ("precision", "precision"), ("recall", "recall"),
    ("precision_budget", "prec. budget"), ("recall_budget", "recall budget"), ("money_saved", "saved"),
    ("money_lost", "lost"), ("money_spent", "spent"),
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(quality)


def quality(
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots to this file.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Show the quality of decisions whose labels have come: of the champion, the online model and what was decided with.

    Each version since its start, over the newest labelled days and day by day; beside them what the scores alone promise
    for the days whose labels are still to come.
    """
    from fraudstream.services.watch_parts import open_watch_state  # noqa: PLC0415 - needs Redis

    config = settings.load()
    state = open_watch_state(config)
    try:
        kept, watched = Quality.from_fields(state.quality()), read_state(state.load())
    finally:
        state.close()
    for name, fault in kept.unreadable.items():
        typer.echo(f"left out: the figures of {name} cannot be read ({fault})", err=True)
    costs = config.quality
    found = report(kept, watched.days, costs.matrix(), budget=costs.alerts_per_day)
    if as_json:
        as_json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    if html:
        from fraudstream.models.quality_page import render  # noqa: PLC0415 - only for a page

        html.write_text(render(found), "utf-8")
    show(found, Console())


def show(found: Report, console: Console) -> None:
    """Print the tables."""
    if not found.versions:
        console.print(
            "no example yet: quality is known once a label has come and a worker with the role learn has seen it"
        )
    for version in found.versions:
        table = Table(title=f"{version.name}: since the start, and over the newest {DAYS_TOLD} labelled days")
        table.add_column("score")
        for _, name in _COLUMNS:
            table.add_column(name, justify="right")
        for score in version.scores:
            for title, figures in ((score.name, score.total), (f"{score.name}, newest", score.rolling)):
                table.add_row(title, *(figure(getattr(figures, key)) for key, _ in _COLUMNS))
        console.print(table)
    days = Table(title="By day of the transactions: estimated from the scores, and found by labels")
    for column in ("day", "transactions", "est. precision", "est. recall", "labelled", "frauds", "precision", "recall"):
        days.add_column(column, justify="right")
    for day in found.days[-21:]:
        days.add_row(
            write_time(day.day * DAY_MS)[:10],
            *(figure(value) for value in (
                day.estimated.transactions if day.estimated else None,
                day.estimated.precision if day.estimated else None,
                day.estimated.recall if day.estimated else None,
                day.found.examples if day.found else None,
                day.found.frauds if day.found else None,
                day.found.precision if day.found else None,
                day.found.recall if day.found else None,
            )),
        )  # fmt: skip
    if found.days:
        console.print(days)

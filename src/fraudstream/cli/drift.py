"""`fraudstream drift`: what the watch found, as tables in the terminal, as a page, as data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from fraudstream import settings
from fraudstream.codec.times import write_time
from fraudstream.core.alarms import Alarm, Check
from fraudstream.core.features import DAY_MS
from fraudstream.core.watch import Watched
from fraudstream.services.watching import read_state

# Eight heights of a bar, and nothing.
_BARS = " ▁▂▃▄▅▆▇█"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(drift)


def drift(
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots to this file.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Show what has drifted: alarms, every feature and the score against their reference, arrivals, rejects, missing fields.

    Figures are what the watch of a running worker found last. Exit code 1 while an alarm lasts.
    """
    from fraudstream.services.watch_parts import open_watch_state  # noqa: PLC0415 - needs Redis

    state = open_watch_state(settings.load())
    try:
        watched = read_state(state.load())
    finally:
        state.close()
    if watched.at_ms < 0:
        typer.echo("nothing yet: the watch of a worker with the role score writes here once transactions were decided")
        raise typer.Exit(0)
    if as_json:
        as_json.write_bytes(msgspec.json.format(msgspec.json.encode(watched), indent=2) + b"\n")
    if html:
        from fraudstream.models.drift_page import render  # noqa: PLC0415 - only for a page

        html.write_text(render(watched), "utf-8")
    show(watched, Console())
    raise typer.Exit(1 if watched.alarms.lasting else 0)


def show(watched: Watched, console: Console) -> None:
    """Print the tables."""
    console.print(
        f"{watched.model} version {watched.version}, up to {write_time(watched.at_ms)}, "
        f"{watched.transactions:,} transactions decided"
    )
    lasting = sorted(watched.alarms.lasting.values(), key=lambda alarm: alarm.began_ms)
    ended = watched.alarms.ended[-5:]
    console.print(_alarms_table(lasting, ended) if lasting or ended else "no alarm")
    console.print(_checks_table(watched))
    if watched.days:
        console.print(_days_table(watched))


def sparkline(counts: Sequence[int | float]) -> str:
    """A histogram in one line of text.

    >>> sparkline([0, 1, 8])
    ' ▁█'
    """
    top = max(counts, default=0)
    return "".join(_BARS[max(1, round(8 * count / top)) if count > 0 else 0] for count in counts) if top else ""


def _alarms_table(lasting: Sequence[Alarm], ended: Sequence[Alarm]) -> Table:
    table = Table(title="Alarms", title_justify="left")
    for column in ("since", "until", "check", "cause"):
        table.add_column(column)
    for alarm in (*lasting, *ended):
        until = "lasts" if alarm.ended_ms is None else write_time(alarm.ended_ms)[:16]
        table.add_row(write_time(alarm.began_ms)[:16], until, f"{alarm.kind} {alarm.subject}", alarm.message)
    return table


def _checks_table(watched: Watched) -> Table:
    table = Table(title="Checks (share of the limit; the limit is what chance passes as often as you allow)")
    for column in ("check", "value", "limit", "of limit", "JS", "KS", "reference", "now"):
        table.add_column(column, justify="left" if column in ("check", "reference", "now") else "right")
    for check in sorted(watched.checks, key=lambda check: (check.informative, -check.ratio)):
        style = (
            "bold red" if check.value > check.limit and not check.informative else "dim" if check.informative else ""
        )
        table.add_row(
            f"{check.kind} {check.subject}",
            f"{check.value:.4g}",
            f"{check.limit:.4g}",
            f"{check.ratio:.0%}",
            *(_figure(check, name) for name in ("jensen_shannon", "kolmogorov_smirnov")),
            *(sparkline(part) for part in watched.histograms(check)),
            style=style,
        )
    return table


def _days_table(watched: Watched) -> Table:
    table = Table(title="Estimated from the scores, before any label (right if the scores are calibrated)")
    for column in ("day", "transactions", "alerts", "frauds", "precision", "recall", "amount alerted", "amount missed"):
        table.add_column(column, justify="right")
    for day, found in sorted(watched.days.items())[-14:]:
        table.add_row(
            write_time(day * DAY_MS)[:10],
            f"{found.transactions:,}",
            f"{found.alerts:,}",
            f"{found.frauds:,.1f}",
            *("–" if share is None else f"{share:.3f}" for share in (found.precision, found.recall)),
            f"{found.amount_alerted:,.0f}",
            f"{found.amount_missed:,.0f}",
        )
    return table


def _figure(check: Check, name: str) -> str:
    return f"{check.values[name]:.3f}" if name in check.values else ""

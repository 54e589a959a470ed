"""The live view in the terminal."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fraudstream.core.outcomes import label_outcomes
from fraudstream.demo.tally import Tally, percentiles

_BARS: Final = "▁▂▃▄▅▆▇█"
_ACTION_STYLE: Final = {"block": "bold red", "review": "yellow"}


def render(tally: Tally, counts: Mapping[str, int], *, now_ms: int, phase: str) -> RenderableType:
    """The whole screen. `counts` are the worker's own counters."""
    return Group(_head(tally, counts, now_ms, phase), _alerts(tally), _learning(tally, counts), _rejects(tally))


def spark(values: list[int]) -> str:
    """A line of bars, the highest value the highest bar."""
    top = max(values, default=0)
    if top == 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[(value * (len(_BARS) - 1)) // top] for value in values)


def _head(tally: Tally, counts: Mapping[str, int], now_ms: int, phase: str) -> Panel:
    rates = tally.rates(now_ms)
    latency = percentiles(tally.decision_ms[-5_000:])
    grid = Table.grid(padding=(0, 3))
    grid.add_row(
        f"[bold]{rates[-1]:,}[/] decisions/s",
        f"record to decision p50 [bold]{_ms(latency['p50'])}[/]  p99 [bold]{_ms(latency['p99'])}[/]",
        f"produced [bold]{tally.produced:,}[/]  decided [bold]{tally.decided:,}[/]  "
        f"duplicates [bold]{counts.get('duplicates', 0):,}[/]  rejected [bold]{sum(tally.rejects.values()):,}[/]",
    )
    verdicts = tally.verdicts
    line = Text.assemble(
        (f"alerts {tally.alerts:,}", "bold"),
        f"   caught {verdicts['true_positives']:,}   false alarms {verdicts['false_positives']:,}"
        f"   missed {verdicts['false_negatives']:,}   {phase}",
    )
    return Panel(Group(grid, Text(spark(rates), style="cyan"), line), title="fraudstream", title_align="left")


def _alerts(tally: Tally) -> Panel:
    table = Table(expand=True, box=None, pad_edge=False)
    for name, justify in (("transaction", "left"), ("card", "left"), ("amount", "right"), ("score", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type] # rich wants its own Literal
    table.add_column("action", no_wrap=True)
    table.add_column("fraud?", no_wrap=True)
    table.add_column("why", ratio=1, no_wrap=True, overflow="ellipsis")
    for alert in reversed(tally.latest_alerts):
        table.add_row(
            alert["transaction_id"],
            alert["card_id"],
            f"{alert['amount']:,.2f}",
            f"{alert['score']:.3f}",
            Text(alert["action"], style=_ACTION_STYLE.get(alert["action"], "")),
            _truth(alert),
            "; ".join(reason["text"] for reason in alert["reasons"]),
        )
    return Panel(table, title="alerts, newest first", title_align="left")


def _learning(tally: Tally, counts: Mapping[str, int]) -> Panel:
    labels = label_outcomes(counts)
    ways = "   ".join(f"{way} {labels[way]:,}" for way in ("joined", "waiting", "duplicate", "changed", "late"))
    loss = "   ".join(f"{name} {_loss(value)}" for name, value in tally.log_loss.items())
    lines = [f"labels {tally.labels:,}   {ways}   examples {tally.examples:,}", f"log-loss   {loss}"]
    events = [Text(message, style="magenta") for _, message in reversed(tally.latest_model_events)]
    return Panel(Group(*lines, *events), title="labels, learning, drift", title_align="left")


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _rejects(tally: Tally) -> Panel:
    told = "   ".join(f"{reason} {n:,}" for reason, n in tally.rejects.most_common(8)) or "none yet"
    return Panel(told, title="dead letters by reason", title_align="left")


def _truth(alert: Mapping[str, Any]) -> Text:
    if alert["fraud"] is None:
        return Text("?", style="dim")
    return Text("yes", style="green") if alert["fraud"] else Text("no", style="red")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"

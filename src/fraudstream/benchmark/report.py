"""Figures as text (Markdown tables, ready for a page) and as one SVG file."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fraudstream.models.plots import HEIGHT, WIDTH, Plot, count_axis, log_axis

STAGES: Final = ("decode", "gather", "features", "model", "commit", "encode", "publish", "batch", "redis")
_STYLE: Final = """
text { font-family: system-ui, sans-serif; fill: #445; font-size: 12px } .title { font-size: 14px; fill: #112 }
.tick { font-size: 11px } .grid { stroke: #dfe3ea; fill: none } .line { fill: none; stroke-width: 2 }
.c1 { stroke: #2563c9 } .c2 { stroke: #d9480f } .c3 { stroke: #2b8a3e } .c4 { stroke: #862e9c }
.bar { stroke: none; fill: #2563c9; opacity: .62 }
"""
_COLOURS: Final = ("c1", "c2", "c3", "c4")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, numbers with commas between thousands.

    Examples
    --------
    >>> print(table(["what", "n"], [["a", 1200]]))
    | what | n |
    |---|---|
    | a | 1,200 |
    """
    lines = [head, ["---"] * len(head), *rows]
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines]
    return "\n".join(
        "|" + "|".join(cells) + "|" if number == 1 else "| " + " | ".join(cells) + " |"
        for number, cells in enumerate(texts)
    )


def told(figures: Mapping[str, Any]) -> str:
    """All figures of a run as Markdown."""
    parts = [_machine(figures), _throughput(figures)]
    if figures.get("latency"):
        parts.append(_latency(figures["latency"]))
    if figures.get("stages"):
        parts.append(_stages(figures["stages"]))
    return "\n\n".join(parts)


def _machine(figures: Mapping[str, Any]) -> str:
    at, options = figures["machine"], figures["options"]
    return (
        f"{at['cpu']}, {at['cores']} cores for everything (load before: {at['load']}), Python {at['python']}, broker "
        f"{at['broker']}, {at['store']}; {options['partitions']} partitions, {options['cards']:,} cards, "
        f"{options['terminals']:,} terminals"
    )


def _throughput(figures: Mapping[str, Any]) -> str:
    found, options = figures["throughput"], figures["options"]
    cpu, slices = found["cpu_us"], found["slices_per_s"]
    worker_mb = max((seen["max"] for name, seen in found["rss_mb"].items() if name.startswith("worker")), default=0.0)
    rows = [
        ["transactions", found["transactions"]],
        ["workers", options["workers"]],
        ["transactions/s, acknowledged", found["per_s"]],
        ["the same by tenths, lowest to highest", f"{min(slices):,} to {max(slices):,}" if slices else "n/a"],
        *([f"CPU µs a transaction, {name}", f"{spent:.1f}"] for name, spent in cpu.items()),
        ["decisions, alerts", f"{found['decisions']:,}, {found['alerts']:,}"],
        ["memory of a worker, highest (MB)", f"{worker_mb:.0f}"],
        ["start to ready (s)", found["ready_s"]],
        ["start to first decision (s)", found.get("first_decision_s", "n/a")],
    ]
    return table(["throughput", ""], rows)


def _latency(runs: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for run in runs:
        for name in ("decision", "alert"):
            seen = run[f"{name}_ms"]
            rate = f"{run['rate']:,.0f}/s{' (half of the maximum)' if run['half_of_maximum'] else ''}"
            figures = [seen[key] for key in ("p50", "p90", "p99", "p99.9", "max")]
            rows.append([rate, name, seen["count"], *figures])
    return table(["sent at", "scheduled to acknowledged", "n", "p50 ms", "p90", "p99", "p99.9", "max"], rows)


def _stages(found: Mapping[str, Any]) -> str:
    rows = [
        [
            f"batch {size}, {kind.replace('_us', '')}",
            *(f"{spent[stage]:.1f}" if stage in spent else "" for stage in STAGES),
        ]
        for size, kinds in found.items()
        for kind, spent in kinds.items()
    ]
    return table(["µs a transaction", *STAGES], rows)


def svg(figures: Mapping[str, Any]) -> str:
    """One picture: latency by rate, memory over the run, rate over the run."""
    plots = []
    if figures.get("latency"):
        plots.append(("Latency that one record in N exceeds (ms)", _latency_plot(figures["latency"])))
    plots.append(("Memory during the throughput run (MB)", _memory_plot(figures["throughput"]["memory"])))
    plots.append(("Transactions/s by tenths of the run", _rate_plot(figures["throughput"]["slices_per_s"])))
    gap, head = 20, 30
    height = HEIGHT + head + 24
    panels = [
        f'<text class="title" x="{gap}" y="{at * height + 20}">{title}</text>'
        + drawn.replace("<svg ", f'<svg x="0" y="{at * height + head}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        + legend_svg(names, at * height + head + HEIGHT + 12)
        for at, (title, (drawn, names)) in enumerate(plots)
    ]
    size = f'viewBox="0 0 {WIDTH + gap} {len(plots) * height + gap}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>{"".join(panels)}</svg>\n'


Drawn = tuple[str, Sequence[tuple[str, str]]]


def legend_svg(names: Sequence[tuple[str, str]], y: float) -> str:
    """A line and a name for each entry (class, name)."""
    return "".join(
        f'<path class="line {css}" d="M{60 + 120 * at} {y - 4}h18"/><text x="{82 + 120 * at}" y="{y}">{name}</text>'
        for at, (css, name) in enumerate(names)
    )


def _latency_plot(runs: Sequence[Mapping[str, Any]]) -> Drawn:
    curves = [(f"{run['rate']:,.0f}/s", run["curve"]) for run in runs if run["curve"]]
    rarest = max((point[0] for _, curve in curves for point in curve), default=10.0)
    latest = max((point[1] for _, curve in curves for point in curve), default=10.0)
    plot = Plot(log_axis(1.0, rarest, "one in N records"), log_axis(0.1, latest, "ms"), "latency")
    names = list(zip(_COLOURS, (name for name, _ in curves), strict=False))
    for (css, _), (_, curve) in zip(names, curves, strict=False):
        plot.line(curve, css)
    return plot.svg(), names


def _memory_plot(memory: Mapping[str, Sequence[tuple[float, int]]]) -> Drawn:
    last_s = max((seen[-1][0] for seen in memory.values() if seen), default=1.0)
    most_mb = max((of / 1e6 for seen in memory.values() for _, of in seen), default=1.0)
    plot = Plot(count_axis(last_s, "seconds"), count_axis(most_mb, "MB"), "memory")
    names = list(zip(_COLOURS, memory, strict=False))
    for css, name in names:
        plot.line([(at_s, of / 1e6) for at_s, of in memory[name]], css)
    return plot.svg(), names


def _rate_plot(slices: Sequence[int]) -> Drawn:
    plot = Plot(
        count_axis(max(len(slices), 1), "tenth of the run"), count_axis(max(slices, default=1), "per s"), "rate"
    )
    left = list(map(float, range(len(slices))))
    plot.bars(left, [at + 0.9 for at in left], list(map(float, slices)), "c1", "")
    return plot.svg(), []

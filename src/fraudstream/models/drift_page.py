"""Drift as one HTML page: alarms, days, and every feature now against its reference. Self-contained."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from fraudstream.codec.times import write_time
from fraudstream.core.alarms import Check
from fraudstream.core.features import DAY_MS
from fraudstream.core.watch import PSI, Watched
from fraudstream.models.plots import Axis, Plot, count_axis
from fraudstream.models.report import table

_FOOTER = (
    "A limit is the figure that chance passes as often as the alarms per month allow. Estimated figures come from the "
    "scores alone and are right if these are calibrated. Days are UTC."
)


def render(watched: Watched) -> str:
    """The page of what the watch found."""
    title = f"Drift: {watched.model} version {watched.version}"
    style = files("fraudstream.models").joinpath("report.css").read_text("utf-8")
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_subtitle(watched))}</p></header>",
        f'<section class="tiles">{_tiles(watched)}</section>',
        _alarms(watched),
        '<section class="plots">',
        *_plots(watched),
        "</section>",
        _checks(watched),
        _days(watched),
        f"<footer>{_FOOTER}</footer>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _subtitle(watched: Watched) -> str:
    return f"Up to {write_time(watched.at_ms)}, {watched.transactions:,} transactions decided."


def _tiles(watched: Watched) -> str:
    most = max(
        (check for check in watched.checks if not check.informative), key=lambda check: check.ratio, default=None
    )
    found = [
        (str(len(watched.alarms.lasting)), "alarms that last"),
        (str(len(watched.alarms.ended)), "alarms that ended"),
        (f"{most.ratio:.0%}" if most else "–", f"of its limit: {most.subject}" if most else "no check yet"),
    ]
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in found)


def _alarms(watched: Watched) -> str:
    every = [*sorted(watched.alarms.lasting.values(), key=lambda a: a.began_ms), *reversed(watched.alarms.ended)]
    rows = [
        (
            write_time(alarm.began_ms)[:16],
            "lasts" if alarm.ended_ms is None else write_time(alarm.ended_ms)[:16],
            f"{alarm.kind} {alarm.subject}",
            f"{alarm.peak:.3g} (limit {alarm.limit:.3g})",
            alarm.message,
        )
        for alarm in every
    ]
    return f'<div class="words">{table("Alarms", ("since", "until", "check", "highest", "cause"), rows)}</div>'


def _plots(watched: Watched) -> list[str]:
    """The day's (or the recent) bins of each feature beside those of the reference, the most drifted first."""
    by_subject: dict[str, Check] = {}
    for check in sorted(watched.checks, key=lambda check: -check.ratio):
        if check.kind.startswith(PSI):
            by_subject.setdefault(check.subject, check)
    plots = []
    for subject, check in by_subject.items():
        reference, now = watched.histograms(check)
        text = f"{check.message}. Index {check.value:.3g}, limit {check.limit:.3g}."
        plots.append(
            f"<figure><h2>{escape(subject)}</h2><p>{escape(text)}</p>{_bars(reference, now, subject)}</figure>"
        )
    return plots


def _bars(reference: Sequence[int], now: Sequence[int], subject: str) -> str:
    shares = [100 * n / max(sum(reference), 1) for n in reference], [100 * n / max(sum(now), 1) for n in now]
    bins = len(reference)
    x = Axis(0.0, float(bins), [(at + 0.5, str(at + 1)) for at in range(bins)], "bin of the reference, ascending")
    plot = Plot(x, count_axis(max(*shares[0], *shares[1], 1.0), "% of transactions"), f"Bins of {subject}")
    for shift, css, name, heights in ((0.1, "c1", "reference", shares[0]), (0.5, "c2", "now", shares[1])):
        plot.bars([at + shift for at in range(bins)], [at + shift + 0.4 for at in range(bins)], heights, css, name)
    return plot.svg()


def _checks(watched: Watched) -> str:
    rows = [
        (
            f"{check.kind} {check.subject}",
            f"{check.value:.4g}",
            f"{check.limit:.4g}",
            f"{check.ratio:.0%}" + (" (told only)" if check.informative else ""),
            *(
                f"{check.values[name]:.3f}" if name in check.values else ""
                for name in ("jensen_shannon", "kolmogorov_smirnov")
            ),
            check.message,
        )
        for check in sorted(watched.checks, key=lambda check: (check.informative, -check.ratio))
    ]
    head = ("check", "value", "limit", "of limit", "JS", "KS", "in words")
    return f'<div class="words">{table("All checks", head, rows)}</div>'


def _days(watched: Watched) -> str:
    rows = [
        (
            write_time(day * DAY_MS)[:10],
            f"{found.transactions:,}",
            f"{found.alerts:,}",
            f"{found.frauds:,.1f}",
            *("–" if share is None else f"{share:.3f}" for share in (found.precision, found.recall)),
            f"{found.amount_alerted:,.0f}",
            f"{found.amount_missed:,.0f}",
        )
        for day, found in sorted(watched.days.items(), reverse=True)
    ]
    head = ("day", "transactions", "alerts", "frauds", "precision", "recall", "amount alerted", "amount missed")
    return table("Estimated, before any label", head, rows)

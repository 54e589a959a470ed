"""The command `fraudstream-simulate`: card traffic with fraud, drift and late labels, to a file or to Kafka."""

import datetime as dt
import re
import time
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import pyarrow as pa
import typer
from msgspec import Struct

from fraudstream_producers import options
from fraudstream_producers.columns import epoch_ms
from fraudstream_producers.contract import LABELS_TOPIC, TRANSACTIONS_TOPIC
from fraudstream_producers.deliver import stopped_by_signals
from fraudstream_producers.drift import SPEC_HELP, parse_drift
from fraudstream_producers.errors import UsageError
from fraudstream_producers.interleave import Faults
from fraudstream_producers.live import Span
from fraudstream_producers.parquet import write_simulation
from fraudstream_producers.progress import progress_on_stderr
from fraudstream_producers.run import produce, report, with_clear_errors
from fraudstream_producers.settings import Settings, checked, load_settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.sink import KafkaSink
from fraudstream_producers.stream import Stream

_S = TypeVar("_S", bound=Struct)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

FILE_DAYS = 30
LIVE_RATE = 100.0
_WORLD = "World (a file and a stream of equal settings are the same world)"
_STREAM = "Stream"
_FILE = "File"

EPILOG = """\b
Examples
  # a file to train on; then the days after it, 200 transactions a second
  fraudstream-simulate --to train.parquet --days 40
  fraudstream-simulate -b localhost:9092 --skip-days 40 --rate 200
\b
  # a minute with bad and repeated records, labels after minutes, not days
  fraudstream-simulate -b localhost:9092 --seconds 60 --rate 500 \\
    --malformed 0.01 --duplicates 0.01 --label-delay-scale 0.001
\b
  # drift: higher amounts from day 30 on, from day 35 on a new kind of fraud
  fraudstream-simulate --to drift.parquet --days 60 \\
    --drift amount:30:1.5 --drift pattern:35
\b
  # traffic that happens now, 24 hours in 24 hours
  fraudstream-simulate -b localhost:9092 --start now --speed-up 1
"""


@app.command(epilog=EPILOG)
def simulate(
    *,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write transactions to this Parquet file.", rich_help_panel=_FILE),
    ] = None,
    labels_to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write their labels to this one.", rich_help_panel=_FILE)
    ] = None,
    bootstrap_servers: options.BootstrapServers = None,
    config: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Settings of the world, see the docs.", rich_help_panel=_WORLD)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Equal seeds give equal worlds.", show_default="7", rich_help_panel=_WORLD)
    ] = None,
    cards: Annotated[
        int | None, typer.Option(help="Number of cards.", show_default="5000", rich_help_panel=_WORLD)
    ] = None,
    terminals: Annotated[
        int | None, typer.Option(help="Number of terminals.", show_default="10000", rich_help_panel=_WORLD)
    ] = None,
    fraud_rate: Annotated[
        float | None,
        typer.Option(help="Frauds among all transactions, 0 to 0.2.", show_default="0.008", rich_help_panel=_WORLD),
    ] = None,
    drift: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help=f"{SPEC_HELP}. May be repeated.", show_default=False, rich_help_panel=_WORLD),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Date (UTC) of day 0, or today, or today-40d; or now: what is sent first happens now.",
            show_default="2025-01-01",
            rich_help_panel=_WORLD,
        ),
    ] = None,
    skip_days: Annotated[int, typer.Option(min=0, help="Begin with this day, not day 0.", rich_help_panel=_WORLD)] = 0,
    days: Annotated[
        int | None,
        typer.Option(min=1, help="End after so many days.", show_default="30; a stream: never", rich_help_panel=_WORLD),
    ] = None,
    label_delay_scale: Annotated[
        float, typer.Option(min=0.0, help="Multiplies the delays of all labels.", rich_help_panel=_WORLD)
    ] = 1.0,
    id_prefix: Annotated[
        str | None,
        typer.Option(help="How transaction ids begin.", show_default="s and the seed", rich_help_panel=_WORLD),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="N|max",
            help="Transactions per second of wall time.",
            show_default="100, unless --speed-up",
            rich_help_panel=_STREAM,
        ),
    ] = None,
    speed_up: Annotated[
        float | None,
        typer.Option(
            help="Event time runs so many times as fast as wall time. With --rate: event times are counted out, not "
            "kept by habit, so windows hold more transactions than in a file.",
            show_default=False,
            rich_help_panel=_STREAM,
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="End after so many seconds.", show_default=False, rich_help_panel=_STREAM)
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="End after so many transactions.", show_default=False, rich_help_panel=_STREAM),
    ] = None,
    malformed: Annotated[
        float, typer.Option(min=0, max=1, help="Bad records, as a share of good ones.", rich_help_panel=_STREAM)
    ] = 0.0,
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Repeated records, as a share.", rich_help_panel=_STREAM)
    ] = 0.0,
    labels: options.WithLabels = True,
    earlier_labels: Annotated[
        bool,
        typer.Option(
            "--earlier-labels",
            help="With --skip-days: also labels of the skipped days that fall due now.",
            rich_help_panel=_STREAM,
        ),
    ] = False,
    drain_labels: options.DrainLabels = False,
    timestamps: options.StampedBy = "event",
    time_format: options.TimesAs = "rfc3339",
    transactions_topic: options.TransactionsTopic = TRANSACTIONS_TOPIC,
    labels_topic: options.LabelsTopic = LABELS_TOPIC,
    broker_wait: options.BrokerWait = 10.0,
    kafka: options.ClientSettings = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Simulate card traffic: cards with habits, terminals in space, fraud campaigns, drift, and labels that come late.

    Write it to a Parquet file (--to) or produce it to Kafka (--bootstrap-servers), record by record.
    """
    settings = _settings(config, start, skip_days, drift, seed=seed, cards=cards, terminals=terminals, rate=fraud_rate)
    if to is not None:
        if any(value is not None for value in (rate, speed_up, seconds, count)) or malformed or duplicates:
            raise UsageError("--rate, --speed-up, --seconds, --count, --malformed, --duplicates are not for --to")
        wanted = range(skip_days, skip_days + (days or FILE_DAYS))
        simulation = Simulation(settings, id_prefix=id_prefix)
        _to_file(simulation, wanted, to, labels_to, scale=label_delay_scale, as_json=as_json, quiet=quiet)
        return
    if bootstrap_servers is None or labels_to is not None:
        raise UsageError("say where to: --to FILE (and --labels-to FILE), or --bootstrap-servers HOST:PORT")
    if rate == "max" and speed_up is not None:
        raise UsageError("--rate max and --speed-up exclude each other")
    stream = Stream(
        rate=_rate(rate, speed_up),
        speed_up=speed_up,
        seconds=seconds,
        span=Span(
            first_day=skip_days,
            days=days,
            count=count,
            labels=labels,
            label_delay_scale=label_delay_scale,
            earlier_labels=earlier_labels,
        ),
        faults=Faults(malformed=malformed, duplicates=duplicates, seed=settings.seed),
        drain_labels=drain_labels,
        timestamps=timestamps,
        time_format=time_format,
    )
    sink = KafkaSink(
        bootstrap_servers,
        transactions_topic=transactions_topic,
        labels_topic=labels_topic,
        client_settings=options.client_settings(kafka),
    )
    sink.check(labels=labels, timeout_s=broker_wait)
    simulation = Simulation(settings, id_prefix=id_prefix)
    timed = stream.timed(simulation, now=start == "now")
    records = timed.batches(simulation)
    total = timed.total(simulation)
    report(produce(records, sink, title="simulate", total=total, seconds=seconds, quiet=quiet), as_json=as_json)


def _rate(rate: str | None, speed_up: float | None) -> float | None:
    if rate is None:
        return LIVE_RATE if speed_up is None else None
    return options.positive_or_max(rate, "--rate")


def _settings(
    config: Path | None,
    start: str | None,
    skip_days: int,
    drift: list[str] | None,
    *,
    seed: int | None,
    cards: int | None,
    terminals: int | None,
    rate: float | None,
) -> Settings:
    """The settings of the file, with what the command line says instead."""
    settings = load_settings(config)
    world = _replaced(settings.world, cards=cards, terminals=terminals)
    frauds = _replaced(settings.frauds, rate=rate)
    changes = (*settings.drift, *map(parse_drift, drift or ()))
    begin = None if start is None else _start_date(start, skip_days)
    return checked(_replaced(settings, seed=seed, start=begin, world=world, frauds=frauds, drift=changes))


def _replaced(settings: _S, **values: Any) -> _S:
    return msgspec.structs.replace(settings, **{name: value for name, value in values.items() if value is not None})


def _start_date(text: str, skip_days: int) -> dt.date:
    """The date of day 0: a date as it is, `today` or `today-40d` by the clock, and `now` such that today is not skipped."""
    today = dt.datetime.now(dt.UTC).date()
    if text == "now":
        return today - dt.timedelta(days=skip_days)
    if match := re.fullmatch(r"today(?:-(\d{1,6})d)?", text):
        return today - dt.timedelta(days=int(match[1] or 0))
    try:
        return dt.date.fromisoformat(text)
    except ValueError as problem:
        raise UsageError(f"--start {text}: write a date such as 2025-01-01, today, today-40d or now") from problem


class FileSummary(Struct, frozen=True):
    """What was written."""

    transactions: int
    frauds: int
    labels: int
    seconds: float


def _to_file(
    simulation: Simulation,
    days: range,
    to: Path,
    labels_to: Path | None,
    *,
    scale: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the files and say what is in them. Ctrl-C leaves no file."""
    started_s = time.monotonic()
    total = round(simulation.transactions_per_day * len(days))
    with stopped_by_signals() as stop, progress_on_stderr("simulate", total, quiet=quiet) as progress:

        def on_day(rows: int, table: pa.Table) -> None:
            if stop.is_set():
                raise UsageError("interrupted; no file was written")
            progress.update(rows, rows, 0, int(epoch_ms(table["event_time"])[-1]) if len(table) else None)

        rows, frauds, labels = write_simulation(simulation, days, to, labels_to, label_delay_scale=scale, on_day=on_day)
    done = FileSummary(rows, frauds, labels, round(time.monotonic() - started_s, 3))
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
        return
    share = f"{frauds:,} frauds, {frauds / rows:.2%}" if rows else "no frauds"
    also = f", {labels:,} labels in {labels_to}" if labels_to else ""
    typer.echo(f"{rows:,} transactions ({share}) in {to}{also}; {done.seconds:.1f} s")


def main() -> None:
    """The entry point `fraudstream-simulate`."""
    with_clear_errors(app)


if __name__ == "__main__":
    main()

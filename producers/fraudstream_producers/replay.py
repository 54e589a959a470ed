"""The command `fraudstream-replay`: the transactions of a file to Kafka, at N times real time or as fast as possible."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from fraudstream_producers import options
from fraudstream_producers.batches import Pace, batches
from fraudstream_producers.contract import LABELS_TOPIC, TRANSACTIONS_TOPIC, Encoder
from fraudstream_producers.errors import UsageError
from fraudstream_producers.interleave import Chunk, Faults, interleave
from fraudstream_producers.run import produce, report, with_clear_errors
from fraudstream_producers.sink import KafkaSink
from fraudstream_producers.source import FileSource

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

_PART = "Which transactions"
_PACE = "Pace and labels"

EPILOG = """\b
Examples
  # July as fast as possible, each label 7 days of event time late
  fraudstream-replay transactions.parquet -b localhost:9092 \\
    --from 2018-07-01 --until 2018-08-01
\b
  # one hour of event time per second, no labels
  fraudstream-replay transactions.csv -b localhost:9092 \\
    --speed 3600 --no-labels
\b
  # what is known of the past first, then the transactions
  fraudstream-replay transactions.parquet -b localhost:9092 --labels-first
"""


@app.command(epilog=EPILOG)
def replay(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with a header, or Parquet, in event-time order: transaction_id, event_time, card_id, terminal_id, "
            "amount and, for labels, is_fraud.",
            show_default=False,
        ),
    ],
    bootstrap_servers: options.BootstrapServers = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help="First date or time (UTC).", rich_help_panel=_PART),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="End before this date or time (UTC).", rich_help_panel=_PART),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most so many transactions.", rich_help_panel=_PART)
    ] = None,
    extra_column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also send this column, as a further field. May be repeated.",
            show_default=False,
            rich_help_panel=_PART,
        ),
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="N|max", help="So many times real time, or max.", rich_help_panel=_PACE)
    ] = "max",
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Produce labels as well.",
            show_default="labels if the file has is_fraud",
            rich_help_panel=_PACE,
        ),
    ] = None,
    label_delay: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="Event time from a transaction to its label: 7d, 12h.", rich_help_panel=_PACE
        ),
    ] = "7d",
    labels_first: Annotated[
        bool, typer.Option("--labels-first", help="All labels before the first transaction.", rich_help_panel=_PACE)
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
    """Replay a file of transactions to Kafka, in event-time order, with the labels that fall due in between.

    The truth (is_fraud) goes to the labels topic alone. Labels that are not due when the file ends are not sent,
    unless --drain-labels.
    """
    if bootstrap_servers is None:
        raise UsageError("say where to: --bootstrap-servers HOST:PORT")
    source = FileSource(
        path=file,
        from_ms=None if begin is None else options.moment_ms(begin),
        until_ms=None if until is None else options.moment_ms(until),
        limit=limit,
        extra_columns=tuple(extra_column or ()),
        label_delay_ms=options.duration_ms(label_delay),
    )
    pace = Pace(speed=options.positive_or_max(speed, "--speed"))
    with_labels = _wants_labels(source, True if labels_first and labels is None else labels)
    total = source.total()
    sink = KafkaSink(
        bootstrap_servers,
        transactions_topic=transactions_topic,
        labels_topic=labels_topic,
        client_settings=options.client_settings(kafka),
    )
    sink.check(labels=with_labels, timeout_s=broker_wait)
    plans = interleave(_chunks(source, labels=with_labels, first=labels_first), Faults(), drain=drain_labels)
    records = batches(plans, Encoder(time_format, source.extra_columns), pace, timestamps)
    report(produce(records, sink, title="replay", total=total, quiet=quiet), as_json=as_json)


def _wants_labels(source: FileSource, wanted: bool | None) -> bool:
    """Whether labels are sent: as asked for, else if the file has any.

    Raises
    ------
    UsageError
        They are asked for and the file has none.
    """
    has_truth = source.has_truth()
    if wanted and not has_truth:
        raise UsageError(f"{source.path} has no column is_fraud, so there are no labels to send")
    return has_truth if wanted is None else wanted


def _chunks(source: FileSource, *, labels: bool, first: bool) -> Iterator[Chunk]:
    if labels and first:
        return chain(source.label_chunks(), source.transaction_chunks())
    return source.chunks() if labels else source.transaction_chunks()


def main() -> None:
    """The entry point `fraudstream-replay`."""
    with_clear_errors(app)


if __name__ == "__main__":
    main()

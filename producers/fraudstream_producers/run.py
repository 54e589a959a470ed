"""What both commands do once they know what to send: send it, show it, sum it up, end with a code."""

import sys
import threading
from collections.abc import Callable, Iterable

import msgspec
import typer

from fraudstream_producers.batches import Batch
from fraudstream_producers.deliver import Delivery, Summary, stopped_by_signals
from fraudstream_producers.errors import UsageError
from fraudstream_producers.progress import progress_on_stderr
from fraudstream_producers.sink import KafkaSink

EXIT_DELIVERY = 1
EXIT_USAGE = 2


def produce(
    batches: Iterable[Batch],
    sink: KafkaSink,
    *,
    title: str,
    total: int | None = None,
    seconds: float | None = None,
    quiet: bool = False,
    stop: threading.Event | None = None,
) -> Summary:
    """Send everything to Kafka, with progress on standard error; Ctrl-C or SIGTERM ends it early and in order.

    Give a `stop` of your own to call this outside the main thread, where signals cannot be caught.
    """
    with progress_on_stderr(title, total, quiet=quiet) as progress:
        if stop is not None:
            return Delivery(sink, progress, stop, seconds=seconds).run(batches)
        with stopped_by_signals() as signalled:
            return Delivery(sink, progress, signalled, seconds=seconds).run(batches)


def report(summary: Summary, *, as_json: bool) -> None:
    """Print the summary and leave with exit code 1 where a delivery failed."""
    typer.echo(msgspec.json.encode(summary).decode() if as_json else summary.line())
    if summary.failed:
        typer.echo(f"error: {summary.failed:,} records were not delivered: {summary.first_error}", err=True)
        raise typer.Exit(EXIT_DELIVERY)


def with_clear_errors(command: Callable[[], None]) -> None:
    """Run a command; what was asked wrongly becomes one line and exit code 2."""
    try:
        command()
    except UsageError as problem:
        typer.echo(f"error: {' '.join(str(problem).split())}", err=True)
        sys.exit(EXIT_USAGE)

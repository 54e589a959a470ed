"""The command `fraudstream`: every command, and one way to fail: a line on stderr and an exit code.

Exit codes: 0 done, 1 ended by a fault while running, 2 could not start (a setting, the broker, Redis or the model).
"""

import logging
import sys
from typing import Annotated

import typer

from fraudstream.cli import benchmark, demo, drift, inspect, learner, models, quality, topics, worker
from fraudstream.errors import FraudstreamError

app = typer.Typer(
    name="fraudstream",
    help="Streaming fraud detection: transactions in, decisions and alerts out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (demo, worker, topics, models, inspect, learner, drift, quality, benchmark):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - only for this option

        typer.echo(f"fraudstream {version('fraudstream')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; exit with its code."""
    logging.captureWarnings(True)
    try:
        app()
    except FraudstreamError as error:
        print(f"fraudstream: {error}", file=sys.stderr)
        sys.exit(2)

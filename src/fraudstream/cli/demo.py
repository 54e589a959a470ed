"""`fraudstream demo`: everything on one machine."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(  # noqa: PLR0917 - one parameter per option
    seconds: Annotated[float, typer.Option(help="How long the stream lasts.", min=1)] = 60.0,
    rate: Annotated[
        float, typer.Option(help="Transactions per second, on average over a simulated day.", min=1)
    ] = 200.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary to this file as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed is another world.", min=0)] = 7,
    broker: Annotated[str, typer.Option(help="auto, tansu, or apache (needs java 17 and mvn).")] = "auto",
    directory: Annotated[Path | None, typer.Option(help="Keep logs, model and files here.")] = None,
) -> None:
    """Run the whole system here: broker, Redis, a model trained on simulated history, simulated cards, a worker.

    Shows rate, latency, alerts with their reasons and rejected records while they happen, and ends with a summary.
    Nothing but this machine is used; no Docker. Exit code 0 if every record was accounted for.

    Examples
    --------
      fraudstream demo

      fraudstream demo --seconds 20 --rate 1000 --json summary.json
    """
    began_s = _process_began_s()
    from fraudstream.demo.run import Options, run  # noqa: PLC0415 - after the start was noted

    options = Options(seconds, rate, seed, broker, json_file, directory)
    sys.exit(run(options, began_s))


def _process_began_s() -> float:
    """When this process was started (Unix time); importing has taken a while already."""
    try:
        ticks = float(Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()[19])
        up_s = float(Path("/proc/uptime").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - up_s + ticks / 100.0

"""`fraudstream worker`: the stream processor."""

import json
import os
import sys
from typing import Annotated, Any

import typer

from fraudstream import logs, settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings in force, secrets masked, and end.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check model, Redis and broker as at a start, and end.")
    ] = False,
) -> None:
    """Score transactions, publish alerts and decisions, join labels.

    Runs until SIGTERM or SIGINT, finishing the batch at hand. Settings come from FRAUDSTREAM_* variables and from the
    TOML file that FRAUDSTREAM_CONFIG names. Start as many as there are partitions to share.

    Examples
    --------
      fraudstream worker --print-config

      FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 FRAUDSTREAM_ROLES='["score"]' fraudstream worker
    """
    # Before numpy and onnxruntime are imported: one thread each, or their threads fight over the cores (tail latency).
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config = settings.load()
    if print_config:
        typer.echo(json.dumps(settings.shown(config), indent=2))
        return
    logs.set_up(config.log_level, config.log_format)
    from fraudstream import run  # noqa: PLC0415 - after OMP_NUM_THREADS is set

    if check:
        run.check(config)
        typer.echo("ready to start")
        return
    code: Any = run.worker(config)
    sys.exit(code)

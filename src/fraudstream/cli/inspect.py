"""`fraudstream doctor`, `decision`, `labels` and `warm-up`: look into a running system, and prepare it."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fraudstream import codec, settings
from fraudstream.cli.progress import progress
from fraudstream.errors import FraudstreamError, SettingsError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)
    app.command()(decision)
    app.command()(labels)
    app.command(name="warm-up")(warm_up)


def doctor(
    worker: Annotated[
        bool,
        typer.Option("--worker", help="Ask only the worker of this machine, by its status file; for health checks."),
    ] = False,
) -> None:
    """Check everything a worker needs: settings, model, Redis, broker, topics. Exit code 2 if something is wrong.

    With --worker: exit code 0 only if the worker that writes FRAUDSTREAM_HEALTH_FILE is ready.
    """
    config = settings.load()
    if worker:
        from fraudstream.services.health import read_status  # noqa: PLC0415 - a health check should start fast

        if config.health_file is None:
            raise SettingsError("set FRAUDSTREAM_HEALTH_FILE, for the worker and for the doctor")
        ready, why = read_status(config.health_file)
        typer.echo(why)
        sys.exit(0 if ready else 1)
    from fraudstream.services import startup  # noqa: PLC0415 - imports the model runtime

    typer.echo("settings  ok")
    wrong = 0
    features = None
    for name in ("model", "redis", "broker"):
        try:
            if name == "model":
                features, model = startup.open_model(config)
                told = f"{model.name} {model.version}, {len(features.names)} features"
            elif name == "redis":
                from fraudstream.core.features import FeatureSet  # noqa: PLC0415 - as above

                startup.open_store(config, features or FeatureSet.default()).close()
                told = "answers, does not evict"
            else:
                startup.check_broker(config)
                told = f"{config.kafka.bootstrap_servers} answers, topics exist"
            typer.echo(f"{name:9} ok: {told}")
        except FraudstreamError as error:
            wrong += 1
            typer.echo(f"{name:9} WRONG: {error}")
    if wrong:
        sys.exit(2)


def decision(
    transaction_id: Annotated[str, typer.Argument(help="The transaction's id.")],
) -> None:
    """Print the stored decision of a transaction as JSON; exit code 1 if there is none within the retention.

    Example:

      fraudstream decision tx-1017
    """
    from fraudstream.core.features import FeatureSet  # noqa: PLC0415 - keeps --help fast
    from fraudstream.services import startup  # noqa: PLC0415 - as above

    config = settings.load()
    found = startup.open_store(config, FeatureSet.default()).decision(transaction_id)
    if found is None:
        typer.echo(f"fraudstream: no stored decision for {transaction_id}", err=True)
        sys.exit(1)
    typer.echo(msgspec.json.format(codec.encode_decision(found), indent=2).decode())


def labels(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell how the labels ended: joined, early, late, duplicate, changed, orphan, refused.

    The counts are exact: each label record counts once, however often it is delivered.

    Example:

      fraudstream labels --json
    """
    from fraudstream.core.features import FeatureSet  # noqa: PLC0415 - keeps --help fast
    from fraudstream.core.outcomes import AFTERWARDS, WAYS, label_outcomes  # noqa: PLC0415 - as above
    from fraudstream.services import startup  # noqa: PLC0415 - as above

    store = startup.open_store(settings.load(), FeatureSet.default())
    outcomes = label_outcomes(store.counts())
    store.close()
    if as_json:
        typer.echo(msgspec.json.encode(outcomes).decode())
        return
    typer.echo(f"{outcomes['told']:>12,} labels")
    for way, meaning in (WAYS | AFTERWARDS).items():
        typer.echo(f"{outcomes[way]:>12,} {way:10} {meaning}")


def warm_up(
    transactions: Annotated[Path, typer.Option(help="Labelled history: Parquet or CSV.")],
    until: Annotated[str, typer.Option(help="Load what happened before this date (UTC), such as 2018-07-01.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Load the history of cards and terminals into Redis, so that the first transactions meet full windows.

    Run it before the first worker starts: it writes whole rows. The rows are those the model named by the settings
    computes from the file, by the same code that the worker runs.

    Example:

      fraudstream warm-up --transactions history.parquet --until 2018-07-01
    """
    from fraudstream.models.history import warm_states  # noqa: PLC0415 - imports pyarrow
    from fraudstream.services import startup  # noqa: PLC0415 - as above

    config = settings.load()
    features, _ = startup.open_model(config)
    store = startup.open_store(config, features)
    with progress(quiet) as tell:
        states = warm_states(features, transactions, until, on_rows=lambda done, of: tell("replay", done, of))
        for entity, rows in states.items():
            tell(f"load {entity}", 0, 0)
            store.load_rows(entity, rows)
    store.close()
    for entity, rows in states.items():
        typer.echo(f"{entity}: {len(rows)} rows loaded")

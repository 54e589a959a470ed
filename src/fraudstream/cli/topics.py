"""`fraudstream topics`: create and check the topics."""

from typing import Annotated

import typer

from fraudstream import settings
from fraudstream.adapters import kafka_admin
from fraudstream.errors import SettingsError
from fraudstream.topics import SINGLE_PARTITION


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Create and check the topics.", no_args_is_help=True)
    group.command()(create)
    group.command()(check)
    app.add_typer(group, name="topics")


def create(
    partitions: Annotated[
        int, typer.Option(help="Partitions of each topic; the most workers that can share it.", min=1)
    ] = 8,
    replication: Annotated[int, typer.Option(help="Copies of each record; 3 in production.", min=1)] = 1,
    retention: Annotated[
        str, typer.Option(help="Milliseconds records are kept, -1 for ever; empty: the broker's default.")
    ] = "",
) -> None:
    """Create those topics that do not exist. Never changes one that does.

    The number of partitions is for ever: a card's records lie in one partition by its key, and with another number they
    would move. Choose the most workers you may ever need.

    Example:

      fraudstream topics create --partitions 16 --replication 3
    """
    config = settings.load()
    extra = {"retention.ms": retention} if retention else {}
    wanted = {
        name: (1 if field in SINGLE_PARTITION else partitions, extra)
        for field, name in config.topics.model_dump().items()
    }
    created = kafka_admin.create(config.kafka.client(), wanted, replication=replication)
    for name in wanted:
        typer.echo(f"{name}: {'created' if name in created else 'exists'}")


def check() -> None:
    """Tell which topics exist and how many partitions they have; exit code 2 if one is missing."""
    config = settings.load()
    present = kafka_admin.partitions(config.kafka.client())
    names = list(config.topics.model_dump().values())
    for name in names:
        typer.echo(f"{name}: {f'{present[name]} partitions' if name in present else 'missing'}")
    missing = [name for name in names if name not in present]
    if missing:
        raise SettingsError(f"topics missing: {', '.join(missing)}; create them with: fraudstream topics create")

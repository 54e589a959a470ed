"""`fraudstream learner`: look at the online model, and begin it anew."""

import json
from typing import Annotated

import msgspec
import typer

from fraudstream import settings
from fraudstream.errors import SettingsError

Json = Annotated[bool, typer.Option("--json", help="As JSON, with every weight.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The online model: look at it, begin it anew.", no_args_is_help=True)
    group.command()(show)
    group.command()(reset)
    app.add_typer(group, name="learner")


def show(as_json: Json = False) -> None:
    """Tell what has been learned: examples, log-loss of champion, online model and blend, share, guard.

    Exit code 1 if nothing has been learned yet.

    Example:

      fraudstream learner show --json
    """
    from fraudstream.services.online_parts import open_learner_store  # noqa: PLC0415 - keeps --help fast

    store = open_learner_store(settings.load())
    try:
        found = store.read("", ["state", "model", "serving"])
    finally:
        store.close()
    parts = {} if found is None else found[1]
    if found is None or "state" not in parts:
        typer.echo("nothing has been learned yet")
        raise typer.Exit(1)
    state = msgspec.json.decode(parts["state"])
    serving = msgspec.json.decode(parts["serving"]) if parts.get("serving") else None
    if as_json:
        plain = state["classifier"] is None
        model = msgspec.json.decode(parts["model"]) if plain else f"{len(parts['model'])} bytes"
        typer.echo(json.dumps({"version": found[0], **state, "model": model, "serving": serving}, indent=2))
        return
    epoch, _, offset = found[0].partition(":")
    typer.echo(f"corrects  {state['model_name']} {state['model_version']}, epoch {epoch}, up to offset {offset}")
    typer.echo("examples  " + ", ".join(f"{name} {n:,}" for name, n in sorted(state["counts"].items())))
    tested = state["counts"].get("tested", 0)
    for name, loss in state["losses"].items():
        typer.echo(f"log-loss  {name:8} {loss / tested if tested else float('nan'):.6f}")
    typer.echo(f"serves    {'nothing yet' if serving is None else format(serving['share'], '.3f') + ' of a blend'}")
    typer.echo(f"guard     {state['guard']['frozen'] or 'ok'}, {state['guard']['fraud_share']:.3%} frauds of late")


def reset(
    rebuild: Annotated[
        bool, typer.Option(help="Learn the whole topic again instead of going on from where it was.")
    ] = False,
) -> None:
    """Drop what was learned, and the figures of quality, which are counted from the same examples.

    The learner, if one runs, notices within a batch and begins anew; scorers within a second. With --rebuild the examples
    that the topic still holds are learned and counted again; without, figures of quality begin with the next example.

    Example:

      fraudstream learner reset --rebuild
    """
    from fraudstream.services.online_parts import open_learner_store  # noqa: PLC0415 - keeps --help fast

    store = open_learner_store(settings.load())
    try:
        lease = store.take()
        begun = store.begin_anew(lease, from_offset=0 if rebuild else lease.watermark + 1)
    finally:
        store.close()
    if begun is None:
        raise SettingsError("a learner began at the same moment: run it again")
    typer.echo(
        f"the online model begins anew at offset {begun.watermark + 1} of the examples, and so do the figures of quality"
    )

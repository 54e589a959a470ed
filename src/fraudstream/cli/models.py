"""`fraudstream train`, `fraudstream evaluate` and `fraudstream models`: versions made, judged and looked at."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fraudstream.cli.progress import progress
from fraudstream.errors import SettingsError

Transactions = Annotated[Path, typer.Option("--transactions", help="Labelled history: Parquet or CSV.")]
From = Annotated[str, typer.Option("--from", help="First day (UTC), such as 2018-05-08, or an RFC 3339 time.")]
Until = Annotated[str, typer.Option("--until", help="End, not included: a day (UTC) or an RFC 3339 time.")]
Directory = Annotated[
    Path, typer.Option("--registry", envvar="FRAUDSTREAM_MODEL__REGISTRY", help="Directory of the model versions.")
]
Name = Annotated[str, typer.Option("--name", help="Name of the model.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Version = Annotated[str, typer.Option("--version", help="A number, champion or latest.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(evaluate)
    group = typer.Typer(help="Look at the model versions of a registry.", no_args_is_help=True)
    group.command(name="list")(list_versions)
    group.command()(show)
    app.add_typer(group, name="models")


def train(  # noqa: PLR0917 - one parameter per option
    transactions: Transactions,
    from_: From,
    until: Until,
    registry: Directory,
    label_delay: Annotated[str, typer.Option(help="How long after a transaction its label is known.")] = "7d",
    name: Name = "fraud",
    features: Annotated[Path | None, typer.Option(help="Feature list (TOML); the built-in one if left out.")] = None,
    estimator: Annotated[
        str | None, typer.Option(help="Import path of a scikit-learn classifier, or of a function that makes one.")
    ] = None,
    params: Annotated[str | None, typer.Option(help="Parameters of the estimator, as a JSON object.")] = None,
    legit_share: Annotated[
        float, typer.Option(help="Share of the legitimate transactions to fit; scores are corrected for it.")
    ] = 0.1,
    alerts_per_day: Annotated[float, typer.Option(help="Alerts a day that the review threshold is set for.")] = 100.0,
    block_precision: Annotated[
        float, typer.Option(help="Share of right blocks the block threshold is set for.")
    ] = 0.95,
    validation: Annotated[
        str | None, typer.Option(help="Held out of the newest labelled history; 7d, or half of what there is.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same file, options and seed: same model.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Train a model version on labelled history and register it; the first version of a name becomes champion.

    Features come from the code that serves live. A label counts as known only after --label-delay: transactions younger
    than that at --until are not fitted, and the thresholds are proven on a held-out stretch with the same gap.

    Examples
    --------
      fraudstream train --transactions history.parquet --from 2018-05-08 --until 2018-07-01 --registry registry

      fraudstream train --transactions history.parquet --from 2018-05-08 --until 2018-07-01 --registry registry
        --estimator sklearn.ensemble.ExtraTreesClassifier --params '{"n_estimators": 200, "max_depth": 14}'
    """
    from fraudstream.core.features import FeatureSet  # noqa: PLC0415 - --help must not load model libraries
    from fraudstream.core.spec import duration_ms  # noqa: PLC0415 - as above
    from fraudstream.models import train as training  # noqa: PLC0415 - as above
    from fraudstream.models.estimators import DEFAULT_ESTIMATOR  # noqa: PLC0415 - as above
    from fraudstream.models.history import moment_ms  # noqa: PLC0415 - as above
    from fraudstream.models.registry import Registry  # noqa: PLC0415 - as above

    settings = training.TrainSettings(
        transactions=transactions,
        registry=registry,
        from_ms=moment_ms(from_),
        until_ms=moment_ms(until),
        label_delay_ms=duration_ms(label_delay),
        features=FeatureSet.load(features),
        name=name,
        estimator=estimator or DEFAULT_ESTIMATOR,
        params=None if params is None else _params(params),
        legit_share=legit_share,
        alerts_per_day=alerts_per_day,
        block_precision=block_precision,
        validation=duration_ms(validation) if validation else None,
        seed=seed,
    )
    with progress(quiet) as tell:
        manifest = training.train(settings, tell)
    champion = Registry(registry).champion(name)
    state = "champion" if champion == manifest.version else f"champion is still version {champion}"
    typer.echo(f"{name} version {manifest.version} ({state}): {registry / name / str(manifest.version)}")
    typer.echo(f"fitted       {manifest.training.transactions:,} transactions, {manifest.training.frauds:,} frauds")
    block = manifest.thresholds.block
    blocking = "off" if block is None else f"{block:.4g}"
    typer.echo(f"thresholds   review {manifest.thresholds.review:.4g}, block {blocking}")
    typer.echo(f"held out     {manifest.validation.from_time[:10]} to {manifest.validation.until_time[:10]}")
    _print_figures(manifest.validation.metrics)
    for note in manifest.training.notes:
        typer.echo(f"note: {note}", err=True)


def evaluate(  # noqa: PLR0917 - one parameter per option
    transactions: Transactions,
    from_: From,
    until: Until,
    registry: Directory,
    name: Name = "fraud",
    version: Version = "champion",
    cold: Annotated[
        bool, typer.Option("--cold", help="Begin without history; else all of the file is history.")
    ] = False,
    remove_known_cards: Annotated[
        bool, typer.Option("--remove-known-cards", help="Leave out cards known as compromised (handbook's protocol).")
    ] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Also what the online model would have said, its labels as late as live.")
    ] = False,
    online_from: Annotated[
        str | None, typer.Option(help="Compare online model and champion from here on; before, it only learns.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a report with plots to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Backtest a version on a file and range, through the code that serves live.

    The scores are those that the worker would have given, transaction for transaction.

    Examples
    --------
      fraudstream evaluate --transactions history.parquet --from 2018-07-01 --until 2018-08-08 --registry registry

      fraudstream evaluate --transactions history.parquet --from 2018-07-01 --until 2018-08-08 --registry registry
        --version 3 --json figures.json --html report.html

      fraudstream evaluate --transactions history.parquet --from 2018-07-01 --until 2018-08-08 --registry registry
        --online --online-from 2018-07-11
    """
    import msgspec  # noqa: PLC0415 - --help must not load model libraries

    from fraudstream.models import evaluate as backtest  # noqa: PLC0415 - as above
    from fraudstream.models.history import moment_ms  # noqa: PLC0415 - as above
    from fraudstream.models.registry import Registry  # noqa: PLC0415 - as above
    from fraudstream.models.report import render  # noqa: PLC0415 - as above

    settings = backtest.EvaluateSettings(
        transactions,
        moment_ms(from_),
        moment_ms(until),
        cold=cold,
        remove_known_cards=remove_known_cards,
        online=_learner_settings() if online or online_from else None,
        online_from_ms=moment_ms(online_from) if online_from else None,
    )
    artefact = Registry(registry).load(name, version)
    with progress(quiet) as tell:
        done = backtest.evaluate(artefact, settings, lambda rows, of: tell("score", rows, of))
    report = done.report
    if json_file:
        _write(json_file, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if html_file:
        _write(html_file, render(done).encode())
    typer.echo(f"{report.model} version {report.version} on {report.source}, {report.from_time} to {report.until_time}")
    typer.echo(f"{report.transactions:,} transactions, {report.frauds:,} frauds, {report.cards:,} cards")
    _print_figures(report.metrics)
    if report.online is not None:
        _print_online(report.online)
    typer.echo("date         transactions   frauds   alerts    right   precision   recall")
    for day in report.days:
        precision, recall = (_figure(value) for value in (day.precision, day.recall))
        counts = f"{day.transactions:>12,} {day.frauds:>8,} {day.alerts:>8,} {day.hits:>8,}"
        typer.echo(f"{day.date}   {counts} {precision:>11} {recall:>8}")
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)


def list_versions(
    registry: Directory, name: Annotated[str | None, typer.Option(help="Only this model.")] = None
) -> None:
    """List the versions of a registry, the champion marked with a star."""
    from fraudstream.models.registry import Registry  # noqa: PLC0415 - keeps --help fast

    found = Registry(registry)
    for model in [name] if name else found.names():
        if name:
            found.latest(name)  # says what is there if this is not
        aliases = found.aliases(model)
        for version in found.versions(model):
            manifest = found.manifest(model, version)
            star = "*" if aliases and aliases.champion == version else " "
            ap = _figure(manifest.validation.metrics.get("ap"))
            kind = manifest.training.estimator.rpartition(".")[2]
            typer.echo(f"{star} {model} {version:>4}  {manifest.created_at[:19]}Z  AP {ap}  {kind}")


def show(registry: Directory, name: Name = "fraud", version: Version = "champion", as_json: Json = False) -> None:
    """Verify a version and print its model card, or with --json its manifest.

    Example:

      fraudstream models show --registry registry --version latest
    """
    from fraudstream.models.artefact import CARD, encode_manifest  # noqa: PLC0415 - keeps --help fast
    from fraudstream.models.registry import Registry  # noqa: PLC0415 - as above

    artefact = Registry(registry).load(name, version)
    typer.echo(encode_manifest(artefact.manifest) if as_json else artefact.files[CARD], nl=False)


def _params(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"--params is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError('--params is not a JSON object: write {"n_estimators": 200}')
    return found


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror or error}") from error


def _learner_settings() -> Any:
    """How the live learner would learn: by the settings in force."""
    from fraudstream import settings  # noqa: PLC0415 - only for --online
    from fraudstream.services.online_parts import learner_settings  # noqa: PLC0415 - as above

    return learner_settings(settings.load().learn)


def _print_online(report: Any) -> None:
    """Champion, online model and blend, a line each."""
    typer.echo(
        f"online model: {report.learned:,} examples learned, {report.share:.1%} of the blend at the end; compared from "
        f"{report.from_time} on, {report.transactions:,} transactions, {report.frauds:,} frauds"
    )
    typer.echo("             log loss   avg precision   AUC ROC   calibration error")
    for name in ("champion", "online", "blend"):
        found = getattr(report, name)
        error = found.expected_calibration_error
        loss = "n/a" if found.log_loss is None else f"{found.log_loss:.6f}"
        typer.echo(f"  {name:9} {loss:>10} {_figure(found.ap):>15} {_figure(found.auc):>9} {_figure(error):>19}")


def _print_figures(figures: Mapping[str, float | None]) -> None:
    from fraudstream.models.quality import label_of  # noqa: PLC0415 - --help must not load numpy

    for name, value in figures.items():
        typer.echo(f"  {label_of(name):30} {_figure(value)}")


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"

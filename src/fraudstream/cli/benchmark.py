"""`fraudstream benchmark`: the whole path measured on this machine."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fraudstream.errors import SettingsError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(benchmark)


def benchmark(  # noqa: PLR0917 - one parameter per option
    transactions: Annotated[int, typer.Option(help="Records of the throughput run.", min=1_000)] = 200_000,
    rate: Annotated[
        list[str] | None,
        typer.Option(help="Measure latency at so many transactions/s, or at half of the throughput. May be repeated."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each rate lasts.", min=1)] = 20.0,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 1,
    partitions: Annotated[int, typer.Option(help="Partitions of each topic.", min=1)] = 8,
    stages: Annotated[bool, typer.Option("--stages", help="Measure each stage alone, too.")] = False,
    cards: Annotated[int, typer.Option(help="Cards of the simulated world.", min=100)] = 100_000,
    terminals: Annotated[int, typer.Option(help="Terminals of the simulated world.", min=100)] = 10_000,
    seed: Annotated[int, typer.Option(help="Another seed is another world.", min=0)] = 7,
    event_rate: Annotated[
        int,
        typer.Option(help="Transactions in a second of event time, for several workers; 0: the natural pace.", min=0),
    ] = 0,
    broker: Annotated[str, typer.Option(help="apache, tansu, or auto: apache where java and mvn are.")] = "auto",
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Use this Kafka, with topics of an own prefix that are deleted at the end.")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Use this Redis, with an own key prefix that is deleted at the end.")
    ] = None,
    append_only: Annotated[
        bool, typer.Option("--append-only", help="Let the Redis started here keep its log, synced every second.")
    ] = False,
    registry: Annotated[
        Path | None, typer.Option(help="Use the champion `fraud` of this registry; else one is trained.")
    ] = None,
    plan: Annotated[
        list[int] | None,
        typer.Option(help="Compute a cluster for so many transactions/s from the figures. May be repeated.", min=1),
    ] = None,
    plan_cards: Annotated[int, typer.Option(help="Cards of that cluster.", min=1)] = 10_000_000,
    plan_terminals: Annotated[int, typer.Option(help="Terminals of that cluster.", min=1)] = 500_000,
    figures_file: Annotated[
        Path | None,
        typer.Option("--figures", help="Tell (and plan) from the figures of an earlier --json; measure nothing."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw latency, memory and rate into this SVG file.")] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Keep logs, files and the model here; the next run uses files and model again.")
    ] = None,
) -> None:
    """Measure the whole path here: records in Kafka to acknowledged decisions and alerts, with the state committed.

    Throughput and processor time a transaction of worker, Redis and broker; latency at fixed rates (records are sent at
    scheduled times whatever happens, and latency counts from the schedule); memory; start-up. Prints Markdown tables.
    A tool for figures wants a machine that does nothing else.

    Examples
    --------
      fraudstream benchmark --transactions 200000 --json out.json

      fraudstream benchmark --rate 2000 --rate half --stages --plot out.svg

      fraudstream benchmark --figures out.json --plan 100000 --plan 1000000

      fraudstream benchmark --workers 4 --bootstrap-servers kafka:9092 --redis-url redis://redis:6379/0
    """
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began_s:5.1f} s] {line}", file=sys.stderr, flush=True)

    try:
        from fraudstream.benchmark import plan as plans  # noqa: PLC0415 - --help must be light
        from fraudstream.benchmark import report, run, system, world  # noqa: PLC0415 - as above
    except ImportError as error:
        raise SettingsError(f"{error}: pip install 'fraudstream[benchmark,embedded]'") from error
    if broker not in ("auto", "apache", "tansu"):
        raise SettingsError(f"--broker {broker}: auto, apache or tansu")
    wanted: Any = broker
    options = run.Options(
        transactions=transactions,
        rates=tuple(rate or ()),
        seconds=seconds,
        workers=workers,
        partitions=partitions,
        stages=stages,
        size=world.Size(cards, terminals, seed, event_rate),
        parts=system.Parts(wanted, bootstrap_servers, redis_url, append_only),
        registry=registry,
        directory=directory,
    )
    figures = plans.read(figures_file) if figures_file else run.run(options, say)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    if plot:
        plot.write_text(report.svg(figures), "utf-8")
    print(report.told(figures))
    if plan:
        costs = plans.costs_of(figures)
        print(f"\n{plans.costs_told(costs)}\n")
        print(plans.clusters_told(costs, plan, cards=plan_cards, terminals=plan_terminals))

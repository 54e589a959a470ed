"""The options that commands share, and how their texts become values."""

import datetime as dt
import re
from collections.abc import Sequence
from typing import Annotated

import typer

from fraudstream_producers.batches import Timestamps
from fraudstream_producers.contract import TimeFormat
from fraudstream_producers.errors import UsageError

_CONTRACT = "Records"
_KAFKA = "Kafka"
_OUTPUT = "Output"
_DAY_MS = 86_400_000
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": _DAY_MS, "w": 7 * _DAY_MS}

BootstrapServers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        "-b",
        metavar="HOST:PORT[,...]",
        envvar="KAFKA_BOOTSTRAP_SERVERS",
        help="Where Kafka is.",
        rich_help_panel=_KAFKA,
    ),
]
TransactionsTopic = Annotated[str, typer.Option(metavar="NAME", help="Topic of transactions.", rich_help_panel=_KAFKA)]
LabelsTopic = Annotated[str, typer.Option(metavar="NAME", help="Topic of labels.", rich_help_panel=_KAFKA)]
ClientSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka",
        "-X",
        metavar="KEY=VALUE",
        help="Setting of the Kafka client (librdkafka), for example security.protocol=SASL_SSL. May be repeated.",
        show_default=False,
        rich_help_panel=_KAFKA,
    ),
]
BrokerWait = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0.1, help="How long to wait for the broker's first answer.", rich_help_panel=_KAFKA
    ),
]
StampedBy = Annotated[
    Timestamps,
    typer.Option(help="Timestamp of a record: its event (or label) time, or now.", rich_help_panel=_CONTRACT),
]
TimesAs = Annotated[
    TimeFormat,
    typer.Option(help="Times in the JSON as RFC 3339 text or as epoch milliseconds.", rich_help_panel=_CONTRACT),
]
WithLabels = Annotated[
    bool, typer.Option("--labels/--no-labels", help="Produce labels as well.", rich_help_panel=_CONTRACT)
]
DrainLabels = Annotated[
    bool,
    typer.Option(
        "--drain-labels", help="At the end, also send the labels that are not due yet.", rich_help_panel=_CONTRACT
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the counts as one JSON object on standard output.", rich_help_panel=_OUTPUT),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.", rich_help_panel=_OUTPUT)]


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as 7d, 12h, 1.5h, 90s, 250ms or 0.

    Raises
    ------
    UsageError
        The text is no such duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)|0", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no duration; write for example 7d, 12h, 90s or 250ms")
    return round(float(match[1]) * _UNIT_MS[match[2]]) if match[1] else 0


def moment_ms(text: str) -> int:
    """Milliseconds since the epoch of a date or an ISO 8601 time, UTC where it names no zone.

    Raises
    ------
    UsageError
        The text is no date or time.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as problem:
        raise UsageError(f"{text!r} is no date; write for example 2018-07-01 or 2018-07-01T12:00:00Z") from problem
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return round(aware.timestamp() * 1000)


def positive_or_max(text: str, option: str) -> float | None:
    """The number of `--speed` or `--rate`; None for `max`.

    Raises
    ------
    UsageError
        It is neither `max` nor a number above 0.
    """
    if text == "max":
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UsageError(f"{option} {text}: a number above 0, or max")
    return number


def client_settings(pairs: Sequence[str] | None) -> dict[str, str]:
    """The settings of `--kafka KEY=VALUE`.

    Raises
    ------
    UsageError
        One has no equals sign.
    """
    settings = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--kafka {pair}: write KEY=VALUE")
        settings[name.strip()] = value.strip()
    return settings

"""What a simulation is made of, as one frozen value; every field can be set in a TOML file."""

import datetime as dt
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fraudstream_producers.drift import Drift, shares_on
from fraudstream_producers.errors import UsageError
from fraudstream_producers.frauds import PATTERN_NAMES, Frauds
from fraudstream_producers.labels import Labels
from fraudstream_producers.world import WorldSettings

DEFAULT_START = dt.date(2025, 1, 1)


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole simulation. Equal settings give equal transactions and labels, byte for byte."""

    seed: Annotated[int, Meta(ge=0)] = 7
    start: dt.date = DEFAULT_START  # the date (UTC) of day 0
    world: WorldSettings = WorldSettings()
    frauds: Frauds = Frauds()
    labels: Labels = Labels()
    drift: tuple[Drift, ...] = ()


def load_settings(path: Path | None) -> Settings:
    """The settings of a TOML file, or the defaults where `path` is None.

    Raises
    ------
    UsageError
        The file cannot be read, is not TOML, or names a field or value that does not exist.
    """
    if path is None:
        return Settings()
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Settings)
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"cannot read {path}: {problem}") from problem
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise UsageError(f"{path}: {problem}") from problem


def checked(settings: Settings) -> Settings:
    """The same settings, after every range was checked (the constructor of a struct checks none).

    Raises
    ------
    UsageError
        A value lies outside its range, or a drift names a pattern that does not exist.
    """
    try:
        checked_settings = msgspec.convert(msgspec.to_builtins(settings, builtin_types=(dt.date,)), Settings)
    except msgspec.ValidationError as problem:
        raise UsageError(str(problem)) from problem
    shares_on(0, dict.fromkeys(PATTERN_NAMES, 1.0), settings.drift)  # refuses a pattern that does not exist
    return checked_settings

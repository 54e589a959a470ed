"""What is streamed and what decides: a seeded world of cards, its history, a model trained on it, its later days."""

import datetime as dt
import json
import math
from pathlib import Path
from typing import Final

from msgspec import Struct, to_builtins

from fraudstream.demo.processes import Child

# A fixed date: the same seed gives the same records, model and alerts on every machine and every day.
START: Final = dt.date(2025, 1, 1)
HISTORY_DAYS: Final = 45
TRAIN_FROM_DAY: Final = 8  # the days before fill the windows
# The whole world's, whatever its cards: training reads 45 such days.
TRANSACTIONS_PER_DAY: Final = 10_000
TRANSACTIONS_PER_CARD_DAY_MAX: Final = 2.0
# Of the transactions, for the review threshold: half a minute at 2,000/s then has some hundreds of alerts, enough for a p99.
ALERTS_SHARE: Final = 0.01
COMMAND_S_MAX: Final = 600.0


class Size(Struct, frozen=True):
    """The world's size, and how fast it lives once the history is over.

    A batch should meet a card once or twice, as it does where millions of cards share some partitions: with few busy
    ones, rows look cheaper than they are. At its natural pace (`event_rate` 0) each transaction enters new tiles of its
    card and terminal, which is more than service asks for; it takes days to a second, though, and several workers that
    share terminals then repeat each other's batches. For them, `event_rate` is the transactions in a second of event
    time. Cards get busy then, so the share of alerts grows with the length of the run.
    """

    cards: int = 100_000
    terminals: int = 10_000
    seed: int = 7
    event_rate: int = 0

    @property
    def per_day(self) -> int:
        return round(self.cards * self.per_card_day)

    @property
    def faster(self) -> int:
        """How many times as fast as in its history event time passes in the live days."""
        return max(1, self.event_rate * 86_400 // self.per_day)

    @property
    def per_card_day(self) -> float:
        return min(TRANSACTIONS_PER_CARD_DAY_MAX, TRANSACTIONS_PER_DAY / self.cards)


class World(Struct, frozen=True):
    """Files of a world: labelled `history` up to the day `until`, `live` transactions from then on, a `registry`."""

    history: Path
    live: Path
    registry: Path
    until: str


def make(directory: Path, size: Size, transactions: int, registry: Path | None = None) -> World:
    """Simulate history and at least so many live transactions, and train on the history unless a registry is given.

    What an earlier call left in the directory for the same size is used again. Raises `DemoError` with the end of the
    log if a command fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # A tenth more: the simulated days vary.
    days = math.ceil(1.1 * transactions / size.per_day) + 1
    until = (START + dt.timedelta(days=HISTORY_DAYS)).isoformat()
    world = World(directory / "history.parquet", directory / "live.parquet", registry or directory / "registry", until)
    note = directory / "world.json"
    made = json.loads(note.read_text("utf-8")) if note.exists() else {}
    # `event_rate` changes nothing in the files; what they are made with does.
    of_size = to_builtins(size) | {"event_rate": 0, "made_with": [HISTORY_DAYS, TRANSACTIONS_PER_DAY, ALERTS_SHARE]}
    same = made.get("size") == of_size
    if not (same and made.get("days", 0) >= days):
        _simulate(directory, world.live, size, HISTORY_DAYS, days)
    if not same:
        _simulate(directory, world.history, size, 0, HISTORY_DAYS)
    if registry is None and not (same and made.get("trained")):
        _train(directory, world, size)
    kept = max(days, made.get("days", 0)) if same else days
    told = {"size": of_size, "days": kept, "trained": registry is None or (same and made.get("trained", False))}
    note.write_text(json.dumps(told), "utf-8")
    return world


def _simulate(directory: Path, file: Path, size: Size, first_day: int, days: int) -> None:
    config = directory / "world.toml"
    config.write_text(f"[world]\ntransactions_per_card_day = {size.per_card_day}\n", "utf-8")
    words = (
        "--config", config, "--to", file, "--skip-days", first_day, "--days", days, "--cards", size.cards, "--terminals", size.terminals,
        "--seed", size.seed, "--start", START.isoformat(), "--quiet",
    )  # fmt: skip
    name = f"simulate-{file.stem}"
    Child(name, ("fraudstream_producers.simulate", *map(str, words)), directory).wait(COMMAND_S_MAX)


def _train(directory: Path, world: World, size: Size) -> None:
    since = (START + dt.timedelta(days=TRAIN_FROM_DAY)).isoformat()
    words = (
        "train", "--transactions", world.history, "--from", since, "--until", world.until, "--label-delay", "7d",
        "--registry", world.registry, "--alerts-per-day", size.per_day * ALERTS_SHARE, "--quiet",
    )  # fmt: skip
    Child("train", ("fraudstream", *map(str, words)), directory).wait(COMMAND_S_MAX)

"""The commands without a broker: files, option texts, and one clear line with exit code 2 for what cannot be done."""

import datetime as dt
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from fraudstream_producers import replay, simulate
from fraudstream_producers.errors import UsageError
from fraudstream_producers.frauds import PATTERN_NAMES
from fraudstream_producers.options import client_settings, duration_ms, moment_ms, positive_or_max
from fraudstream_producers.settings import Settings, load_settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.stream import Stream

NOWHERE = "127.0.0.1:1"


def run(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> int:
    """Run a command in this process; its exit code."""
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setattr(sys, "argv", [f"fraudstream-{command}", *arguments])
    with pytest.raises(SystemExit) as ended:
        (simulate if command == "simulate" else replay).main()
    return int(ended.value.code or 0)


def test_simulate_writes_the_files_and_says_what_is_in_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--to and --labels-to write Parquet; --json counts; skipped days continue the file before."""
    size = ("--cards", "200", "--terminals", "300", "--seed", "3", "--quiet")
    whole, rest, labels = (str(tmp_path / name) for name in ("whole.parquet", "rest.parquet", "labels.parquet"))
    assert run(monkeypatch, "simulate", "--to", whole, "--days", "6", *size) == 0
    assert "transactions (" in capsys.readouterr().out
    arguments = ("--to", rest, "--labels-to", labels, "--skip-days", "4", "--days", "2", "--json", *size)
    assert run(monkeypatch, "simulate", *arguments) == 0
    counts = json.loads(capsys.readouterr().out)
    after = pq.read_table(rest)
    assert after.equals(pq.read_table(whole).slice(len(pq.read_table(whole)) - len(after)))
    assert counts["transactions"] == len(after) == counts["labels"] == len(pq.read_table(labels))
    assert counts["frauds"] == sum(after["is_fraud"].to_pylist())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("simulate",), "--to FILE"),
        (("simulate", "--to", "x.parquet", "--rate", "5"), "not for --to"),
        (("simulate", "--to", "x.parquet", "--drift", "amount:1"), "amount:DAY:FACTOR"),
        (("simulate", "--to", "x.parquet", "--drift", "pattern:1:telepathy"), "gift_cards"),
        (("simulate", "--to", "x.parquet", "--fraud-rate", "0.5"), "0.2"),
        (("simulate", "--to", "x.parquet", "--cards", "0"), "cards"),
        (("simulate", "--to", "x.parquet", "--start", "soon"), "--start soon"),
        (("simulate", "--to", "x.parquet", "--config", "missing.toml"), "missing.toml"),
        (("simulate", "-b", NOWHERE, "--rate", "0"), "--rate 0"),
        (("simulate", "-b", NOWHERE, "--rate", "max", "--speed-up", "2"), "exclude"),
        (("simulate", "-b", NOWHERE, "--labels-to", "x.parquet"), "--labels-to"),
        (("simulate", "-b", NOWHERE, "-X", "linger.ms"), "KEY=VALUE"),
        (("simulate", "-b", NOWHERE, "-X", "no.such.setting=1"), "no.such.setting"),
        (("simulate", "-b", NOWHERE, "--malformed", "2"), "malformed"),
        (("replay", "x.csv"), "--bootstrap-servers"),
        (("replay", "x.csv", "-b", NOWHERE), "cannot read"),
        (("replay", "x.csv", "-b", NOWHERE, "--speed", "fast"), "--speed fast"),
        (("replay", "x.csv", "-b", NOWHERE, "--label-delay", "soon"), "7d"),
        (("replay", "x.csv", "-b", NOWHERE, "--from", "soon"), "2018-07-01"),
        (("replay",), "file"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    """Nothing on standard output, the reason on standard error, no traceback, no file."""
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_labels_of_a_file_without_truth_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--labels on a file without is_fraud is an error before anything is sent."""
    path = tmp_path / "t.csv"
    path.write_text("transaction_id,event_time,card_id,terminal_id,amount\na,0,c,t,1\n", encoding="utf-8")
    assert run(monkeypatch, "replay", str(path), "-b", NOWHERE, "--labels") == 2
    assert "is_fraud" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["simulate", "replay"])
def test_help_shows_examples(module: str) -> None:
    """Both modules run with python -m, and their help ends with commands to copy."""
    command = [sys.executable, "-m", f"fraudstream_producers.{module}", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Examples" in shown
    assert f"fraudstream-{module} " in shown.partition("Examples")[2]


@pytest.mark.parametrize(
    ("text", "expected"), [("7d", 604_800_000), ("1.5h", 5_400_000), ("250ms", 250), ("0", 0), ("2w", 1_209_600_000)]
)
def test_durations_are_read(text: str, expected: int) -> None:
    """A number and a unit."""
    assert duration_ms(text) == expected


def test_moments_without_zone_are_utc() -> None:
    """A date is its midnight in UTC; an offset is respected."""
    assert moment_ms("2018-07-01") == 1_530_403_200_000
    assert moment_ms("2018-07-01T00:00:00") == moment_ms("2018-07-01T02:00:00+02:00") == 1_530_403_200_000


def test_option_texts_become_values() -> None:
    """Max is no limit; client settings are pairs."""
    assert positive_or_max("max", "--speed") is None
    assert positive_or_max("2.5", "--speed") == 2.5
    assert client_settings(["a.b=c=d", "x= y "]) == {"a.b": "c=d", "x": "y"}
    for wrong in ("0", "-1", "nan", "inf"):
        with pytest.raises(UsageError):
            positive_or_max(wrong, "--speed")


def test_the_start_can_be_relative_to_today() -> None:
    """today-40d is forty days ago; now makes the first day that is not skipped today."""
    today = dt.datetime.now(dt.UTC).date()
    assert simulate._start_date("today-40d", 0) == simulate._start_date("now", 40)
    assert today - simulate._start_date("now", 40) in {dt.timedelta(days=40), dt.timedelta(days=41)}
    assert simulate._start_date("2024-02-29", 5) == dt.date(2024, 2, 29)


def test_event_times_are_counted_out_only_where_habits_cannot_be_kept() -> None:
    """A rate with a speed-up, or from now, counts times out; a rate alone keeps them; now alone cuts the first day."""
    simulation = Simulation(Settings())
    assert Stream(rate=10.0).timed(simulation, now=False).span.event_clock is None
    clock = Stream(rate=10.0, speed_up=60.0).timed(simulation, now=False).span.event_clock
    assert clock is not None
    assert (clock.start_ms, clock.step_ms) == (simulation.day_start_ms(0), 6_000.0)
    from_now = Stream(rate=10.0).timed(simulation, now=True).span.event_clock
    assert from_now is not None
    assert from_now.step_ms == 100.0
    real_time = Stream(rate=None, speed_up=1.0).timed(simulation, now=True).span
    assert real_time.event_clock is None
    assert real_time.from_ms is not None


def test_the_documented_settings_are_all_settings_with_their_defaults(tmp_path: Path) -> None:
    """The TOML of the page on producers names every field with its default value, and the three kinds of drift."""
    page = (Path(__file__).parents[3] / "docs/how-to/producers.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    path = tmp_path / "documented.toml"
    path.write_text(text, encoding="utf-8")
    settings = load_settings(path)
    assert len(settings.drift) == 3
    assert msgspec.structs.replace(settings, drift=()) == Settings()
    documented = tomllib.loads(text)
    complete = msgspec.to_builtins(Settings(), builtin_types=(dt.date,))
    for table in ("world", "frauds", "labels"):
        assert documented[table].keys() == complete[table].keys()
    for pattern in PATTERN_NAMES:
        assert documented["frauds"][pattern].keys() == complete["frauds"][pattern].keys()


def test_the_page_names_every_option() -> None:
    """Each option that the help of a command names is on the page or needs no more words than the help gives it."""
    page = (Path(__file__).parents[3] / "docs/how-to/producers.md").read_text(encoding="utf-8")
    plain = {"--id-prefix", "--time-format", "--transactions-topic", "--labels-topic", "--kafka", "--labels"}
    for module in (simulate, replay):
        (command,) = module.app.registered_commands
        assert command.callback is not None
        for name in inspect.signature(command.callback).parameters:
            option = {"as_json": "--json", "begin": "--from", "file": "replay"}.get(name, "--" + name.replace("_", "-"))
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", page) or option in plain, option

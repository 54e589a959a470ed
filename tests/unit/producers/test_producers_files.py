"""Files in and out: Parquet written by the simulator, Parquet and CSV read by the replayer."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fraudstream_producers.columns import LABELS, TRANSACTIONS, epoch_ms
from fraudstream_producers.errors import UsageError
from fraudstream_producers.parquet import write_simulation
from fraudstream_producers.settings import Settings
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.source import FileSource
from fraudstream_producers.world import WorldSettings

SIMULATION = Simulation(Settings(world=WorldSettings(cards=400, terminals=600)))
TRUTHLESS = [name for name in TRANSACTIONS.names if name != "is_fraud"]


def wanted(first: int = 0, last: int = 3) -> pa.Table:
    return pa.concat_tables([SIMULATION.day(day).transactions for day in range(first, last)])


def read(source: FileSource) -> pa.Table:
    tables = [chunk.transactions for chunk in source.transaction_chunks()]
    return pa.concat_tables(tables) if tables else TRANSACTIONS.empty_table()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "transactions.parquet"
    pq.write_table(wanted(), path, row_group_size=500)
    return path


def test_the_simulator_writes_what_it_simulates(tmp_path: Path) -> None:
    """Both files hold the days asked for, row for row, and nothing else is left in the folder."""
    rows, frauds, labels = write_simulation(SIMULATION, range(2, 5), tmp_path / "t.parquet", tmp_path / "l.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema == TRANSACTIONS
    assert table.equals(wanted(2, 5))
    assert pq.read_table(tmp_path / "l.parquet").equals(
        pa.concat_tables([SIMULATION.day(day).labels() for day in range(2, 5)])
    )
    assert (rows, labels) == (len(table), len(table))
    assert frauds == sum(table["is_fraud"].to_pylist())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.parquet", "t.parquet"]


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    """What on_day raises ends the writing, and a file that was there before is untouched."""
    (tmp_path / "t.parquet").write_text("old", encoding="utf-8")

    def on_day(rows: int, table: pa.Table) -> None:
        assert rows >= len(table) > 0
        raise UsageError("interrupted")

    with pytest.raises(UsageError, match="interrupted"):
        write_simulation(SIMULATION, range(3), tmp_path / "t.parquet", tmp_path / "l.parquet", on_day=on_day)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]
    assert (tmp_path / "t.parquet").read_text(encoding="utf-8") == "old"


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    """A folder that does not exist is named."""
    with pytest.raises(UsageError, match="cannot write"):
        write_simulation(SIMULATION, range(1), tmp_path / "missing" / "t.parquet", None)


def test_parquet_is_read_back_in_order(parquet: Path) -> None:
    """Every row of every row group, once, with the truth."""
    source = FileSource(path=parquet)
    assert read(source).select(TRANSACTIONS.names).equals(wanted())
    assert source.total() == len(wanted())
    assert source.has_truth()


@pytest.mark.parametrize("form", ["2018-04-01T00:00:31Z", "2018-04-01T00:00:31.000+00:00", "2018-04-01 00:00:31", "ms"])
def test_csv_is_read_like_parquet(tmp_path: Path, form: str) -> None:
    """Times as RFC 3339, without a zone (UTC) or as milliseconds, and ids with leading zeros, all survive."""
    event_ms = 1_522_540_831_000
    text = str(event_ms) if form == "ms" else form
    path = tmp_path / "t.csv"
    path.write_text(
        "terminal_id,transaction_id,amount,event_time,card_id,is_fraud,note\n"
        f"0007,1,12.30,{text},0042,0,hello\n0008,2,0.5,{text},0043,1,\n",
        encoding="utf-8",
    )
    source = FileSource(path=path, label_delay_ms=1_000)
    (chunk,) = source.chunks()
    moment = dt.datetime(2018, 4, 1, 0, 0, 31, tzinfo=dt.UTC)
    rows = chunk.transactions.select(TRANSACTIONS.names).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("1", moment, "0042", "0007", 12.3, False),
        ("2", moment, "0043", "0008", 0.5, True),
    ]
    assert chunk.labels.schema == LABELS
    assert epoch_ms(chunk.labels["label_time"]).tolist() == [event_ms + 1_000] * 2
    assert chunk.labels["is_fraud"].to_pylist() == [False, True]


def test_a_large_csv_gives_the_rows_of_the_parquet_file(tmp_path: Path) -> None:
    """Written as CSV by another tool, the simulation reads back equal to its Parquet file."""
    path = tmp_path / "t.csv"
    pa.csv.write_csv(wanted(), path)
    assert read(FileSource(path=path)).select(TRANSACTIONS.names).equals(wanted())


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_other_time_units_are_cut_to_milliseconds(tmp_path: Path, unit: str) -> None:
    """Parquet of other tools stores other units and no zone; the moment is the same."""
    table = wanted()
    seconds = pa.array(epoch_ms(table["event_time"]) // 1000 * 1000).cast(pa.timestamp("ms")).cast(pa.timestamp(unit))
    path = tmp_path / "t.parquet"
    pq.write_table(table.set_column(1, "event_time", seconds), path)
    found = epoch_ms(read(FileSource(path=path))["event_time"])
    assert (found == epoch_ms(table["event_time"]) // 1000 * 1000).all()


def test_dates_and_limit_choose_the_part(parquet: Path) -> None:
    """From is included, until is not, the limit counts what remains, and total agrees."""
    event_ms = epoch_ms(wanted()["event_time"])
    low, high = int(event_ms[100]), int(event_ms[1_000])
    part = FileSource(path=parquet, from_ms=low, until_ms=high)
    expected = event_ms[(event_ms >= low) & (event_ms < high)]
    assert epoch_ms(read(part)["event_time"]).tolist() == expected.tolist()
    assert part.total() == len(expected)
    limited = FileSource(path=parquet, from_ms=low, limit=50)
    assert epoch_ms(read(limited)["event_time"]).tolist() == event_ms[event_ms >= low][:50].tolist()
    assert limited.total() == 50
    assert len(read(FileSource(path=parquet, limit=0))) == 0


def test_labels_come_after_the_delay_or_first(parquet: Path) -> None:
    """Each transaction has a chargeback label with its truth; as a stream of their own they are all due at once."""
    source = FileSource(path=parquet, label_delay_ms=7 * 86_400_000)
    labels = pa.concat_tables([chunk.labels for chunk in source.chunks()])
    table = wanted()
    assert labels["is_fraud"].to_pylist() == table["is_fraud"].to_pylist()
    assert (epoch_ms(labels["label_time"]) - epoch_ms(table["event_time"]) == 7 * 86_400_000).all()
    assert set(labels["source"].to_pylist()) == {"chargeback"}
    first = list(source.label_chunks())
    assert pa.concat_tables([chunk.labels for chunk in first]).equals(labels)
    assert not any(len(chunk.transactions) or chunk.paced for chunk in first)


def test_a_row_without_truth_has_no_label(tmp_path: Path) -> None:
    """A null in is_fraud means not known."""
    path = tmp_path / "t.parquet"
    table = wanted(0, 1).slice(0, 3)
    pq.write_table(table.set_column(5, "is_fraud", pa.array([True, None, False])), path)
    (chunk,) = FileSource(path=path, label_delay_ms=0).chunks()
    assert len(chunk.transactions) == 3
    assert chunk.labels["is_fraud"].to_pylist() == [True, False]


def test_a_file_without_truth_can_be_replayed(tmp_path: Path) -> None:
    """is_fraud is optional; further columns are kept only where asked for."""
    path = tmp_path / "t.parquet"
    pq.write_table(wanted().select(TRUTHLESS).append_column("currency", pa.array(["EUR"] * len(wanted()))), path)
    assert not FileSource(path=path).has_truth()
    assert read(FileSource(path=path)).column_names == TRUTHLESS
    assert read(FileSource(path=path, extra_columns=("currency",))).column_names == [*TRUTHLESS, "currency"]


def broken_files(folder: Path) -> dict[str, Path]:
    table = wanted(0, 1)
    backwards = table.take(pa.array(np.arange(len(table))[::-1]))
    pq.write_table(backwards, folder / "backwards.parquet")
    pa.csv.write_csv(backwards, folder / "backwards.csv")
    pq.write_table(table.drop(["card_id"]), folder / "columns.parquet")
    pq.write_table(table.set_column(1, "event_time", pa.nulls(len(table), pa.string())), folder / "timeless.parquet")
    (folder / "empty.csv").write_text("", encoding="utf-8")
    (folder / "text.parquet").write_text("no parquet", encoding="utf-8")
    head = "transaction_id,event_time,card_id,terminal_id,amount\n"
    (folder / "amount.csv").write_text(head + "a,2018-04-01T00:00:00Z,c,t,much\n", encoding="utf-8")
    (folder / "time.csv").write_text(head + "a,yesterday,c,t,1\n", encoding="utf-8")
    return {path.name: path for path in folder.iterdir()} | {"missing.csv": folder / "missing.csv"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("backwards.parquet", "event-time order"),
        ("backwards.csv", "event-time order"),
        ("columns.parquet", "no column card_id"),
        ("timeless.parquet", "without event_time"),
        ("empty.csv", "cannot read"),
        ("text.parquet", "cannot read"),
        ("amount.csv", "cannot read"),
        ("time.csv", "cannot read"),
        ("missing.csv", "cannot read"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_one_clear_error(tmp_path: Path, name: str, words: str) -> None:
    """Order, columns, types and readability are told apart, with the name of the file."""
    path = broken_files(tmp_path)[name]
    with pytest.raises(UsageError, match=words) as raised:
        read(FileSource(path=path))
    assert name in str(raised.value)

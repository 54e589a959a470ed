"""Reading labelled files: formats, order, and a clear word for what cannot be taken."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.support.card_history import START_MS, card_history, table, written
from tests.support.desk import FEATURES

from fraudstream.core.features import FeatureSet
from fraudstream.errors import SettingsError
from fraudstream.models.history import check_label_delay, moment_ms, replay, warm_states
from fraudstream.models.history_file import History

WITH_EXTRAS = FeatureSet.parse("""
[entities]
shop = "shop"
[windows]
d1 = { length = "1d", hop = "1h" }
[features]
risk = { field = "risk" }
shop_count = { entity = "shop", aggregate = "count", window = "d1" }
""")


def three(**changes: Any) -> pa.Table:
    """Three transactions; columns replaced by name, or dropped where None."""
    plain = table(
        ["a", "b", "c"], [START_MS, START_MS, START_MS + 1], ["c1"] * 3, ["w1"] * 3, [1.0, 2.0, 3.0], [False] * 3
    )
    for name, values in changes.items():
        if values is None:
            plain = plain.drop_columns([name])
        elif name in plain.column_names:
            plain = plain.set_column(plain.column_names.index(name), name, pa.array(values))
        else:
            plain = plain.append_column(name, pa.array(values))
    return plain


def matrix_of(path: Path, features: FeatureSet = FEATURES) -> np.ndarray[Any, Any]:
    return np.concatenate([part.matrix for part in replay(features, History(path, features))])


def test_csv_and_parquet_give_the_same(tmp_path: Path) -> None:
    """A history written as CSV is read as the same transactions, labels and features."""
    history = card_history(days=5)
    parquet = History(written(history, tmp_path / "h.parquet"), FEATURES)
    text = History(written(history, tmp_path / "h.csv"), FEATURES)
    assert (parquet.rows, parquet.first_ms, parquet.last_ms) == (text.rows, text.first_ms, text.last_ms)
    for one, other in zip(replay(FEATURES, parquet), replay(FEATURES, text), strict=True):
        assert one.ids.to_pylist() == other.ids.to_pylist()
        assert one.times_ms.tolist() == other.times_ms.tolist()
        assert one.frauds.tolist() == other.frauds.tolist()
        assert one.matrix.tobytes() == other.matrix.tobytes()


def test_a_file_out_of_order_is_sorted_with_a_note(tmp_path: Path) -> None:
    """Shuffled rows give the features of the sorted file, and the note says that they were sorted."""
    history = card_history(days=5, per_day=60)
    shuffled = history.take(np.random.default_rng(0).permutation(len(history)))
    in_order = shuffled.sort_by("event_time")
    found = History(written(shuffled, tmp_path / "h.parquet"), FEATURES)
    assert any("sorted in memory" in note for note in found.notes)
    assert not History(written(in_order, tmp_path / "o.parquet"), FEATURES).notes
    assert matrix_of(tmp_path / "h.parquet").tobytes() == matrix_of(tmp_path / "o.parquet").tobytes()


@pytest.mark.parametrize("name", ["transaction_id", "event_time", "card_id", "terminal_id", "amount", "is_fraud"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    """The error names the file, the column and what is there instead."""
    path = written(three(**{name: None}), tmp_path / "h.parquet")
    with pytest.raises(SettingsError, match=rf"h\.parquet: no column {name}; the file has "):
        History(path, FEATURES)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("amount", [1.0, -0.5, 2.0], "-0.5 is not between 0 and"),
        ("amount", [1.0, float("nan"), 2.0], "nan is not between 0 and"),
        ("amount", [1.0, None, 2.0], "1 empty values"),
        ("amount", ["1", "x", "2"], "column amount"),
        ("event_time", ["2018-05-01T00:00:00Z", "soon", "2018-05-02T00:00:00Z"], "column event_time"),
        ("event_time", [1.5, 2.5, 3.5], "timestamps, RFC 3339 text or milliseconds are needed"),
        ("card_id", ["c1", "", "c2"], "has 0 characters"),
        ("card_id", ["c1", None, "c2"], "1 empty values"),
        ("terminal_id", ["w1", "w" * 129, "w2"], "has 129 characters"),
        ("transaction_id", ["a", "b", "a"], "'a' occurs twice"),
        ("is_fraud", ["no", "maybe", "yes"], "'maybe' is neither true nor false"),
        ("is_fraud", [True, None, False], "1 empty values"),
    ],
)
def test_a_value_the_live_system_would_refuse_is_refused(
    tmp_path: Path, column: str, values: Sequence[Any], complaint: str
) -> None:
    """One line names file, column and fault, instead of features that no worker would compute."""
    path = written(three(**{column: values}), tmp_path / "h.parquet")
    with pytest.raises(SettingsError, match=complaint):
        matrix_of(path)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("none.parquet", None, "no such file"),
        ("none.csv", None, "no such file"),
        ("h.parquet", b"not parquet", "cannot be read as Parquet"),
        ("empty.csv", b"", "cannot be read as CSV"),
        ("head.csv", b"transaction_id,event_time,card_id,terminal_id,amount,is_fraud\n", "no transactions in it"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, content: bytes | None, complaint: str) -> None:
    """A missing, unreadable or empty file ends with one line."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=complaint):
        History(tmp_path / name, FEATURES)


@pytest.mark.parametrize(
    "times",
    [
        [START_MS, START_MS, START_MS + 1500],
        ["2018-05-01T00:00:00Z", "2018-05-01T02:00:00+02:00", "2018-05-01T00:00:01.500Z"],
        ["2018-05-01 00:00:00", "2018-05-01 00:00:00", "2018-05-01 00:00:01.500"],
        [str(START_MS), str(START_MS), str(START_MS + 1500)],
    ],
    ids=["milliseconds", "RFC 3339", "without zone", "milliseconds as text"],
)
def test_times_are_read_in_every_form_that_is_told(tmp_path: Path, times: Sequence[Any]) -> None:
    """Milliseconds, RFC 3339 text and text without a zone (UTC, with a note) mean the same moments."""
    history = History(written(three(event_time=times), tmp_path / "h.parquet"), FEATURES)
    assert next(history.chunks()).times_ms.tolist() == [START_MS, START_MS, START_MS + 1500]
    assert bool(history.notes) == (" " in str(times[0]))


def test_labels_are_read_in_every_form_that_is_told(tmp_path: Path) -> None:
    """Truth values, 1 and 0, and words in any case mean the same."""
    for values in ([True, False, True], [1, 0, 1], ["True", "no", "YES"]):
        history = History(written(three(is_fraud=values), tmp_path / "h.parquet"), FEATURES)
        assert next(history.chunks()).frauds.tolist() == [True, False, True]


def test_extra_fields_are_read_as_a_live_transaction_has_them(tmp_path: Path) -> None:
    """Numbers count as 0 where absent or too large; an empty or fractional key is no key and has no history."""
    path = written(three(risk=[0.5, None, 1e300], shop=[None, "s", "s"]), tmp_path / "h.parquet")
    assert matrix_of(path, WITH_EXTRAS).tolist() == [[0.5, 0.0], [0.0, 1.0], [0.0, 2.0]]
    whole = written(three(risk=[1, 2, 3], shop=[7, 7, 8]), tmp_path / "w.parquet")
    assert matrix_of(whole, WITH_EXTRAS)[:, 1].tolist() == [1.0, 2.0, 1.0]
    broken = written(three(risk=[1, 2, 3], shop=[7.5, 7.5, 8.0]), tmp_path / "b.parquet")
    assert matrix_of(broken, WITH_EXTRAS)[:, 1].tolist() == [0.0, 0.0, 0.0]


def test_fraud_windows_shorter_than_the_label_delay_are_refused() -> None:
    """A list whose fraud windows end after labels are known may be trained on; one that looks ahead may not."""
    check_label_delay(FEATURES, 2 * 3_600_000)
    with pytest.raises(SettingsError, match="it would look into the future"):
        check_label_delay(FEATURES, 2 * 3_600_000 + 1)


def test_warm_states_stop_before_the_moment(tmp_path: Path) -> None:
    """Keys that first appear at or after the moment have no row, and a date means its midnight."""
    history = card_history(days=3, per_day=50)
    path = written(history, tmp_path / "h.parquet")
    before = history.filter(
        pc.less(history["event_time"], pa.scalar(moment_ms("2018-05-02")).cast(pa.timestamp("ms", "UTC")))
    )
    warm = warm_states(FEATURES, path, "2018-05-02")
    assert warm["card"].keys() == set(before["card_id"].to_pylist())
    assert warm == warm_states(FEATURES, path, moment_ms("2018-05-02"))
    assert {len(row) for row in warm["card"].values()} == {FEATURES.entities[0].layout.row_bytes}


def test_a_time_that_is_none_is_refused() -> None:
    """Only dates and RFC 3339 times with an offset are times."""
    for text in ("", "yesterday", "2018-13-01", "2018-05-01T00:00:00"):
        with pytest.raises(SettingsError, match="is not a time"):
            moment_ms(text)

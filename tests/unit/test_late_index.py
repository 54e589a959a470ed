"""The index of late labels on a real disk: nothing added is lost, nothing is half added, retention drops whole stretches."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.decisions import a_decision

from fraudstream.adapters.late_index import LateIndex
from fraudstream.core.features import DAY_MS
from fraudstream.errors import SettingsError, StateUnavailable
from fraudstream.events import Decision

RETENTION_MS = 120 * DAY_MS
DAY_0 = 17_000 * DAY_MS


def decided(name: str, day: float = 0, **fields: object) -> Decision:
    at_ms = DAY_0 + round(day * DAY_MS)
    return a_decision(transaction_id=name, event_time_ms=at_ms, decided_at_ms=at_ms + 7, **fields)


def open_index(path: Path, retention_ms: int = RETENTION_MS) -> LateIndex:
    return LateIndex(path, "decisions", retention_ms=retention_ms)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[LateIndex]:
    opened = open_index(tmp_path / "index")
    yield opened
    opened.close()


def test_a_decision_comes_back_to_the_last_bit(index: LateIndex) -> None:
    """Features, reasons, both models' names: all of it; what was never added is None."""
    one = decided("t1")
    two = decided("t2", day=40, model_version="8", features=b"\x00\x00\x80?" * 19)
    index.add([one, two], {0: 2})
    assert index.find(["t2", "absent", "t1"]) == [two, None, one]
    assert index.find([]) == []


def test_reading_goes_on_where_the_entries_end(tmp_path: Path) -> None:
    """Offsets of all partitions and the models' numbers outlive the process; an addition twice changes nothing."""
    first = open_index(tmp_path)
    first.add([decided("t1")], {0: 5})
    first.add([decided("t2", model_version="8")], {1: 9})
    first.close()
    again = open_index(tmp_path)
    assert again.offsets == {0: 5, 1: 9}
    again.add([decided("t2", model_version="8"), decided("t3", model_version="9")], {1: 10})
    assert [one and one.model_version for one in again.find(["t1", "t2", "t3"])] == ["1", "8", "9"]
    assert again.offsets == {0: 5, 1: 10}
    again.close()


def test_retention_drops_what_is_older_and_nothing_younger(index: LateIndex) -> None:
    """It counts from the newest event time; what is within it stays, a generation beyond it goes."""
    index.add([decided(f"t{day}", day) for day in range(200)], {0: 200})
    found = index.find([f"t{day}" for day in range(200)])
    kept = [day for day in range(200) if found[day] is not None]
    assert kept == list(range(kept[0], 200))
    assert 199 - 120 - 10 <= kept[0] <= 199 - 120  # generations of ten days
    index.add([decided("old", day=0)], {0: 201})
    assert index.find(["old"]) == [None]
    assert index.offsets == {0: 201}


def test_dropped_generations_leave_the_disk(tmp_path: Path) -> None:
    """Files of a dropped stretch are gone, not only hidden."""
    opened = open_index(tmp_path)
    opened.add([decided(f"a{n}", 0.001 * n, card_id=f"card-{n}") for n in range(5_000)], {0: 5_000})
    opened.flush()
    before = _bytes(tmp_path)
    opened.add([decided("new", day=300)], {0: 5_001})
    opened.close()
    assert before > 100_000
    assert _bytes(tmp_path) < before / 20


def test_a_longer_retention_keeps_the_generations_it_finds(tmp_path: Path) -> None:
    """The length of a generation is fixed by the first opening; another retention only drops later or earlier."""
    opened = open_index(tmp_path)
    opened.add([decided(f"t{day}", day) for day in range(0, 120, 10)], {0: 12})
    opened.close()
    longer = open_index(tmp_path, 4 * RETENTION_MS)
    longer.add([decided("later", day=240)], {0: 13})
    assert None not in longer.find([f"t{day}" for day in range(0, 120, 10)])
    longer.close()


def test_of_two_decisions_the_earlier_one_is_found(index: LateIndex) -> None:
    """The same id far apart in event time was decided twice; labels belong to the first."""
    index.add([decided("t1", day=90, amount=2.0), decided("t1", day=10, amount=1.0)], {0: 2})
    found = index.find(["t1"])[0]
    assert found is not None
    assert found.amount == 1.0


def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path, index: LateIndex) -> None:
    """A second process, another topic and a path that is a file: one line each."""
    with pytest.raises(SettingsError, match="open in another process: give each worker a directory of its own"):
        open_index(index.path)
    index.add([], {0: 1})
    index.close()
    with pytest.raises(SettingsError, match="holds the decisions of topic decisions, not of others"):
        LateIndex(index.path, "others", retention_ms=RETENTION_MS)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="cannot be used"):
        open_index(tmp_path / "file")


WRITER = """
import sys
from pathlib import Path
from tests.unit.test_late_index import decided, open_index

index = open_index(Path(sys.argv[1]))
at = index.offsets.get(0, 0)
while True:
    index.add([decided(f"t{n}", n / 1000) for n in range(at, at + 7)], {0: at + 7})
    at += 7
    print(at, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    """After each of several kill -9: every decision below the offset is there, none above it, and writing goes on."""
    path = tmp_path / "index"
    done = 0
    for round_number in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = int(writer.stdout.readline())
            time.sleep(0.05 * (1 + round_number))
            writer.send_signal(signal.SIGKILL)
        assert told == done + 7
        opened = open_index(path)
        done = opened.offsets[0]
        assert done >= told
        found = opened.find([f"t{n}" for n in range(done + 50)])
        assert [n for n, one in enumerate(found) if one is not None] == list(range(done))
        opened.close()


def test_an_addition_that_fails_can_be_repeated(tmp_path: Path) -> None:
    """Models first seen in an addition that was never written have no number yet: the next one gives them out anew."""
    opened = open_index(tmp_path)
    broken = decided("t1", model_version="5", features=None)
    with pytest.raises(StateUnavailable, match="cannot be used"):
        opened.add([decided("t0", model_version="4"), broken], {0: 2})
    assert opened.offsets == {}
    opened.add([decided("t2", model_version="5"), decided("t3", model_version="4")], {0: 2})
    assert [one and one.model_version for one in opened.find(["t0", "t2", "t3"])] == [None, "5", "4"]
    opened.close()


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.sst"))

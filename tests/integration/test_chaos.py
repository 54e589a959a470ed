"""Everything at once on the real parts: what is promised of crashes, zombies and restarts, held against one sequential pass."""

import sys
from pathlib import Path

import pytest
from tests.support.chaos.faults import PER_MINUTE
from tests.support.chaos.oracle import told
from tests.support.chaos.run import Size, play

from fraudstream.embedded.kafka_server import apache_kafka_unavailable

SEED = 20_250_214
# 5,000 transactions a second: about what is left of two cores for three workers, beside a broker, Redis and restarts.
SIZE = Size(transactions=300_000, flow_s=60.0, away_s=3.0)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(420)
def test_chaos_leaves_no_trace(tmp_path: Path) -> None:
    """300,000 transactions while workers, Redis and Kafka are killed, frozen and restarted: one stored decision each, no
    alert missing, every repetition the same to the byte, and Redis equal to one sequential pass key for key.
    """

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    if reason := apache_kafka_unavailable():
        say(f"no restarts of the broker, as Tansu keeps its records in memory: {reason}")
    try:
        report = play(SEED, SIZE, tmp_path, say)
    except AssertionError as error:
        error.add_note(f"seed {SEED}; logs in {tmp_path}; to replay: make chaos SEED={SEED}")
        raise
    say("\n".join(told(report)))
    assert report.faults.keys() == {kind for kind in PER_MINUTE if not (reason and kind.startswith("broker"))}

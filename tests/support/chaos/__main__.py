"""`make chaos`: rounds of following seeds until the minutes are over; ends at the first that fails.

With minutes, in every other round servers are away for up to a minute.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.support.chaos.oracle import told
from tests.support.chaos.run import Size, play

# What a fail-over of a managed Redis or Kafka may take.
AWAY_S_LONG = 60.0


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first round; drawn if left out")
    parser.add_argument("--minutes", type=float, default=0, help="begin no round after these; 0: one round")
    parser.add_argument("--transactions", type=int, default=Size.transactions, help="of a round")
    parser.add_argument("--flow-s", type=float, default=Size.flow_s, help="how long they are sent")
    parser.add_argument("--away-s", type=float, help="how long a server stays away at most, if always the same")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    began_s, rounds = time.monotonic(), 0
    while rounds == 0 or time.monotonic() - began_s < 60 * options.minutes:
        seed = first + rounds
        away_s = options.away_s or (AWAY_S_LONG if options.minutes and rounds % 2 else Size.away_s)
        say(f"chaos: seed {seed}, servers are away for up to {away_s:g} s")
        directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        try:
            report = play(seed, Size(options.transactions, options.flow_s, away_s), directory, say)
        except Exception:  # noqa: BLE001 - whatever it is, the seed has to be told
            traceback.print_exc()
            say(f"chaos: seed {seed} failed; its logs are in {directory}; to replay:")
            say(f"make chaos SEED={seed} CHAOS_ARGS='--away-s {away_s:g}'")
            return 1
        for line in told(report):
            say(line)
        rounds += 1
    say(f"chaos: {rounds} rounds, seeds {first} to {first + rounds - 1}, {time.monotonic() - began_s:.0f} s: all well")
    return 0


if __name__ == "__main__":
    sys.exit(main())

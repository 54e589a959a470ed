"""`python -m fraudstream.testing.simulation`: one seed step by step, or many."""

import argparse
import sys
import time

from fraudstream.testing.simulation import Simulation, replay_command


def main() -> int:
    """Exit code 1 where a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m fraudstream.testing.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run this one and tell every step")
    which.add_argument("--seeds", metavar="FROM:TO", help="run these, TO not included")
    options = parser.parse_args()
    if options.seed is not None:
        return _run(options.seed, tell=True)
    first, _, last = options.seeds.partition(":")
    began_s = time.monotonic()
    for seed in range(int(first), int(last)):
        if _run(seed, tell=False):
            return 1
    sys.stdout.write(f"{int(last) - int(first)} seeds, no promise broken, {time.monotonic() - began_s:.0f} s\n")
    return 0


def _run(seed: int, *, tell: bool) -> int:
    try:
        Simulation(seed, trace=_write if tell else None).run()
    except Exception as error:  # noqa: BLE001 - whatever a run dies of, the seed has to be told
        _write(f"seed {seed}: {type(error).__name__}: {error}")
        _write(f"again, step by step: {replay_command(seed)}")
        return 1
    if tell:
        _write(f"seed {seed}: no promise broken")
    return 0


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())

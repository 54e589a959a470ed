"""What goes wrong in a chaos run, and when: a plan that the seed decides, as far as a clock allows."""

from random import Random
from typing import Final, Literal, NamedTuple

Kind = Literal["kill", "terminate", "freeze", "redis-kill", "redis-stop", "broker-kill", "broker-stop"]

# How often each happens for every minute of flow, and at least once.
PER_MINUTE: Final[dict[Kind, float]] = {
    "kill": 5,
    "terminate": 2,
    "freeze": 3,
    "redis-kill": 1.5,
    "redis-stop": 1.5,
    "broker-kill": 1,
    "broker-stop": 1,
}
SESSION_S: Final = 3.0
# The start is left alone: three workers join, and the first batches are decided.
QUIET_S: Final = 3.0


class Fault(NamedTuple):
    """One thing that goes wrong: when, counted from the start of the flow, to which worker, and for how long."""

    at_s: float
    kind: Kind
    which: int
    for_s: float


def plan(seed: int, flow_s: float, *, with_broker: bool, away_s: float) -> list[Fault]:
    """The faults of a seed, in order of time. Servers are away for up to `away_s`."""
    rng = Random(seed * 7 + 1)
    faults = []
    for kind, per_minute in PER_MINUTE.items():
        if kind.startswith("broker") and not with_broker:
            continue
        for _ in range(max(1, round(per_minute * flow_s / 60))):
            # Longer than a session: the group has given the partitions away when the zombie wakes up.
            for_s = rng.uniform(1.3, 2.2) * SESSION_S if kind == "freeze" else rng.uniform(0, away_s)
            faults.append(Fault(rng.uniform(QUIET_S, flow_s), kind, rng.randrange(100), for_s))
    return sorted(faults)

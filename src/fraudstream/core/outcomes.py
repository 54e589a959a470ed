"""How labels ended, from the store's counters. Every label record ends in exactly one way; early ones have a second end."""

from collections.abc import Mapping
from typing import Final

COUNTER_PREFIX: Final = "labels."
REJECTED_PREFIX: Final = COUNTER_PREFIX + "rejected."
WAYS: Final = {
    "joined": "with its decision",
    "parked": "came before its decision: waits for it",
    "late": "its decision had left Redis: joined from the index on disk",
    "duplicate": "the same verdict again, from whomever: counted once",
    "changed": "another verdict than the first one, which stands",
    "orphan": "no decision, and no room to wait for one: dead-lettered",
    "rejected": "no label: dead-lettered",
}
"""The ways a label record ends, in words."""

AFTERWARDS: Final = {
    "early": "of the parked: joined when their transaction came",
    "expired": "of the parked: given up, no transaction came in time",
    "waiting": "of the parked: still there",
}
"""What becomes of parked ones."""


def label_outcomes(counts: Mapping[str, int]) -> dict[str, int]:
    """How many label records ended in which way; `told` is all of them.

    Examples
    --------
    >>> told = label_outcomes({"labels.joined": 5, "labels.parked": 3, "labels.early": 2, "labels.rejected.tombstone": 1})
    >>> told["told"], told["joined"], told["waiting"], told["rejected"]
    (9, 5, 1, 1)
    """
    found = {way: counts.get(COUNTER_PREFIX + way, 0) for way in (*WAYS, "early", "expired")}
    found["rejected"] = sum(n for name, n in counts.items() if name.startswith(REJECTED_PREFIX))
    found["waiting"] = found["parked"] - found["early"] - found["expired"]
    return {"told": sum(found[way] for way in WAYS), **found}

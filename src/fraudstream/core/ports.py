"""What the core needs of the world around it: a state store, a model, a way out. Adapters implement these protocols.

One round trip gathers everything a micro-batch needs; one atomic commit writes everything it changed. The rules of the
commit (fence, watermark, first decision wins) are the contract that `tests/contract/` runs over every store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from fraudstream.core.census import Monitor
from fraudstream.core.updates import SharedUpdate
from fraudstream.core.windows import FloatArray
from fraudstream.events import Contribution, Decision, Label, Rejected

NO_OFFSET = -1  # watermark of a partition of which nothing was applied yet


@dataclass(frozen=True)
class Lease:
    """The right to write one partition: a fence number that is never given twice, and the last input offset applied."""

    partition: int
    fence: int
    watermark: int


@dataclass(frozen=True)
class Advance:
    """How far a batch takes a partition: `watermark` is the offset of its last record there, decided or not."""

    lease: Lease
    watermark: int


class Sighting(Struct, frozen=True, gc=False):
    """A transaction to look up: was it decided before? Its event time says where to look.

    `new`: it is taken for new and need not be looked up. A commit that would decide it again answers CONFLICT, as it does
    for one that was decided since the gather; the caller then asks without this.
    """

    transaction_id: str
    event_time_ms: int
    new: bool = False


@dataclass(frozen=True)
class Gathered:
    """Answers in the order of the questions. `labels` are verdicts that came before their transaction."""

    rows: Mapping[str, Sequence[bytes | None]]
    decisions: Sequence[Decision | None]
    labels: Sequence[Label | None]
    parked_version: int


@dataclass(frozen=True)
class Commit:
    """Everything one micro-batch changes. Applied whole or not at all.

    `advances` are its partitions, each once; `rows` are (entity, key, row) of owned keys; `shared` are (entity, update);
    `parked` are the early labels that were joined; `counts` are added to the store's counters; `census` are (name, row)
    of the partitions' censuses, owned as `rows` are.
    """

    advances: Sequence[Advance]
    decisions: Sequence[Decision]
    rows: Sequence[tuple[str, str, bytes]]
    shared: Sequence[tuple[str, SharedUpdate]]
    parked: Sequence[Label]
    parked_version: int
    counts: Mapping[str, int] = field(default_factory=dict)
    census: Sequence[tuple[str, bytes]] = ()


class CommitStatus(Enum):
    """How a commit ended. One of several partitions answers CONFLICT where they do not all end the same way: each of them
    has its own answer once it is committed by itself.
    """

    APPLIED = "applied"
    FENCED = "fenced"  # another worker took the partition: drop the batch
    CONFLICT = "conflict"  # nothing was applied, as the state moved between gather and commit: gather again
    REWOUND = "rewound"  # the store's watermark is not the one this worker left: it lost data; take the lease anew


@dataclass(frozen=True)
class LabelStep:
    """One record of a partition of labels, to be settled.

    With a `decision` the label is joined, and `shared` are the fraud counts to add, once; `late` if the decision came from
    an index and not from the store, which then only keeps the verdict. Without one it is parked. A rejected record is
    only counted.
    """

    offset: int
    label: Label | Rejected
    decision: Decision | None = None
    shared: Sequence[tuple[str, SharedUpdate]] = ()
    late: bool = False


class LabelStatus(Enum):
    """How a label record ended."""

    JOINED = "joined"
    PARKED = "parked"  # its transaction was not decided yet
    LATE = "late"  # joined with a decision that the store has dropped
    DUPLICATE = "duplicate"  # the same verdict again
    CHANGED = "changed"  # another verdict than the first: counted, the first one stands
    ORPHAN = "orphan"  # no decision, and no room to wait for it
    REJECTED = "rejected"  # no label


class StateStore(Protocol):
    """Where the state lives. Every method raises `StateUnavailable` if the store does not answer or refuses."""

    def take_lease(self, partition: int) -> Lease:
        """Take a new fence number for the partition, then read its watermark: fence before restore."""

    def gather(self, keys: Mapping[str, Sequence[str]], sightings: Sequence[Sighting]) -> Gathered:
        """Rows of the keys of each entity, stored decisions and early labels of the transactions.

        Under `census.CENSUS` the keys are names of censuses.
        """

    def commit(self, commit: Commit) -> CommitStatus:
        """Apply a micro-batch atomically, if its leases still hold."""

    def decision(self, transaction_id: str) -> Decision | None:
        """The stored decision of a transaction, if it is within the retention; the one of the earliest event time if
        there are two (the same id came again with a time far from the first: see `decisions/state.md`).
        """

    def gather_decisions(self, transaction_ids: Sequence[str]) -> Sequence[Decision | None]:
        """`decision` for many."""

    def rows(self, keys: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[bytes | None]]:
        """Rows alone."""

    def labels_settled(self, partition: int) -> int:
        """The offset up to which the records of a partition of labels were settled."""

    def settle_labels(self, partition: int, steps: Sequence[LabelStep], *, after: int) -> Sequence[LabelStatus] | None:
        """Settle records of one partition of labels in their order, each an atomic step with its counter.

        A status for each that was settled: fewer than were asked for if the state had moved under the next one (gather
        again for what is left). A record settled before, as after a redelivery, is not counted again. None, and nothing
        done, if the store does not know that `after` was settled: it lost data, and the labels since have to be read again.
        """

    def claim_examples(self, count: int) -> Sequence[Label]:
        """Labels that are joined but whose example nobody is known to have published: up to `count`, claimed for a
        while, so that of several label workers one publishes them. `settle_labels` leaves them to its caller as long.
        """

    def settle_examples(self, labels: Sequence[Label]) -> None:
        """The examples of these labels are published."""

    def load_rows(self, entity: str, rows: Mapping[str, bytes]) -> None:
        """Write rows of history, as a warm-up does before the first transaction."""

    def counts(self) -> Mapping[str, int]:
        """The counters that commits have added up."""

    def watermarks(self) -> Mapping[int, int]:
        """The watermark of every partition that had a lease and from which something was applied."""


@dataclass(frozen=True)
class Scores:
    """Probabilities of fraud, one for each row: the one to decide with, and what it was made of.

    `online` is None where there is no online model to ask.
    """

    score: FloatArray
    champion: FloatArray
    online: FloatArray | None = None

    @classmethod
    def alone(cls, champion: FloatArray) -> "Scores":
        """The champion decides by itself."""
        return cls(champion, champion)


class DecisionIndex(Protocol):
    """Decisions that the state store has dropped."""

    def find(self, transaction_ids: Sequence[str]) -> Sequence[Decision | None]:
        """The decisions of transactions, the one of the earliest event time if there are two.

        Raises `StateUnavailable`, and `StillBuilding` while "there is none" cannot be told from "not read yet".
        """


class Model(Protocol):
    """A model version that can decide."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def features_digest(self) -> str: ...
    @property
    def review_threshold(self) -> float: ...
    @property
    def block_threshold(self) -> float: ...
    @property
    def monitor(self) -> Monitor | None:
        """What is counted of its transactions; None counts nothing."""

    def score(self, matrix: npt.NDArray[np.float32]) -> Scores:
        """Probabilities of fraud for each row of an (n, features) matrix."""

    def reasons(self, matrix: npt.NDArray[np.float32]) -> Sequence[tuple[Contribution, ...]]:
        """Up to four reasons for each row, the largest first; called for alerts only."""


@dataclass(frozen=True)
class LearnerLease:
    """The right to write the learner's state, and that state: its parts, and the offset it has learned up to.

    `epoch` grows with each rebuild from the topic; parts are empty before the first commit of an epoch.
    """

    fence: int
    epoch: int
    watermark: int
    parts: Mapping[str, bytes]


@dataclass(frozen=True)
class LearnerCommit:
    """Everything one batch of examples changes: parts of the state, the offset, and which transactions were seen."""

    lease: LearnerLease
    watermark: int
    parts: Mapping[str, bytes]
    seen: Sequence[Sighting]


class LearnerStore(Protocol):
    """Where the learner's state lives. Every method raises `StateUnavailable` if the store does not answer."""

    def take(self) -> LearnerLease:
        """Take a new fence number, then read the state: fence before restore."""

    def begin_anew(self, lease: LearnerLease, *, from_offset: int) -> LearnerLease | None:
        """Drop the state for one that has learned nothing and begins at `from_offset`; None if the lease is lost."""

    def seen(self, lease: LearnerLease, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """Which of these transactions were learned from in this epoch."""

    def commit(self, commit: LearnerCommit) -> CommitStatus:
        """Write the state atomically, if the lease holds and the state is where it left it; never CONFLICT."""

    def read(self, known: str, names: Sequence[str]) -> tuple[str, Mapping[str, bytes]] | None:
        """These parts of the newest state, with the name of its version; None if that is `known`."""


class Outgoing(Struct, frozen=True, gc=False):
    """One record to publish, and what to publish instead if the topic refuses it as too large."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None = None
    smaller: "Outgoing | None" = None


class Publisher(Protocol):
    """Publishes and waits: when `publish` returns, every record is acknowledged by all in-sync replicas.

    Raises `BrokerUnavailable` otherwise; publishing the same again is safe, consumers see the same id and content.
    """

    def publish(self, messages: Sequence[Outgoing]) -> None: ...

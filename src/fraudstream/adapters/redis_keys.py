"""Where everything lies in Redis. Every key of a shard carries the same hash tag, so that one script may touch them.

Decisions lie in many small hashes, `decisions:<generation>:<slot>`: the generation is the stretch of event time they
belong to, so that retention drops whole keys, the slot a hash of the transaction id. A small hash is stored as one
compact block, several times smaller than a key for each decision.
"""

import zlib

from msgspec import Struct

from fraudstream.core.features import DAY_MS, Entity, FeatureSet

# Entries a slot is planned for. Redis walks through a slot to find an entry: 64 entries save 4 bytes a decision against
# 16 and cost 2 to 3 µs of its CPU more. Far below `hash-max-listpack-entries` (128), where Redis would turn it into a table.
SLOT_ENTRIES_PLANNED = 16
# A late label's verdict is some 20 bytes, and few labels are late: several slots share a hash. Even if every label were
# late, 64 verdicts to a hash stay below `hash-max-listpack-entries`.
SLOTS_OF_LATE_VERDICTS = 4
# A producer's retry may carry a new event_time; it is recognised as the same transaction within this much of the first.
RETRY_HORIZON_MS = 3_600_000
# Who joins a label publishes its example. If that was not settled for this long (more than a publisher waits),
# the worker is gone, and any label worker does it.
EXAMPLE_CLAIM_MS = 45_000
# A row outlives its longest window by a day, so that clocks that differ never make it vanish early.
ROW_TTL_MARGIN_MS = DAY_MS
# A week and the day before it can be looked at, and a day is left for workers that are behind.
CENSUS_TTL_MS = 9 * DAY_MS


class StoreSettings(Struct, frozen=True):
    """How the state is kept.

    `prefix` names this system's keys; `retention_ms` how long decisions are kept (event time; rounded up to whole
    generations of a fifth); `transactions_per_day` the expected volume, which sizes the slots; `parked_labels_max` how
    many labels may wait for their transaction, `parked_ttl_ms` how long: a label whose transaction was dropped with the
    retention, or never came, must not take the room for good. `late_retention_ms` is that of the index of late labels:
    the verdict on a decision of it is kept as long.
    """

    prefix: str = "fraudstream"
    retention_ms: int = 30 * DAY_MS
    transactions_per_day: int = 1_000_000
    parked_labels_max: int = 1_000_000
    parked_ttl_ms: int = 7 * DAY_MS
    late_retention_ms: int = 180 * DAY_MS


def row_ttl_ms(features: FeatureSet) -> int:
    """How long the row of an idle key is kept."""
    return features.horizon_ms + ROW_TTL_MARGIN_MS


class Keys:
    """Names of keys, as bytes: they are joined to arguments by the thousand."""

    def __init__(self, settings: StoreSettings) -> None:
        prefix = f"{settings.prefix}:{{0}}:".encode()
        self._prefix = prefix
        self.generation_ms = max(settings.retention_ms // 5, 3_600_000)
        per_generation = settings.transactions_per_day * self.generation_ms / DAY_MS
        self.slots = max(1, round(per_generation / SLOT_ENTRIES_PLANNED))
        self.meta = prefix + b"meta"
        self.counters = prefix + b"counters"
        self.parked = prefix + b"labels:parked"
        self.parked_version = prefix + b"labels:parked:version"
        self.parked_times = prefix + b"labels:parked:times"
        self.labels_settled = prefix + b"labels:settled"
        self.labels_late = prefix + b"labels:late:"
        self.generations = prefix + b"decisions:generations"
        self.examples_due = prefix + b"examples:due"
        self.models = prefix + b"models"
        self.models_last = prefix + b"models:last"
        self.decisions = prefix + b"decisions:"
        self.partitions = prefix + b"partitions"
        self.census = prefix + b"census:"
        self.learner_fence = prefix + b"learner:fence"
        self.learner_no_watermark = prefix + b"learner:fence:none"  # never written: the watermark is in the state
        self.learner_state = prefix + b"learner:state"
        self.learner_seen = prefix + b"learner:seen:"
        self.watch = prefix + b"drift"
        self.watch_lease = prefix + b"drift:lease"

    def fence(self, partition: int) -> bytes:
        return b"%spartition:%d:fence" % (self._prefix, partition)

    def watermark(self, partition: int) -> bytes:
        return b"%spartition:%d:watermark" % (self._prefix, partition)

    def rows(self, entity: Entity) -> bytes:
        """What the keys of an entity's rows begin with; the key's own value follows.

        A changed feature list begins with empty rows of its own, beside those of the old one.
        """
        return b"%srow:%s:" % (self._prefix, entity.state_digest.encode())

    def slot(self, transaction_id: bytes) -> bytes:
        """The slot of a transaction, the same in every generation."""
        return b"%d" % (zlib.crc32(transaction_id) % self.slots)

    def decision(self, generation: int, transaction_id: bytes) -> bytes:
        """The key of the hash that holds, or would hold, the decision of a transaction."""
        return b"%s%d:%d" % (self.decisions, generation, zlib.crc32(transaction_id) % self.slots)

    def late_verdicts(self, event_time_ms: int, transaction_id: bytes) -> bytes:
        """The key of the hash that holds the verdict of a late label."""
        slot = zlib.crc32(transaction_id) % max(1, self.slots // SLOTS_OF_LATE_VERDICTS)
        return b"%s%d:%d" % (self.labels_late, self.generation(event_time_ms), slot)

    def generation(self, event_time_ms: int) -> int:
        return event_time_ms // self.generation_ms

    def generations_near(self, event_time_ms: int) -> list[int]:
        """The generation of an event time first, then a neighbour whose edge is within the retry horizon."""
        own = self.generation(event_time_ms)
        into = event_time_ms - own * self.generation_ms
        near = [own]
        if into < RETRY_HORIZON_MS:
            near.append(own - 1)
        if self.generation_ms - into <= RETRY_HORIZON_MS:
            near.append(own + 1)
        return near

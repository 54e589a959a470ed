"""The state store on Redis: one round trip to gather, one script to commit. Contract: `fraudstream.core.ports`.

Retries, zombies and crashes are the script's business (`commit.lua`): it refuses a stale fence, knows a commit it has
already applied, and applies a batch whole or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import redis

from fraudstream.adapters.redis_arguments import Arguments, example, label_step, update_arguments
from fraudstream.adapters.redis_client import ScriptedRedis, text, unavailable
from fraudstream.adapters.redis_keys import CENSUS_TTL_MS, EXAMPLE_CLAIM_MS, Keys, StoreSettings, row_ttl_ms
from fraudstream.adapters.redis_wire import Wire
from fraudstream.codec import ModelIdentity, pack_decision, unpack_decision
from fraudstream.core.census import CENSUS
from fraudstream.core.features import FeatureSet
from fraudstream.core.ports import (
    NO_OFFSET,
    Commit,
    CommitStatus,
    Gathered,
    LabelStatus,
    LabelStep,
    Lease,
    Sighting,
)
from fraudstream.core.updates import SharedUpdate
from fraudstream.errors import SettingsError
from fraudstream.events import Decision, Label

WARM_UP_ROWS_PER_CALL: Final = 1_000
_read_label: Final = msgspec.msgpack.Decoder(Label).decode
_SCRIPTS: Final = ("lease", "commit", "gather", "find", "join_labels", "claim_examples")
# Lengths as the scripts read them: a table is twice as fast as packing each anew. No id, key, row or decision is longer.
_LENGTHS: Final = [length.to_bytes(2, "big") for length in range(65_536)]


class RedisStore(ScriptedRedis):
    """State of one feature list in Redis.

    `url` as redis-py reads it (`redis://`, `rediss://`, `unix://`); `timeout_s` bounds every call. Connecting is lazy:
    `check` asks the server and raises `SettingsError` if it would lose state (an evicting memory policy).
    """

    def __init__(
        self, url: str, features: FeatureSet, settings: StoreSettings | None = None, *, timeout_s: float = 5.0
    ) -> None:
        settings = settings or StoreSettings()
        super().__init__(url, _SCRIPTS, timeout_s=timeout_s)
        self._wire = Wire(self.client)
        self._settings = settings
        self._layouts = {entity.name: entity.layout for entity in features.entities}
        self._row_ttl_ms = row_ttl_ms(features)
        keys = Keys(settings)
        self._row_prefixes = {entity.name: keys.rows(entity) for entity in features.entities}
        self._row_prefixes[CENSUS] = keys.census
        self._keys_known: Keys | None = None
        self._model_refs: dict[ModelIdentity, int] = {}
        self._models: dict[int, ModelIdentity] = {}

    @unavailable
    def check(self) -> None:
        """Ask the server whether it can keep state. Raises `SettingsError` or `StateUnavailable`."""
        self.client.ping()
        try:
            policy = self.client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
        except redis.ResponseError:  # managed servers hide CONFIG; their operator has to know
            return
        if policy != "noeviction":
            raise SettingsError(
                f"Redis evicts keys (maxmemory-policy {policy}): set it to noeviction, or state is lost"
            )

    @unavailable
    def take_lease(self, partition: int) -> Lease:
        # The moment after which Redis may be another one, or an older one of itself: ask it again what it knows.
        self._keys_known = None
        self._forget_models()
        self._settle_keys()
        self.client.sadd(self._keys.partitions, partition)
        fence, watermark = self._run("lease", [self._keys.fence(partition), self._keys.watermark(partition)])
        return Lease(partition, int(fence), NO_OFFSET if watermark is None else int(watermark))

    @unavailable
    def gather(self, keys: Mapping[str, Sequence[str]], sightings: Sequence[Sighting]) -> Gathered:
        names = self._keys
        parts: list[bytes] = []
        asked: list[int] = []  # which sighting a question is about
        for number, sighting in enumerate(sightings):
            if sighting.new:
                continue
            transaction_id = sighting.transaction_id.encode()
            for generation in names.generations_near(sighting.event_time_ms):
                slot = names.decision(generation, transaction_id)
                parts += (_LENGTHS[len(slot)], slot, _LENGTHS[len(transaction_id)], transaction_id)
                asked.append(number)
        ids = msgspec.json.encode([sighting.transaction_id for sighting in sightings])
        looked_for = names.parked, names.parked_version, b"".join(parts), ids
        entities, questions = self._row_questions(keys)
        (version, stored, parked), *rows = self._wire.ask(("EVALSHA", self._sha("gather"), 2, *looked_for), *questions)
        decisions: list[Decision | None] = [None] * len(sightings)
        labels: list[Label | None] = [None] * len(sightings)
        for position, packed in zip(stored[::2], stored[1::2], strict=True):
            number = asked[position]
            if decisions[number] is None:  # of several generations the transaction's own comes first
                decisions[number] = unpack_decision(sightings[number].transaction_id, packed, self._model)
        for number, label in zip(parked[::2], parked[1::2], strict=True):
            labels[number] = _read_label(memoryview(label)[1:])
        return Gathered(_by_entity(keys, entities, rows), decisions, labels, int(version))

    @unavailable
    def commit(self, commit: Commit) -> CommitStatus:
        keys = self._keys
        slots: dict[str, bytes] = {}
        generations: dict[int, None] = {}
        models: dict[ModelIdentity, int] = {}
        refs: dict[tuple[str, str, str], int] = {}
        decisions: list[bytes] = []
        rivals: list[bytes] = []
        for decision in commit.decisions:
            generation, *near = keys.generations_near(decision.event_time_ms)
            generations[generation] = None
            of_model = decision.model_name, decision.model_version, decision.features_digest
            ref = refs.get(of_model)
            if ref is None:
                identity = ModelIdentity(*of_model)
                ref = refs[of_model] = models[identity] = self._model_ref(identity)
            transaction_id = decision.transaction_id.encode()
            slot = slots[decision.transaction_id] = keys.decision(generation, transaction_id)
            packed = pack_decision(decision, ref)
            decisions += (_LENGTHS[len(slot)], slot, _LENGTHS[len(transaction_id)], transaction_id)
            decisions += (_LENGTHS[len(packed)], packed)
            for neighbour in near:
                slot = keys.decision(neighbour, transaction_id)
                rivals += (_LENGTHS[len(slot)], slot, _LENGTHS[len(transaction_id)], transaction_id)
        rows = _pairs(self._row_prefixes, commit.rows)
        census = _pairs(self._row_prefixes, ((CENSUS, name, row) for name, row in commit.census))
        shared, updates = self._shared(commit.shared)
        arguments: Arguments = [
            commit.parked_version, self._row_ttl_ms, self._decision_ttl_ms,
            b"".join(decisions), b"".join(rivals), rows, b"".join(shared), CENSUS_TTL_MS, census,
            len(commit.advances), len(generations), len(models), len(commit.parked), len(commit.counts),
            *chain.from_iterable((of.lease.fence, of.lease.watermark, of.watermark) for of in commit.advances),
            *generations,
            *chain.from_iterable((msgspec.json.encode(identity), ref) for identity, ref in models.items()),
            *chain.from_iterable(
                (slots[x.transaction_id], x.transaction_id, int(x.is_fraud), example(x)) for x in commit.parked
            ),
            *chain.from_iterable(commit.counts.items()), *updates,
        ]  # fmt: skip
        names = [
            keys.counters, keys.parked, keys.parked_version, keys.parked_times, keys.generations, keys.models,
            keys.examples_due,
        ]  # fmt: skip
        for advance in commit.advances:
            partition = advance.lease.partition
            names += (keys.fence(partition), keys.watermark(partition))
        (answer,) = self._wire.ask(("EVALSHA", self._sha("commit"), len(names), *names, *arguments))
        status = CommitStatus(text(answer[0]))
        if status is CommitStatus.CONFLICT:
            self._forget_models()  # perhaps their numbers are what it was about
        return status

    def decision(self, transaction_id: str) -> Decision | None:
        return self.gather_decisions([transaction_id])[0]

    @unavailable
    def gather_decisions(self, transaction_ids: Sequence[str]) -> list[Decision | None]:
        keys = self._keys
        parts: list[bytes] = []
        for name in transaction_ids:
            transaction_id = name.encode()
            slot = keys.slot(transaction_id)
            parts += (_LENGTHS[len(slot)], slot, _LENGTHS[len(transaction_id)], transaction_id)
        found = self._run("find", [keys.generations], keys.decisions, b"".join(parts))
        return [
            None if packed is None else unpack_decision(name, packed, self._model)
            for name, packed in zip(transaction_ids, found, strict=True)
        ]

    @unavailable
    def rows(self, keys: Mapping[str, Sequence[str]]) -> dict[str, Sequence[bytes | None]]:
        entities, questions = self._row_questions(keys)
        return _by_entity(keys, entities, self._wire.ask(*questions) if questions else [])

    @unavailable
    def labels_settled(self, partition: int) -> int:
        self._keys_known = None  # as when a lease is taken: Redis may be another one by now
        settled: Any = self.client.hget(self._keys.labels_settled, str(partition))
        return NO_OFFSET if settled is None else int(settled)

    @unavailable
    def settle_labels(self, partition: int, steps: Sequence[LabelStep], *, after: int) -> list[LabelStatus] | None:
        keys = self._keys
        arguments: Arguments = [
            self._settings.parked_labels_max, self._settings.parked_ttl_ms, self._row_ttl_ms, keys.decisions,
            self._settings.late_retention_ms + keys.generation_ms, partition, after, EXAMPLE_CLAIM_MS, len(steps),
        ]  # fmt: skip
        for step in steps:
            arguments += label_step(step, keys, self._row_prefixes, self._layouts)
        names = [
            keys.parked, keys.parked_version, keys.parked_times, keys.generations, keys.counters, keys.labels_settled,
            keys.examples_due,
        ]  # fmt: skip
        answers = self._run("join_labels", names, *arguments)
        return None if answers is None else [LabelStatus(text(answer).partition(".")[0]) for answer in answers]

    @unavailable
    def claim_examples(self, count: int) -> list[Label]:
        found = self._run("claim_examples", [self._keys.examples_due], count, EXAMPLE_CLAIM_MS)
        return [_read_label(packed) for packed in found]

    @unavailable
    def settle_examples(self, labels: Sequence[Label]) -> None:
        if labels:
            self.client.zrem(self._keys.examples_due, *map(example, labels))

    @unavailable
    def load_rows(self, entity: str, rows: Mapping[str, bytes]) -> None:
        prefix = self._row_prefixes[entity]
        items = list(rows.items())
        for start in range(0, len(items), WARM_UP_ROWS_PER_CALL):
            pipe = self.client.pipeline(transaction=False)
            for key, row in items[start : start + WARM_UP_ROWS_PER_CALL]:
                pipe.set(prefix + key.encode(), row, px=self._row_ttl_ms)
            pipe.execute()

    @unavailable
    def counts(self) -> dict[str, int]:
        return {text(name): int(n) for name, n in self.client.hgetall(self._keys.counters).items()}

    @unavailable
    def watermarks(self) -> dict[int, int]:
        partitions = sorted(int(number) for number in self.client.smembers(self._keys.partitions))
        if not partitions:
            return {}
        found = self.client.mget([self._keys.watermark(partition) for partition in partitions])
        return {p: int(at) for p, at in zip(partitions, found, strict=True) if at is not None}

    @property
    def _decision_ttl_ms(self) -> int:
        return self._settings.retention_ms + self._keys.generation_ms

    @property
    def _keys(self) -> Keys:
        """The key scheme. Slots were sized by the first lease: with others, stored decisions would not be found.

        Before that lease there is nothing to find, and whoever only looks must not settle what workers live with.
        """
        if self._keys_known is not None:
            return self._keys_known
        keys = Keys(self._settings)
        slots, generation_ms = self.client.hmget(keys.meta, ["slots", "generation_ms"])
        if slots is not None and generation_ms is not None:
            keys.slots, keys.generation_ms = int(slots), int(generation_ms)
            self._keys_known = keys
        return keys

    def _settle_keys(self) -> None:
        keys = Keys(self._settings)
        pipe = self.client.pipeline()
        pipe.hsetnx(keys.meta, "slots", keys.slots)
        pipe.hsetnx(keys.meta, "generation_ms", keys.generation_ms)
        pipe.execute()

    def _row_questions(self, keys: Mapping[str, Sequence[str]]) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The entities that have keys, and the question for the rows of each."""
        asked = [entity for entity, wanted in keys.items() if wanted]
        questions: list[tuple[Any, ...]] = []
        for entity in asked:
            prefix = self._row_prefixes[entity]
            questions.append(("MGET", *[prefix + key.encode() for key in keys[entity]]))
        return asked, questions

    def _shared(self, shared: Sequence[tuple[str, SharedUpdate]]) -> tuple[list[bytes], Arguments]:
        """The keys with the place of their update, and the updates: one may be that of many keys."""
        parts: list[bytes] = []
        updates: Arguments = []
        for entity, update in shared:
            place = len(updates).to_bytes(4, "big")
            updates += update_arguments(self._layouts[entity], update)
            prefix = self._row_prefixes[entity]
            for name in update.keys:
                key = prefix + name.encode()
                parts += (_LENGTHS[len(key)], key, place)
        return parts, updates

    def _model_ref(self, identity: ModelIdentity) -> int:
        """A small number for a model's name, version and feature digest, so that no decision repeats them."""
        ref = self._model_refs.get(identity)
        if ref is None:
            self._load_models()
            ref = self._model_refs.get(identity)
        if ref is None:
            self.client.hsetnx(
                self._keys.models, msgspec.json.encode(identity), self.client.incr(self._keys.models_last)
            )
            self._load_models()
            ref = self._model_refs[identity]
        return ref

    def _load_models(self) -> None:
        for packed, ref in self.client.hgetall(self._keys.models).items():
            identity = msgspec.json.decode(packed, type=ModelIdentity)
            self._model_refs[identity] = int(ref)
            self._models[int(ref)] = identity

    def _forget_models(self) -> None:
        self._model_refs, self._models = {}, {}

    def _model(self, ref: int) -> ModelIdentity:
        if ref not in self._models:
            self._load_models()
        return self._models[ref]


def _pairs(prefixes: Mapping[str, bytes], rows: Iterable[tuple[str, str, bytes]]) -> bytes:
    """Rows behind their keys, as one blob (`PAIR` in `common.lua`)."""
    parts: list[bytes] = []
    for entity, name, row in rows:
        key = prefixes[entity] + name.encode()
        parts += (_LENGTHS[len(key)], key, _LENGTHS[len(row)], row)
    return b"".join(parts)


def _by_entity(
    keys: Mapping[str, Sequence[str]], asked: Iterable[str], answers: Iterable[Sequence[bytes | None]]
) -> dict[str, Sequence[bytes | None]]:
    found = dict(zip(asked, answers, strict=True))
    return {entity: found.get(entity, []) for entity in keys}

"""The state store on Redis: one round trip to gather, one script to commit. Contract: `fraudstream.core.ports`.

Retries, zombies and crashes are the script's business (`commit.lua`): it refuses a stale fence, knows a commit it has
already applied, and applies a batch whole or not at all.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.resources import files
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraudstream.adapters.redis_keys import Keys, StoreSettings, row_ttl_ms
from fraudstream.codec import ModelIdentity, pack_decision, unpack_decision
from fraudstream.core.features import Entity, FeatureSet
from fraudstream.core.ports import (
    NO_OFFSET,
    Commit,
    CommitStatus,
    Gathered,
    LabelCommit,
    LabelStatus,
    Lease,
    Sighting,
)
from fraudstream.core.updates import SharedUpdate
from fraudstream.errors import SettingsError, StateUnavailable
from fraudstream.events import Decision, Label

P = ParamSpec("P")
R = TypeVar("R")
Arguments = list[Any]

# Slots whose time-to-live this process has set; beyond this many it forgets and sets them again, which is harmless.
SLOTS_REMEMBERED_MAX = 200_000
WARM_UP_ROWS_PER_CALL = 1_000

_GET_MANY = """
local found = {}
for i = 1, #ARGV, 2 do found[#found + 1] = redis.call('HGET', ARGV[i], ARGV[i + 1]) end
return found
"""


def _unavailable(method: Callable[Concatenate["RedisStore", P], R]) -> Callable[Concatenate["RedisStore", P], R]:
    """Turn every failure of Redis into `StateUnavailable`, after loading the scripts again where it lost them."""

    @wraps(method)
    def guarded(self: "RedisStore", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            try:
                return method(self, *args, **kwargs)
            except redis.exceptions.NoScriptError:
                self.load_scripts()
                return method(self, *args, **kwargs)
        except redis.RedisError as error:
            raise StateUnavailable(f"Redis: {error or type(error).__name__}") from error

    return guarded


class RedisStore:
    """State of one feature list in Redis.

    `url` as redis-py reads it (`redis://`, `rediss://`, `unix://`); `timeout_s` bounds every call. Connecting is lazy:
    `check` asks the server and raises `SettingsError` if it would lose state (an evicting memory policy).
    """

    def __init__(
        self, url: str, features: FeatureSet, settings: StoreSettings | None = None, *, timeout_s: float = 5.0
    ) -> None:
        settings = settings or StoreSettings()
        # No retries inside the client: who retries, and how long, is the worker's decision.
        self.client = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        self._settings = settings
        self._entities = {entity.name: entity for entity in features.entities}
        self._row_ttl_ms = row_ttl_ms(features)
        self._keys_known: Keys | None = None
        self._model_refs: dict[ModelIdentity, int] = {}
        self._models: dict[int, ModelIdentity] = {}
        self._slots_set: set[str] = set()
        lua = files("fraudstream.adapters")
        self._scripts = {
            "commit": lua.joinpath("commit.lua").read_text("utf-8"),
            "join_labels": lua.joinpath("join_labels.lua").read_text("utf-8"),
            "get_many": _GET_MANY,
        }
        self._shas: dict[str, str] = {}

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    @_unavailable
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

    def load_scripts(self) -> None:
        """Load the scripts; their names are their digests, so a server that lost them is told again."""
        self._shas = {name: str(_text(self.client.script_load(text))) for name, text in self._scripts.items()}

    @_unavailable
    def take_lease(self, partition: int) -> Lease:
        fence = int(self.client.incr(self._keys.fence(partition)))
        applied = self.client.get(self._keys.watermark(partition))
        return Lease(partition, fence, NO_OFFSET if applied is None else int(applied))

    @_unavailable
    def gather(self, keys: Mapping[str, Sequence[str]], sightings: Sequence[Sighting]) -> Gathered:
        pipe = self.client.pipeline(transaction=False)
        asked = self._ask_rows(pipe, keys)
        questions: Arguments = []
        spans = []
        for sighting in sightings:
            near = self._keys.generations_near(sighting.event_time_ms)
            for generation in near:
                key = self._keys.decisions(generation, sighting.transaction_id)
                questions += (key, "D" + sighting.transaction_id)
            spans.append(len(near))
        if sightings:
            pipe.execute_command("EVALSHA", self._sha("get_many"), 0, *questions)
            pipe.hmget(self._keys.parked, [s.transaction_id for s in sightings])
        pipe.get(self._keys.parked_version)
        answers = pipe.execute()
        rows = {name: answers[at] if at is not None else [] for name, at in asked.items()}
        version = int(answers[-1] or 0)
        if not sightings:
            return Gathered(rows, [], [], version)
        found, parked = answers[-3], answers[-2]
        decisions = []
        at = 0
        for sighting, span in zip(sightings, spans, strict=True):
            packed = next((p for p in found[at : at + span] if p is not None), None)
            decisions.append(None if packed is None else self._unpack(sighting.transaction_id, packed))
            at += span
        labels = [None if p is None else msgspec.msgpack.decode(p, type=Label) for p in parked]
        return Gathered(rows, decisions, labels, version)

    @_unavailable
    def commit(self, commit: Commit) -> CommitStatus:
        keys = self._keys
        lease = commit.lease
        decisions: Arguments = []
        generations: dict[int, None] = {}
        new_slots = []
        for decision in commit.decisions:
            generation = keys.generation(decision.event_time_ms)
            slot = keys.decisions(generation, decision.transaction_id)
            fresh = slot not in self._slots_set
            if fresh:
                new_slots.append(slot)
                generations[generation] = None
            packed = pack_decision(decision, self._model_ref(decision))
            decisions += (slot, decision.transaction_id, packed, b"1" if fresh else b"0")
        expiry_ms = int(time.time() * 1000) + self._decision_ttl_ms
        rows = [x for entity, key, row in commit.rows for x in (keys.row(self._entities[entity], key), row)]
        shared = [x for entity, update in commit.shared for x in self._shared(self._entities[entity], update)]
        by_id = {decision.transaction_id: decision for decision in commit.decisions}
        joined: Arguments = []
        for label in commit.parked:
            generation = keys.generation(by_id[label.transaction_id].event_time_ms)
            slot = keys.decisions(generation, label.transaction_id)
            joined += (slot, label.transaction_id, int(label.is_fraud))
        arguments: Arguments = [
            lease.fence, lease.watermark, commit.watermark, commit.parked_version, self._row_ttl_ms,
            self._decision_ttl_ms, len(commit.decisions), len(generations), len(commit.rows), len(commit.shared),
            len(commit.parked), len(commit.counts), *decisions,
            *(x for g in generations for x in (g, expiry_ms)), *rows, *shared, *joined,
            *(x for item in commit.counts.items() for x in item),
        ]  # fmt: skip
        names = [
            keys.fence(lease.partition), keys.watermark(lease.partition), keys.counters, keys.parked,
            keys.parked_version, keys.generations,
        ]  # fmt: skip
        answer = self.client.evalsha(self._sha("commit"), len(names), *names, *arguments)
        status = CommitStatus(_text(answer[0]))
        if status is CommitStatus.APPLIED:
            if len(self._slots_set) > SLOTS_REMEMBERED_MAX:
                self._slots_set.clear()
            self._slots_set.update(new_slots)
        return status

    def decision(self, transaction_id: str) -> Decision | None:
        return self.gather_decisions([transaction_id])[0]

    @_unavailable
    def gather_decisions(self, transaction_ids: Sequence[str]) -> list[Decision | None]:
        generations = self._generations()
        if not generations or not transaction_ids:
            return [None] * len(transaction_ids)
        questions = [
            x for name in transaction_ids for g in generations for x in (self._keys.decisions(g, name), "D" + name)
        ]
        found = self.client.evalsha(self._sha("get_many"), 0, *questions)
        width = len(generations)
        decisions = []
        for at, name in enumerate(transaction_ids):
            packed = next((p for p in found[at * width : (at + 1) * width] if p is not None), None)
            decisions.append(None if packed is None else self._unpack(name, packed))
        return decisions

    @_unavailable
    def rows(self, keys: Mapping[str, Sequence[str]]) -> dict[str, Sequence[bytes | None]]:
        pipe = self.client.pipeline(transaction=False)
        asked = self._ask_rows(pipe, keys)
        answers = pipe.execute()
        return {name: answers[at] if at is not None else [] for name, at in asked.items()}

    @_unavailable
    def commit_labels(self, joined: Sequence[LabelCommit], orphans: Sequence[Label]) -> list[LabelStatus]:
        keys = self._keys
        arguments: Arguments = [self._settings.parked_labels_max, len(joined), len(orphans), self._row_ttl_ms]
        for item in joined:
            name = item.label.transaction_id
            slot = keys.decisions(keys.generation(item.decision.event_time_ms), name)
            arguments += (slot, name, int(item.label.is_fraud), len(item.shared))
            for entity, update in item.shared:
                arguments += self._shared(self._entities[entity], update)
        generations = self._generations() if orphans else []
        for label in orphans:
            slots = [keys.decisions(generation, label.transaction_id) for generation in generations]
            arguments += (label.transaction_id, msgspec.msgpack.encode(label), len(slots), *slots)
        answers = self.client.evalsha(self._sha("join_labels"), 2, keys.parked, keys.parked_version, *arguments)
        return [LabelStatus(_text(answer)) for answer in answers]

    @_unavailable
    def load_rows(self, entity: str, rows: Mapping[str, bytes]) -> None:
        target = self._entities[entity]
        items = list(rows.items())
        for start in range(0, len(items), WARM_UP_ROWS_PER_CALL):
            pipe = self.client.pipeline(transaction=False)
            for key, row in items[start : start + WARM_UP_ROWS_PER_CALL]:
                pipe.set(self._keys.row(target, key), row, px=self._row_ttl_ms)
            pipe.execute()

    @_unavailable
    def counts(self) -> dict[str, int]:
        return {_text(name): int(n) for name, n in self.client.hgetall(self._keys.counters).items()}

    @property
    def _decision_ttl_ms(self) -> int:
        return self._settings.retention_ms + self._keys.generation_ms

    @property
    def _keys(self) -> Keys:
        """The key scheme. Slots were sized by whoever wrote first: with others, stored decisions would not be found."""
        if self._keys_known is None:
            keys = Keys(self._settings)
            meta = f"{self._settings.prefix}:{{0}}:meta"
            pipe = self.client.pipeline()
            pipe.hsetnx(meta, "slots", keys.slots)
            pipe.hsetnx(meta, "generation_ms", keys.generation_ms)
            pipe.hmget(meta, ["slots", "generation_ms"])
            slots, generation_ms = pipe.execute()[-1]
            keys.slots, keys.generation_ms = int(slots), int(generation_ms)
            self._keys_known = keys
        return self._keys_known

    def _sha(self, script: str) -> str:
        if not self._shas:
            self.load_scripts()
        return self._shas[script]

    def _ask_rows(self, pipe: Any, keys: Mapping[str, Sequence[str]]) -> dict[str, int | None]:
        asked: dict[str, int | None] = {}
        at = 0
        for name, values in keys.items():
            asked[name] = at if values else None
            if values:
                pipe.mget([self._keys.row(self._entities[name], value) for value in values])
                at += 1
        return asked

    def _shared(self, entity: Entity, update: SharedUpdate) -> Arguments:
        layout = entity.layout
        tokens = [x for kind, at, amount in update.adds for x in (b"INCRBY", kind, at, amount)]
        return [
            self._keys.row(entity, update.key), update.heads_seen, update.heads, layout.heads_bytes, layout.row_bytes,
            len(update.clears), len(tokens), *(x for clear in update.clears for x in clear), *tokens,
        ]  # fmt: skip

    def _generations(self) -> list[int]:
        now_ms = int(time.time() * 1000)
        return [int(g) for g in self.client.zrangebyscore(self._keys.generations, now_ms, "+inf")]

    def _model_ref(self, decision: Decision) -> int:
        """A small number for a model's name, version and feature digest, so that no decision repeats them."""
        identity = ModelIdentity(decision.model_name, decision.model_version, decision.features_digest)
        ref = self._model_refs.get(identity)
        if ref is None:
            self._load_models()
            ref = self._model_refs.get(identity)
        if ref is None:
            packed = msgspec.json.encode(identity)
            ref = int(self.client.incr(self._keys.models + ":last"))
            if not self.client.hsetnx(self._keys.models, packed, ref):
                ref = int(self.client.hget(self._keys.models, packed))
            self._model_refs[identity] = ref
            self._models[ref] = identity
        return ref

    def _load_models(self) -> None:
        for packed, ref in self.client.hgetall(self._keys.models).items():
            identity = msgspec.json.decode(packed, type=ModelIdentity)
            self._model_refs[identity] = int(ref)
            self._models[int(ref)] = identity

    def _unpack(self, transaction_id: str, packed: bytes) -> Decision:
        return unpack_decision(transaction_id, packed, self._model)

    def _model(self, ref: int) -> ModelIdentity:
        if ref not in self._models:
            self._load_models()
        return self._models[ref]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

"""The heart: what came in, what is known, what is decided. Pure: no clock, no client, no await.

    ask(features, arrivals)                          what must be gathered
    decide(features, model, ask, gathered, ...)      the decisions, and the commit that makes them true

A transaction is decided with everything before it in its partition and nothing after it, also inside one batch. A batch
may hold several partitions, one after the other.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from fraudstream.core.census import CENSUS, Monitor, Seen
from fraudstream.core.features import Columns, Entity, FeatureSet, keys_of
from fraudstream.core.ports import Advance, Commit, Gathered, Lease, Model, Scores, Sighting
from fraudstream.core.updates import SharedUpdate, apply_update, shared_updates
from fraudstream.core.windows import IntArray, Observed, States, add_frauds
from fraudstream.events import Action, Contribution, Decision, Example, Label, Transaction

_NEVER: Final = 2**63  # above every offset


class Arrival(Struct, frozen=True, gc=False):
    """A valid transaction, and where its record lies."""

    offset: int
    transaction: Transaction
    partition: int = 0


@dataclass(frozen=True)
class Question:
    """What must be known before a batch can be decided: the rows of `keys` (per entity, each once) and the sightings.

    `rejected` are the offsets, by partition, of the batch's records that are no transactions: they are counted.
    """

    arrivals: Sequence[Arrival]
    keys: Mapping[str, Sequence[str]]
    sightings: Sequence[Sighting]
    rejected: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class _Answer:
    """The decisions on a batch and what they were made from."""

    decisions: list[Decision]
    matrix: npt.NDArray[np.float32]
    scores: Scores
    actions: Sequence[Action]


@dataclass(frozen=True)
class Outcome:
    """What a batch came to. `repeated` are stored decisions to publish again, word for word."""

    decided: Sequence[Decision]
    repeated: Sequence[Decision]
    duplicates: int
    commit: Commit


def ask(
    features: FeatureSet,
    arrivals: Sequence[Arrival],
    *,
    new_above: Mapping[int, int] | None = None,
    monitor: Monitor | None = None,
    rejected: Mapping[int, Sequence[int]] | None = None,
) -> Question:
    """List what a batch needs from the state store; with a `monitor` also the censuses it will be counted in.

    Transactions of offsets above that of `new_above` for their partition are taken for new.
    """
    transactions = [arrival.transaction for arrival in arrivals]
    keys = {}
    for entity in features.entities:
        distinct = dict.fromkeys(keys_of(transactions, entity.field))
        keys[entity.name] = [key for key in distinct if key is not None]
    known = new_above or {}
    sightings = [
        Sighting(
            arrival.transaction.transaction_id,
            arrival.transaction.event_time_ms,
            arrival.offset > known.get(arrival.partition, _NEVER),
        )
        for arrival in arrivals
    ]
    rejected = rejected or {}
    if monitor:
        keys[CENSUS] = _census_names(monitor, arrivals, rejected)
    return Question(arrivals, keys, sightings, rejected)


def decide(
    features: FeatureSet,
    model: Model,
    question: Question,
    gathered: Gathered,
    *,
    advances: Sequence[Advance],
    now_ms: int,
    counts: Mapping[str, int],
) -> Outcome:
    """Decide a batch. `advances` are its partitions, each with the lease it is decided under; `counts` go into the commit."""
    leases = {advance.lease.partition: advance.lease for advance in advances}
    fresh, labels, repeated, duplicates = _sort_out(question, gathered, leases)
    transactions = [arrival.transaction for arrival in fresh]
    columns = features.columns(transactions)
    frauds = np.fromiter((label is not None and label.is_fraud for label in labels), np.int64, len(labels))
    observed, rows, shared, firsts = _observe(features, question, gathered, columns, frauds)
    answer = _answer(features, model, fresh, columns, observed, now_ms=now_ms) if fresh else None
    decided = answer.decisions if answer else []
    census = []
    if (monitor := model.monitor) and CENSUS in question.keys:
        census = _census(
            features,
            monitor,
            question,
            gathered,
            fresh=fresh,
            columns=columns,
            answer=answer,
            firsts=firsts,
            leases=leases,
        )
    tally = Counter(counts)
    parked = [label for label in labels if label is not None]
    tally.update({"decided": len(decided), "duplicates": duplicates, "labels.early": len(parked)})
    tally.update({f"action.{action}": n for action, n in Counter(d.action for d in decided).items()})
    # A decision of ours past the lease's watermark: this batch was applied, its answer lost. What is left of it may only
    # be answered as applied; on a store that has lost the decisions since the gather it must not count as the batch.
    applied = {of.partition for of in repeated if of.offset > leases[of.partition].watermark}
    commit = Commit(
        advances=[_advanced(advance, applied=advance.lease.partition in applied) for advance in advances],
        decisions=decided,
        rows=rows,
        shared=shared,
        parked=parked,
        parked_version=gathered.parked_version,
        counts={name: n for name, n in tally.items() if n},
        census=census,
    )
    return Outcome(decided, repeated, duplicates, commit)


def label_updates(
    features: FeatureSet,
    verdicts: Sequence[tuple[bool, Decision | None]],
    rows: Mapping[str, Mapping[str, bytes | None]],
) -> list[list[tuple[str, SharedUpdate]]]:
    """The fraud counts to add for each label: (is it fraud?, its decision if the store has it).

    `rows` holds the gathered rows by entity and key, for every entity with fraud windows.
    """
    found: list[list[tuple[str, SharedUpdate]]] = []
    # Joined one after the other, so a label expects its key's heads as the labels before it leave them.
    latest = {name: dict(of_entity) for name, of_entity in rows.items()}
    for is_fraud, decision in verdicts:
        shared: list[tuple[str, SharedUpdate]] = []
        found.append(shared)
        if decision is None or not is_fraud:
            continue
        for entity, key in fraud_keys(features, decision):
            row = latest[entity.name].get(key)
            states = States.from_rows(entity.layout, [row])
            first, when, one = np.zeros(1, np.int64), np.array([decision.event_time_ms]), np.ones(1, np.int64)
            add_frauds(states, first, when)
            updates = shared_updates([key], [row], states, first, when, amounts_minor=None, frauds=one)
            for update in updates:
                shared.append((entity.name, update))
                latest[entity.name][key] = apply_update(row, entity.layout, update)
    return found


def example_of(decision: Decision, label: Label) -> Example:
    """What can be learned from a decision and its verdict."""
    return Example(
        transaction_id=decision.transaction_id,
        card_id=decision.card_id,
        event_time_ms=decision.event_time_ms,
        label_time_ms=label.label_time_ms,
        is_fraud=label.is_fraud,
        source=label.source,
        amount=decision.amount,
        action=decision.action,
        score=decision.score,
        champion_score=decision.champion_score,
        online_score=decision.online_score,
        threshold=decision.threshold,
        model_name=decision.model_name,
        model_version=decision.model_version,
        features_digest=decision.features_digest,
        features=decision.features,
        degraded=decision.degraded,
    )


def fraud_keys(features: FeatureSet, decision: Decision) -> list[tuple[Entity, str]]:
    """The entities with fraud windows, and the decided transaction's key of each."""
    return [
        (entity, decision.card_id if entity.field == "card_id" else decision.terminal_id)
        for entity in features.entities
        if entity.counts_frauds
    ]


def _sort_out(
    question: Question, gathered: Gathered, leases: Mapping[int, Lease]
) -> tuple[list[Arrival], list[Label | None], list[Decision], int]:
    """Tell new transactions from redelivered ones and from a producer's retries."""
    fresh: list[Arrival] = []
    labels: list[Label | None] = []
    repeated: list[Decision] = []
    duplicates = 0
    seen: set[str] = set()
    for arrival, stored, label in zip(question.arrivals, gathered.decisions, gathered.labels, strict=True):
        name = arrival.transaction.transaction_id
        if stored is not None and (stored.partition, stored.offset) == (arrival.partition, arrival.offset):
            # This very record was decided: before a crash, before a rebalance, or by a commit whose answer was lost.
            repeated.append(stored)
        elif arrival.offset <= leases[arrival.partition].watermark:
            pass  # applied as a duplicate, and counted then
        elif stored is not None or name in seen:
            duplicates += 1
        else:
            seen.add(name)
            fresh.append(arrival)
            labels.append(label)
    return fresh, labels, repeated, duplicates


def _advanced(advance: Advance, *, applied: bool) -> Advance:
    last = max(advance.watermark, advance.lease.watermark)
    return Advance(replace(advance.lease, watermark=last) if applied else advance.lease, last)


def _observe(
    features: FeatureSet, question: Question, gathered: Gathered, columns: Columns, frauds: IntArray
) -> tuple[dict[str, Observed], list[tuple[str, str, bytes]], list[tuple[str, SharedUpdate]], dict[str, IntArray]]:
    observed: dict[str, Observed] = {}
    rows: list[tuple[str, str, bytes]] = []
    shared: list[tuple[str, SharedUpdate]] = []
    firsts: dict[str, IntArray] = {}  # the transactions with which a key came for the first time
    for entity in features.entities:
        names = question.keys[entity.name]
        seen = gathered.rows[entity.name]
        index: dict[str | None, int] = {name: at for at, name in enumerate(names)}
        index[None] = -1
        places = [index[name] for name in columns.keys[entity.name]]
        key = np.array(places, np.int64)
        states = States.from_rows(entity.layout, seen)
        observed[entity.name] = features.observe(entity, states, key, columns, frauds)
        touched = set(places)
        if None in seen:
            new: dict[int, int] = {}
            for at, place in enumerate(places):
                if place >= 0 and seen[place] is None:
                    new.setdefault(place, at)
            firsts[f"new.{entity.name}"] = np.fromiter(new.values(), np.int64, len(new))
        whole = -1 not in touched
        touched.discard(-1)
        if entity.owned:
            packed = states.to_rows()
            rows += [(entity.name, names[place], packed[place]) for place in sorted(touched)]
        elif touched:
            known = slice(None) if whole else key >= 0
            when, amounts = columns.times_ms[known], columns.amounts_minor[known]
            updates = shared_updates(names, seen, states, key[known], when, amounts_minor=amounts, frauds=frauds[known])
            shared += [(entity.name, update) for update in updates]
    return observed, rows, shared, firsts


def _answer(
    features: FeatureSet,
    model: Model,
    fresh: Sequence[Arrival],
    columns: Columns,
    observed: Mapping[str, Observed],
    *,
    now_ms: int,
) -> _Answer:
    matrix = features.matrix(columns, observed)
    scored = model.score(matrix)
    actions: list[Action] = ["allow"] * len(fresh)
    thresholds = [model.review_threshold] * len(fresh)
    reasons: list[tuple[Contribution, ...]] = [()] * len(fresh)
    alerts = np.flatnonzero(scored.score >= min(model.review_threshold, model.block_threshold)).tolist()
    if alerts:
        for at, why in zip(alerts, model.reasons(matrix[alerts]), strict=True):
            reasons[at] = why
            actions[at] = action = _action(model, float(scored.score[at]))
            thresholds[at] = model.block_threshold if action == "block" else model.review_threshold
    little_endian = np.ascontiguousarray(matrix, "<f4").tobytes()
    width = 4 * matrix.shape[1]
    transactions = [arrival.transaction for arrival in fresh]
    scores = scored.score.tolist()
    # Column by column, in the order of the fields: a loop with names would take three times as long.
    decisions = list(
        map(
            Decision,
            [transaction.transaction_id for transaction in transactions],
            [transaction.card_id for transaction in transactions],
            [transaction.terminal_id for transaction in transactions],
            [transaction.event_time_ms for transaction in transactions],
            repeat(now_ms),
            [transaction.amount for transaction in transactions],
            actions,
            scores,
            # The very same objects where the champion decides alone: packing a decision sees it at a glance.
            scores if scored.champion is scored.score else scored.champion.tolist(),
            thresholds,
            repeat(model.name),
            repeat(model.version),
            repeat(model.features_digest),
            [little_endian[start : start + width] for start in range(0, len(little_endian), width)],
            reasons,
            [arrival.partition for arrival in fresh],
            [arrival.offset for arrival in fresh],
            repeat(None) if scored.online is None else scored.online.tolist(),
        )
    )
    return _Answer(decisions, matrix, scored, actions)


def _census(
    features: FeatureSet,
    monitor: Monitor,
    question: Question,
    gathered: Gathered,
    *,
    fresh: Sequence[Arrival],
    columns: Columns,
    answer: _Answer | None,
    firsts: Mapping[str, IntArray],
    leases: Mapping[int, Lease],
) -> list[tuple[str, bytes]]:
    """The partitions' censuses after the batch."""
    rejected = {
        partition: new
        for partition, offsets in question.rejected.items()
        if (new := [offset for offset in offsets if offset > leases[partition].watermark])
    }
    if not (fresh or rejected):
        return []
    scores = answer.scores if answer else Scores.alone(np.zeros(0))
    actions = answer.actions if answer else []
    seen = Seen(
        partitions=np.fromiter((arrival.partition for arrival in fresh), np.int64, len(fresh)),
        offsets=np.fromiter((arrival.offset for arrival in fresh), np.int64, len(fresh)),
        times_ms=columns.times_ms,
        amounts_minor=columns.amounts_minor,
        matrix=answer.matrix if answer else np.zeros((0, len(features.names)), np.float32),
        champion=scores.champion,
        scores=scores.score,
        alerts=np.fromiter((action != "allow" for action in actions), np.bool_, len(actions)),
        blocks=np.fromiter((action == "block" for action in actions), np.bool_, len(actions)),
        firsts={**firsts, **features.missing([arrival.transaction for arrival in fresh], columns)},
    )
    rows = dict(zip(question.keys[CENSUS], gathered.rows[CENSUS], strict=True))
    return monitor.count(rows, seen, rejected)


def _census_names(monitor: Monitor, arrivals: Iterable[Arrival], rejected: Mapping[int, Sequence[int]]) -> list[str]:
    offsets = {partition: list(of) for partition, of in rejected.items()}
    times_ms: dict[int, list[int]] = {partition: [] for partition in rejected}
    for arrival in arrivals:
        offsets.setdefault(arrival.partition, []).append(arrival.offset)
        times_ms.setdefault(arrival.partition, []).append(arrival.transaction.event_time_ms)
    return [name for partition, of in offsets.items() for name in monitor.names(partition, of, times_ms[partition])]


def _action(model: Model, score: float) -> Action:
    if score >= model.block_threshold:
        return "block"
    return "review" if score >= model.review_threshold else "allow"

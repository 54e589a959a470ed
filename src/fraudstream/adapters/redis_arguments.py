"""What the scripts are given, in the order in which they read it."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import msgspec

from fraudstream.adapters.redis_keys import Keys
from fraudstream.core.layout import Layout
from fraudstream.core.ports import LabelStep
from fraudstream.core.updates import SharedUpdate
from fraudstream.events import Label, Rejected

Arguments = list[Any]


def update_arguments(layout: Layout, update: SharedUpdate) -> Arguments:
    """What `update_at` in `common.lua` reads."""
    tokens = list(chain.from_iterable((b"INCRBY", kind, at, amount) for kind, at, amount in update.adds))
    return [
        update.heads_seen, update.heads, layout.heads_bytes - 1, layout.row_bytes, len(update.clears), len(tokens),
        *chain.from_iterable(update.clears), *tokens,
    ]  # fmt: skip


def example(label: Label) -> bytes:
    """What is kept of a label until its example is published; the same label gives the same bytes."""
    return msgspec.msgpack.encode(msgspec.structs.replace(label, reason=None))


def label_step(
    step: LabelStep, keys: Keys, row_prefixes: Mapping[str, bytes], layouts: Mapping[str, Layout]
) -> Arguments:
    """A record of labels as `join_labels.lua` reads it."""
    label, decision = step.label, step.decision
    if isinstance(label, Rejected):
        return ["reject", step.offset, label.reason.value]
    transaction_id, verdict = label.transaction_id.encode(), int(label.is_fraud)
    slot = keys.slot(transaction_id)
    if decision is None:
        return ["park", step.offset, transaction_id, slot, verdict, msgspec.msgpack.encode(label)]
    if step.late:
        verdicts = keys.late_verdicts(decision.event_time_ms, transaction_id)
        return ["late", step.offset, transaction_id, slot, verdict, verdicts, example(label)]
    where = keys.decision(keys.generation(decision.event_time_ms), transaction_id)
    updates = [(entity, name, update) for entity, update in step.shared for name in update.keys]
    joined: Arguments = ["join", step.offset, where, transaction_id, verdict, example(label), len(updates)]
    for entity, name, update in updates:
        joined += (row_prefixes[entity] + name.encode(), *update_arguments(layouts[entity], update))
    return joined

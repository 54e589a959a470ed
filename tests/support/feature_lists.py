"""Random feature lists, transactions for them, and every feature computed from the plain list by its definition."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from fraudstream.core import spec as specs
from fraudstream.core.features import FLOAT32_MAX
from fraudstream.events import Transaction

MINUTE_MS, DAY_MS = 60_000, 86_400_000
# name -> (length, hop, delay); several hops, and several windows of one hop.
WINDOWS = {
    "m5": ("5m", "1m", "0s"),
    "m2": ("2m", "1m", "0s"),
    "late_m3": ("3m", "1m", "2m"),
    "m30": ("30m", "10m", "0s"),
    "d2": ("2d", "1d", "0s"),
    "late_d2": ("2d", "1d", "1d"),
}
ENTITIES = {"card": "card_id", "terminal": "terminal_id", "shop": "shop"}
START_MS = 1_719_792_000_000  # 2024-07-01T00:00:00Z


class Seen(NamedTuple):
    """A transaction and the verdict that was known when it came."""

    transaction: Transaction
    fraud: int


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Any legal feature list over a few entities and windows."""
    windows = draw(st.lists(st.sampled_from(sorted(WINDOWS)), min_size=1, max_size=3, unique=True))
    late = [name for name in windows if name.startswith("late")]
    # With fraud windows on the card, its rows are shared and can keep neither maximum nor time.
    card_frauds = draw(st.booleans())
    features: dict[str, Any] = {}
    for number in range(draw(st.integers(4, 12))):
        entity = draw(st.sampled_from(sorted(ENTITIES)))
        aggregates = ["count", "sum", "mean", "std"]
        if late and (entity == "terminal" or (entity == "card" and card_frauds)):
            aggregates += ["frauds", "fraud_share"]
        if entity == "card" and not card_frauds:
            aggregates += ["max", "seconds_since_last"]
        kinds = ["amount", "own", "calendar", "aggregate", "aggregate", "aggregate"]
        if features:
            kinds += ["ratio", "deviation"]
        kind = draw(st.sampled_from(kinds))
        before = st.sampled_from(sorted(features)) if features else st.nothing()
        if kind == "amount":
            feature: dict[str, Any] = {"field": "amount"}
        elif kind == "own":
            feature = {"field": "risk"}
        elif kind == "calendar":
            feature = {"calendar": draw(st.sampled_from(["hour", "weekend", "night"]))}
        elif kind == "ratio":
            feature = {"ratio": (draw(before), draw(before))}
        elif kind == "deviation":
            feature = {"deviation": (draw(before), draw(before), draw(before))}
        else:
            aggregate = draw(st.sampled_from(aggregates))
            feature = {"entity": entity, "aggregate": aggregate}
            if aggregate != "seconds_since_last":
                feature["window"] = draw(st.sampled_from(late if "fraud" in aggregate else windows))
                feature["before"] = draw(st.booleans())
        features[f"f{number}"] = feature
    return {
        "entities": ENTITIES,
        "windows": {n: dict(zip(("length", "hop", "delay"), WINDOWS[n], strict=True)) for n in windows},
        "features": features,
        "calendar": {
            "utc_offset": draw(st.sampled_from(["+00:00", "-09:30", "+14:00"])),
            "lateness": draw(st.sampled_from(["0s", "90s", "1d"])),
        },
    }


@st.composite
def streams(draw: st.DrawFn, *, size_max: int = 15) -> list[Seen]:
    """Transactions of a few cards, terminals and shops, mostly in order; some very late, some far ahead."""
    now_ms = START_MS
    # Within the rings of every hop there is: minutes, tens of minutes, days; and hours, for the calendar.
    steps = st.one_of(
        st.integers(0, 2 * MINUTE_MS),
        st.integers(-8, 8).map(lambda minutes: minutes * MINUTE_MS),
        st.integers(-40, 40).map(lambda minutes: minutes * MINUTE_MS),
        st.integers(0, 24).map(lambda halves: halves * 30 * MINUTE_MS),
        st.integers(-3 * DAY_MS, 4 * DAY_MS),
    )
    seen = []
    for number in range(draw(st.integers(size_max // 2, size_max))):
        step = draw(steps)
        at_ms = now_ms + step
        now_ms = at_ms if step >= 0 and draw(st.booleans()) else now_ms
        minor = draw(st.one_of(st.integers(0, 100_00), st.sampled_from([0, 50_000_00])))
        extra: dict[str, Any] = {}
        shop = draw(st.sampled_from(["s1", "s2", 7, "7", None, True, "", "x" * 129, ["s1"], "absent"]))
        if shop != "absent":
            extra["shop"] = shop
        risk = draw(st.one_of(st.none(), st.just("high"), st.booleans(), st.integers(-5, 5), st.floats(-1e3, 1e3)))
        if risk is not None:
            extra["risk"] = risk
        transaction = Transaction(
            transaction_id=f"t{number}",
            event_time_ms=at_ms,
            card_id=draw(st.sampled_from(["c1", "c2"])),
            terminal_id=draw(st.sampled_from(["w1", "w2"])),
            amount=minor / 100,
            amount_minor=minor,
            extra=extra or None,
        )
        seen.append(Seen(transaction, draw(st.integers(0, 1))))
    return seen


def by_definition(declared: specs.FeatureList, stream: Sequence[Seen]) -> list[dict[str, float]]:
    """Every feature of every transaction, from the transactions before it and itself."""
    depths = _depths(declared)
    rows = []
    for at in range(len(stream)):
        values: dict[str, float] = {}
        for name, feature in declared.features.items():
            values[name] = _value(declared, feature, stream[: at + 1], values, depths)
        rows.append(values)
    return rows


def ill_conditioned(values: Mapping[str, float], feature: specs.Feature) -> bool:
    """Whether a last digit of what it is computed from decides its value: a quotient of numbers that cancel."""
    if feature.deviation:
        value, mean, std = (values[name] for name in feature.deviation)
        return std < 1e-4 * max(1.0, abs(value), abs(mean))
    if feature.ratio:
        over, under = (values[name] for name in feature.ratio)
        return abs(under) < 1e-4 * max(1.0, abs(over))
    return False


def key_by_definition(transaction: Transaction, source: str) -> str | None:
    """Text, or an integer written out; nothing else is a key."""
    if source != "shop":
        return transaction.card_id if source == "card_id" else transaction.terminal_id
    value = (transaction.extra or {}).get(source)
    return str(value) if type(value) in (str, int) and 0 < len(str(value)) <= 128 else None


def _depths(declared: specs.FeatureList) -> dict[tuple[str, int], int]:
    """How many tiles of a hop an entity keeps: what its longest window with this hop needs, and what lateness adds."""
    depths: dict[tuple[str, int], int] = {}
    for feature in declared.features.values():
        if feature.window:
            window = declared.windows[feature.window]
            place = (feature.entity, window.hop_ms)
            depths[place] = max(depths.get(place, 0), _tiles_back(window)[1])
    late_ms = specs.duration_ms(declared.calendar.lateness)
    return {(name, hop): depth + min(math.ceil(late_ms / hop), depth) for (name, hop), depth in depths.items()}


def _tiles_back(window: specs.Window) -> tuple[int, int]:
    length, delay = (specs.duration_ms(text) // window.hop_ms for text in (window.length, window.delay))
    return (delay + 1, delay + 1 + length) if delay else (0, length)


def _value(
    declared: specs.FeatureList,
    feature: specs.Feature,
    past: Sequence[Seen],
    values: Mapping[str, float],
    depths: Mapping[tuple[str, int], int],
) -> float:
    own = past[-1].transaction
    if feature.field:
        given = own.amount if feature.field == "amount" else (own.extra or {}).get(feature.field)
        return float(given) if isinstance(given, int | float) else 0.0
    if feature.calendar:
        sign = -1 if declared.calendar.utc_offset[0] == "-" else 1
        hours, minutes = map(int, declared.calendar.utc_offset[1:].split(":"))
        local = datetime.fromtimestamp(own.event_time_ms / 1000, UTC) + sign * timedelta(hours=hours, minutes=minutes)
        return float({"hour": local.hour, "night": local.hour < 7, "weekend": local.isoweekday() > 5}[feature.calendar])
    if feature.ratio:
        over, under = (values[name] for name in feature.ratio)
        return _bounded(over / under) if under else 0.0
    if feature.deviation:
        value, mean, std = (values[name] for name in feature.deviation)
        return _bounded((value - mean) / std) if std > 0 else 0.0
    source = declared.entities[feature.entity]
    key = key_by_definition(own, source)
    same = [seen for seen in past if key is not None and key_by_definition(seen.transaction, source) == key]
    if feature.aggregate == "seconds_since_last":
        idle_ms = own.event_time_ms - max((s.transaction.event_time_ms for s in same[:-1]), default=-(10**15))
        return min(max(idle_ms, 0), 30 * DAY_MS) / 1000
    window = declared.windows[feature.window]
    inside = _inside(window, same, depths[feature.entity, window.hop_ms])
    return _aggregate(feature.aggregate, [s for s in inside if not (feature.before and s is same[-1])])


def _bounded(value: float) -> float:
    return max(-FLOAT32_MAX, min(FLOAT32_MAX, value))


def _inside(window: specs.Window, same: Sequence[Seen], depth: int) -> list[Seen]:
    """The transactions in a window of the last one; what lies `depth` tiles before the key's newest is forgotten."""
    if not same:
        return []
    hop_ms = window.hop_ms
    own = same[-1].transaction.event_time_ms // hop_ms
    head = max(seen.transaction.event_time_ms // hop_ms for seen in same)
    start, stop = _tiles_back(window)
    return [
        seen
        for seen in same
        if own - stop < seen.transaction.event_time_ms // hop_ms <= own - start
        and seen.transaction.event_time_ms // hop_ms > head - depth
    ]


def _aggregate(kind: str, inside: Sequence[Seen]) -> float:
    amounts = [seen.transaction.amount for seen in inside]
    frauds = sum(seen.fraud for seen in inside)
    count = len(inside)
    if kind == "count":
        return count
    if kind == "frauds":
        return frauds
    if count == 0:
        return 0.0
    if kind == "fraud_share":
        return frauds / count
    if kind == "max":
        return max(amounts)
    if kind == "sum":
        return math.fsum(amounts)
    mean = math.fsum(amounts) / count
    return mean if kind == "mean" else math.sqrt(math.fsum((a - mean) ** 2 for a in amounts) / count)

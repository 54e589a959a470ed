"""Reasons for an alert: what would the score have been if this were as usual?

Method: occlusion. Each group of features is put to its usual value (the median of legitimate transactions) and the model
asked again; the fall of the log-odds is the group's contribution. It says how far the model leans on the group, not why
the transaction is a fraud. Features of one kind over several windows, and ratios with what they are a ratio of, move
together: one alone would hide behind the others, so they form one group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fraudstream.core import spec as specs
from fraudstream.core.features import FeatureSet
from fraudstream.core.windows import FloatArray
from fraudstream.events import Contribution
from fraudstream.models.artefact import FeatureBaseline, Matrix

# More than four are not read: the usual limit of reason codes (Regulation B, 12 CFR 1002.9, commentary).
REASONS_MAX: Final = 4
# Below a tenth in the log-odds (a tenth in the odds) a contribution is noise of the trees, not a reason.
CONTRIBUTION_MIN: Final = 0.1
# Scores nearer to 0 and 1 than this are as good as certain; it bounds a contribution by 2 * 13.8.
_CERTAIN: Final = 1e-6


@dataclass(frozen=True)
class Group:
    """Features that are put to their usual values together, as columns of the matrix."""

    code: str
    columns: tuple[int, ...]


# Aggregates that tell the same thing in other units hide behind each other: they move together.
_KIND: Final = {
    "sum": "amounts",
    "mean": "amounts",
    "max": "amounts",
    "std": "amounts",
    "frauds": "frauds",
    "fraud_share": "frauds",
}


def groups_of(declared: specs.FeatureList) -> tuple[Group, ...]:
    """Sort the features into groups, in the order of each group's first feature."""
    key_of: dict[str, str] = {}
    members: dict[str, list[int]] = {}
    for at, (name, feature) in enumerate(declared.features.items()):
        derived = feature.ratio or feature.deviation
        if derived:
            key = key_of[derived[0]]
        else:
            kind = _KIND.get(feature.aggregate, feature.aggregate)
            key = f"{feature.entity}_{kind}" if kind else name
        key_of[name] = key
        members.setdefault(key, []).append(at)
    names = list(declared.features)
    return tuple(
        Group((names[columns[0]] if len(columns) == 1 else key).upper(), tuple(columns))
        for key, columns in members.items()
    )


class Explainer:
    """Reasons from a score function.

    Parameters
    ----------
    features
        The feature list of the matrix.
    baseline
        By feature name; `legit_median` is the usual value.
    score
        (n, features) float32 to (n,) probabilities.
    """

    def __init__(
        self, features: FeatureSet, baseline: Mapping[str, FeatureBaseline], score: Callable[[Matrix], FloatArray]
    ) -> None:
        self._spec = features.spec
        self._names = features.names
        self._score = score
        self._groups = groups_of(features.spec)
        self._usual = np.array([baseline[name].legit_median for name in features.names], np.float32)
        edges = [baseline[name].edges or (0.0,) for name in features.names]
        spreads = [edge[-1] - edge[0] for edge in edges]
        self._spread = np.array([spread if spread > 0 else 1.0 for spread in spreads])

    def reasons(self, matrix: Matrix) -> list[tuple[Contribution, ...]]:
        """Up to four reasons for each row, the largest first; ties in the order of the feature list."""
        n, width = matrix.shape
        if not n:
            return []
        asked = np.repeat(matrix[None], len(self._groups) + 1, axis=0)
        for at, group in enumerate(self._groups, start=1):
            for column in group.columns:
                asked[at, :, column] = self._usual[column]
        scores = self._score(asked.reshape(-1, width)).reshape(len(self._groups) + 1, n)
        odds = _log_odds(scores)
        fallen = odds[0] - odds[1:]
        order = np.argsort(-fallen, axis=0, kind="stable")[:REASONS_MAX]
        return [
            tuple(
                Contribution(self._groups[g].code, self._words(self._groups[g], matrix[row]), float(fallen[g, row]))
                for g in order[:, row].tolist()
                if fallen[g, row] >= CONTRIBUTION_MIN
            )
            for row in range(n)
        ]

    def _words(self, group: Group, row: Matrix) -> str:
        """Tell the most unusual feature of the group."""
        columns = list(group.columns)
        unusual = np.abs(row[columns] - self._usual[columns]) / self._spread[columns]
        column = columns[int(np.argmax(unusual))]
        return describe(self._spec, self._names[column], float(row[column]), float(self._usual[column]))


def describe(declared: specs.FeatureList, name: str, value: float, usual: float) -> str:
    """One feature's value in words, beside its usual value.

    >>> describe(FeatureSet.default().spec, "amount", 612.4, 40.12)
    'amount 612.40, usually about 40.12'
    """
    feature = declared.features[name]
    if feature.calendar:
        return _calendar_words(feature, value)
    if feature.aggregate and not feature.text:
        return _aggregate_words(declared, feature, value, usual)
    label = feature.text or _derived_label(feature, name)
    return f"{label} {_number(feature, value)}, usually about {_number(feature, usual)}"


def _calendar_words(feature: specs.Feature, value: float) -> str:
    if feature.calendar == "hour":
        return f"{feature.text or 'hour of the day'} {value:02.0f}"
    text = feature.text or {"night": "at night", "weekend": "on a weekend"}[feature.calendar]
    return text if value else f"not {text}"


def _derived_label(feature: specs.Feature, name: str) -> str:
    if feature.ratio:
        over, under = (_plain(part) for part in feature.ratio)
        return f"{over} against {under}"
    if feature.deviation:
        return f"standard deviations of {_plain(feature.deviation[0])} from {_plain(feature.deviation[1])}"
    return _plain(name)


def _aggregate_words(declared: specs.FeatureList, feature: specs.Feature, value: float, usual: float) -> str:
    who, kind = _plain(feature.entity), feature.aggregate
    told, normal = _number(feature, value), _number(feature, usual)
    if kind == specs.SECONDS_SINCE_LAST:
        return f"{told} since the last transaction of the {who} (usually {normal})"
    when = _stretch(declared.windows[feature.window]) + (" before this one" if feature.before else "")
    if kind == "count":
        return f"{told} {_plural(value, 'transaction')} of the {who} {when} (usually {normal})"
    if kind == "frauds":
        return f"{told} {_plural(value, 'fraud')} of the {who} {when} (usually {normal})"
    if kind == "fraud_share":
        return f"{told} of the transactions of the {who} {when} were fraud (usually {normal})"
    what = {"sum": "total amount", "mean": "mean amount", "max": "largest amount", "std": "spread of the amounts"}[kind]
    return f"{what} of the {who} {when} {told} (usually {normal})"


def _stretch(window: specs.Window) -> str:
    length = _span(specs.duration_ms(window.length))
    if window.delay_ms:
        return f"in the {length} that ended {_span(window.delay_ms, bare=False)} ago"
    return f"in the last {length}"


def _span(ms: int, *, bare: bool = True) -> str:
    """`day`, `7 days`, `6 hours`; with a leading 1 unless `bare`."""
    for size, unit in ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")):
        if ms >= size and ms % size == 0:
            count = ms // size
            return (unit if bare else f"1 {unit}") if count == 1 else f"{count} {unit}s"
    return f"{ms / 1000:g} seconds"


def _number(feature: specs.Feature, value: float) -> str:
    if feature.aggregate in ("count", "frauds"):
        return f"{value:.0f}"
    if feature.aggregate == "fraud_share":
        return f"{100 * value:.0f} %"
    if feature.aggregate == specs.SECONDS_SINCE_LAST:
        return _idle(value)
    return f"{value:.2f}"


def _idle(seconds: float) -> str:
    if seconds * 1000 >= specs.IDLE_CAP_MS:
        return "30 days or more"
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}s"
    return f"{seconds:.0f} {_plural(seconds, 'second')}"


def _plural(count: float, noun: str) -> str:
    return noun if round(count) == 1 else f"{noun}s"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _log_odds(scores: FloatArray) -> FloatArray:
    p = np.clip(scores, _CERTAIN, 1.0 - _CERTAIN)
    odds: FloatArray = np.log(p) - np.log1p(-p)
    return odds

"""Quality under delayed labels: every example is judged by the scores its transaction had when it was decided.

Kept as whole numbers only (counts, sums in billionths, histograms of log-odds), per model version, per score (the
champion's, the online model's, the one decided with) and per day of the transaction and since the start. So a state is
the same whatever the batches were, states add up, and its size does not depend on how many examples it has seen.

What comes from counts is exact: log-loss, calibration, precision and recall at the threshold, money. What needs an order
of all scores (ROC AUC, average precision, the daily budget) comes from the histograms, with the bound of its error; the
figures are in `core.quality_figures`.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from fraudstream.core.features import DAY_MS
from fraudstream.core.learning import LOG_LOSS_CLIP
from fraudstream.core.windows import BoolArray, FloatArray, IntArray

# What the fields of quality begin with, in the learner's hash.
QUALITY: Final = "quality:"
# Losses and scores are summed in billionths: 2^63 of them are nine billion nats, and whole numbers add up in any order.
UNIT: Final = 1_000_000_000
SQUARE_UNIT: Final = 1_000_000  # of squared losses, which are larger and need fewer digits
ECE_BINS: Final = 10
# Log-odds from -10 to 10 in steps of 0.05, and one bin more at either end: within a bin, scores differ by at most 5 %.
LOGIT_MAX: Final = 10.0
LOGIT_BINS: Final = 402
LOGIT_STEP: Final = 2 * LOGIT_MAX / (LOGIT_BINS - 2)
# Days, newest first, that are told one by one; chargebacks come up to four months late, and older ones count in the total.
DAYS_MAX: Final = 130
# Versions told one by one, newest first; a version is in use for days or weeks.
VERSIONS_MAX: Final = 4
TOTAL: Final = -1  # in place of a day: since the start

SUMS: Final = (
    "examples",
    "frauds",
    "loss",
    "fraud_loss",
    "fraud_loss_squared",
    "alerts",
    "hits",
    "blocks",
    "block_hits",
    "saved",
    "missed",
)
_ECE_AT: Final = len(SUMS)
_LEGIT_AT: Final = _ECE_AT + 3 * ECE_BINS
_FRAUD_AT: Final = _LEGIT_AT + LOGIT_BINS
SIZE: Final = _FRAUD_AT + LOGIT_BINS


@dataclass(frozen=True)
class Judged:
    """`n` examples, column by column. `version` is one for all; scores that are nan are left out.

    `review` and `block` are the thresholds in force when they were decided; `amounts_minor` in hundredths.
    """

    version: str
    times_ms: IntArray
    frauds: BoolArray
    amounts_minor: IntArray
    review: FloatArray
    block: FloatArray
    scores: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Tallies:
    """What was counted of one score over some examples, read from its vector."""

    vector: IntArray

    def __add__(self, other: "Tallies") -> "Tallies":
        return Tallies(self.vector + other.vector)

    def __getitem__(self, name: str) -> int:
        """One of `SUMS`: counts; `loss` and `fraud_loss` in billionths of a nat, `fraud_loss_squared` in millionths; `saved` and `missed` are amounts of frauds in hundredths."""
        return int(self.vector[SUMS.index(name)])

    @property
    def calibration(self) -> IntArray:
        """(3, ECE_BINS): examples, sum of scores in billionths, and frauds by tenth of the score."""
        return self.vector[_ECE_AT:_LEGIT_AT].reshape(3, ECE_BINS)

    @property
    def legit(self) -> IntArray:
        """Legitimate examples by bin of log-odds, ascending."""
        return self.vector[_LEGIT_AT:_FRAUD_AT]

    @property
    def fraud(self) -> IntArray:
        """Frauds by bin of log-odds, ascending."""
        return self.vector[_FRAUD_AT:]


def tallies_of(
    frauds: BoolArray, scores: FloatArray, amounts_minor: IntArray, review: FloatArray, block: FloatArray
) -> Tallies:
    """Count examples; all arrays (n,)."""
    p = np.clip(scores, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    loss = np.rint(np.where(frauds, -np.log(p), -np.log1p(-p)) * UNIT).astype(np.int64)
    squared = np.rint((loss / UNIT) ** 2 * SQUARE_UNIT).astype(np.int64)
    blocks = scores >= block
    alerts = blocks | (scores >= review)
    hits = alerts & frauds
    sums = (
        len(scores), frauds.sum(), loss.sum(), loss[frauds].sum(), squared[frauds].sum(), alerts.sum(), hits.sum(), blocks.sum(), (blocks & frauds).sum(),
        amounts_minor[hits].sum(), amounts_minor[frauds & ~alerts].sum(),
    )  # fmt: skip
    tenth = np.minimum((scores * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    told = np.rint(scores * UNIT).astype(np.int64)
    # In whole numbers: weighted counts of numpy are floats, which are exact up to 2^53 only.
    of_tenth = np.zeros(ECE_BINS, np.int64)
    np.add.at(of_tenth, tenth, told)
    bins = logit_bin(p)
    vector = np.concatenate((
        np.array([int(value) for value in sums], np.int64),
        np.bincount(tenth, minlength=ECE_BINS), of_tenth, np.bincount(tenth[frauds], minlength=ECE_BINS),
        np.bincount(bins[~frauds], minlength=LOGIT_BINS), np.bincount(bins[frauds], minlength=LOGIT_BINS),
    ))  # fmt: skip
    return Tallies(vector.astype(np.int64))


def logit_bin(p: FloatArray) -> IntArray:
    """The bin of log-odds of each probability inside (0, 1)."""
    logit = np.log(p) - np.log1p(-p)
    found: IntArray = np.clip(np.floor((logit + LOGIT_MAX) / LOGIT_STEP).astype(np.int64) + 1, 0, LOGIT_BINS - 1)
    return found


class Key(msgspec.Struct, frozen=True, array_like=True):
    """Whose tallies: a model version, a score's name, a day since 1970 or `TOTAL`."""

    version: str
    score: str
    day: int

    def encoded(self) -> str:
        return f"{self.version}|{self.score}|{self.day}"

    @classmethod
    def decoded(cls, text: str) -> "Key":
        version, score, day = text.rsplit("|", 2)
        return cls(version, score, int(day))


@dataclass
class Quality:
    """The state: tallies by key. Pure; whoever holds it stores `changes` beside what else its step changes.

    `unreadable` are the fields that it could not be read from, with what is wrong with them.

    Examples
    --------
    >>> quality = Quality()
    >>> quality.update(Judged("fraud 1", np.array([0, 1]), np.array([True, False]), np.array([900, 500]),
    ...     np.full(2, 0.5), np.full(2, 0.9), {"champion": np.array([0.8, 0.1])}))
    >>> quality.total("fraud 1", "champion")["hits"]
    1
    """

    tallies: dict[Key, Tallies] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    _changed: set[Key] = field(default_factory=set)
    _dropped: set[Key] = field(default_factory=set)

    def update(self, judged: Judged) -> None:
        """Count examples. The order of calls and how examples are shared out among them make no difference."""
        days = judged.times_ms // DAY_MS
        for name, scores in judged.scores.items():
            known = np.isfinite(scores)
            for day in np.unique(days[known]).tolist():
                rows = known & (days == day)
                more = tallies_of(
                    judged.frauds[rows],
                    scores[rows],
                    judged.amounts_minor[rows],
                    judged.review[rows],
                    judged.block[rows],
                )
                for key in (Key(judged.version, name, day), Key(judged.version, name, TOTAL)):
                    self.tallies[key] = self.tallies[key] + more if key in self.tallies else more
                    self._changed.add(key)
        self._forget()

    def versions(self) -> list[str]:
        """The versions with examples, the one with the newest day first."""
        newest: dict[str, int] = {}
        for key in self.tallies:
            newest[key.version] = max(newest.get(key.version, TOTAL), key.day)
        return sorted(newest, key=lambda version: (-newest[version], version))

    def scores(self, version: str) -> list[str]:
        """The names of the scores a version was judged by."""
        return sorted({key.score for key in self.tallies if key.version == version})

    def days(self, version: str, score: str) -> Iterator[tuple[int, Tallies]]:
        """The days that are told one by one, ascending."""
        found = [key for key in self.tallies if (key.version, key.score) == (version, score) and key.day != TOTAL]
        for key in sorted(found, key=lambda key: key.day):
            yield key.day, self.tallies[key]

    def total(self, version: str, score: str, *, last_days: int | None = None) -> Tallies:
        """Since the start, or over the newest `last_days` days of transactions that have labels."""
        if last_days is None:
            return self.tallies.get(Key(version, score, TOTAL), Tallies(np.zeros(SIZE, np.int64)))
        days = [tallies for _, tallies in self.days(version, score)][-last_days:]
        return sum(days, Tallies(np.zeros(SIZE, np.int64)))

    def changes(self) -> tuple[dict[str, bytes], list[str]]:
        """Fields to write and fields to delete since the last call, so that a snapshot need not write everything."""
        written = {key.encoded(): _packed(self.tallies[key]) for key in self._changed if key in self.tallies}
        dropped = {key.encoded() for key in self._dropped} | (self.unreadable.keys() - written.keys())
        self._changed, self._dropped, self.unreadable = set(), set(), {}
        return written, sorted(dropped)

    def fields(self) -> dict[str, bytes]:
        """Every field, as `changes` would write it."""
        return {key.encoded(): _packed(of) for key, of in sorted(self.tallies.items(), key=_order)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, bytes]) -> "Quality":
        """The state that wrote these fields. What cannot be read is left out, named, and emptied with the next changes."""
        found = cls()
        for name, packed in fields.items():
            try:
                found.tallies[Key.decoded(name)] = _unpacked(packed)
            except (ValueError, zlib.error) as error:
                found.unreadable[name] = str(error)
        return found

    def _forget(self) -> None:
        """Keep the newest days and versions."""
        by_version = self.versions()
        stale = set(by_version[VERSIONS_MAX:])
        days: dict[tuple[str, str], list[int]] = {}
        for key in self.tallies:
            if key.day != TOTAL:
                days.setdefault((key.version, key.score), []).append(key.day)
        oldest = {name: sorted(of)[-DAYS_MAX] if len(of) > DAYS_MAX else TOTAL for name, of in days.items()}
        for key in list(self.tallies):
            old = key.day != TOTAL and key.day < oldest[key.version, key.score]
            if old or key.version in stale:
                del self.tallies[key]
                self._changed.discard(key)
                self._dropped.add(key)


def _order(item: tuple[Key, Tallies]) -> str:
    return item[0].encoded()


def _packed(tallies: Tallies) -> bytes:
    """Most bins are empty: a row of 6.7 KB packs into some hundred bytes."""
    return zlib.compress(tallies.vector.astype("<i8").tobytes(), 1)


def _unpacked(packed: bytes) -> Tallies:
    vector = np.frombuffer(zlib.decompress(packed), "<i8").astype(np.int64)
    if len(vector) != SIZE:
        raise ValueError(f"{len(vector)} numbers instead of {SIZE}")
    return Tallies(vector)

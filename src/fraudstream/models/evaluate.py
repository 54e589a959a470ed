"""Backtest: what a version would have decided, through the same core, and how good that would have been.

Scores are computed in the order of the file, with the state that the file's earlier transactions left (or none, with
`cold`): live decisions over the same records have the same scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from fraudstream.codec.times import read_time, write_time
from fraudstream.core.features import DAY_MS
from fraudstream.core.windows import BoolArray, IntArray
from fraudstream.errors import ModelError, SettingsError
from fraudstream.models import metrics
from fraudstream.models.artefact import Artefact, ThresholdsPart
from fraudstream.models.champion import OnnxModel
from fraudstream.models.history import replay
from fraudstream.models.history_file import History
from fraudstream.models.quality import Figures, OnlineReport, Scored, figures, none_if_nan, slices

if TYPE_CHECKING:  # these load river, which only `online` needs
    from fraudstream.models.evaluate_online import OnlineReplay
    from fraudstream.models.learner import LearnerSettings

OnRows = Callable[[int, int], None]

# The handbook trains on seven days, leaves the label delay out, and counts a card as known that had a fraud in these
# seven days or since, as soon as its label is there. Seven it stays, however long a version was trained: figures of
# different versions, and the handbook's own, then speak of the same transactions.
KNOWN_CARDS_DAYS: Final = 7


class Day(Struct, frozen=True):
    """One UTC day. `alerts` are reviews and blocks together, `hits` those of them that are frauds."""

    date: str
    transactions: int
    frauds: int
    alerts: int
    hits: int
    precision: float | None
    recall: float | None


class Report(Struct, frozen=True):
    """A backtest in figures; docs/how-to/train-and-evaluate.md says how each is computed."""

    model: str
    version: int
    source: str
    from_time: str
    until_time: str
    cold: bool
    known_cards_removed: bool
    transactions: int
    frauds: int
    cards: int
    removed: int
    thresholds: ThresholdsPart
    metrics: Figures
    slices: dict[str, Figures]
    days: tuple[Day, ...]
    notes: tuple[str, ...]
    online: OnlineReport | None = None


@dataclass(frozen=True)
class EvaluateSettings:
    """What to evaluate on. Times in ms since the epoch; `until_ms` is not included. With `online` the online model is
    replayed beside the champion, and compared with it from `online_from_ms` on.
    """

    transactions: Path
    from_ms: int
    until_ms: int
    cold: bool = False
    remove_known_cards: bool = False
    online: "LearnerSettings | None" = None
    online_from_ms: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The report and what it was computed from, for plots."""

    report: Report
    scored: Scored


def evaluate(artefact: Artefact, settings: EvaluateSettings, on_rows: OnRows | None = None) -> Evaluation:
    """Backtest a version.

    Raises
    ------
    SettingsError
        If the file or the range cannot be used.
    ModelError
        If the version cannot be loaded.
    """
    if settings.from_ms >= settings.until_ms:
        raise SettingsError(f"{write_time(settings.from_ms)} is not before {write_time(settings.until_ms)}")
    model = OnnxModel(artefact)
    history = History(settings.transactions, model.features)
    thresholds = artefact.manifest.thresholds
    delay_ms = artefact.manifest.training.label_delay_ms
    online = _online(model, settings, delay_ms)
    scored, known = _score(model, history, settings, delay_ms=delay_ms, on_rows=on_rows, online=online)
    kept = scored.where(~known) if settings.remove_known_cards else scored
    if settings.remove_known_cards:
        known = np.zeros(len(kept), np.bool_)
    found = figures(kept, review=thresholds.review, block=thresholds.block, known=known)
    if settings.remove_known_cards:
        # The name promises all cards; without the known ones it is the other figure.
        found["cp_100"] = none_if_nan(metrics.card_precision(scored.days, scored.cards, scored.frauds, scored.scores))
    report = Report(
        model=artefact.manifest.name,
        version=artefact.manifest.version,
        source=settings.transactions.name,
        from_time=write_time(settings.from_ms),
        until_time=write_time(settings.until_ms),
        cold=settings.cold,
        known_cards_removed=settings.remove_known_cards,
        transactions=len(kept),
        frauds=int(kept.frauds.sum()),
        cards=len(np.unique(kept.cards)),
        removed=len(scored) - len(kept),
        thresholds=thresholds,
        metrics=found,
        slices=slices(kept, review=thresholds.review, utc_offset_ms=model.features.spec.calendar.utc_offset_ms),
        days=per_day(kept, thresholds.review),
        notes=(*history.notes, *_warnings(artefact, settings)),
        online=None if online is None else online.report(settings.online_from_ms or settings.from_ms),
    )
    return Evaluation(report, kept)


def _online(model: OnnxModel, settings: EvaluateSettings, delay_ms: int) -> "OnlineReplay | None":
    if settings.online is None:
        return None
    from fraudstream.models.evaluate_online import OnlineReplay  # noqa: PLC0415 - loads river, for this option alone
    from fraudstream.models.learner import Subject  # noqa: PLC0415 - as above

    subject = Subject(model.name, model.version, model.features_digest, model.features.names)
    return OnlineReplay(subject, settings.online, label_delay_ms=delay_ms)


def _score(
    model: OnnxModel,
    history: History,
    settings: EvaluateSettings,
    *,
    delay_ms: int,
    on_rows: OnRows | None,
    online: "OnlineReplay | None",
) -> tuple[Scored, BoolArray]:
    """Score the range; which of its transactions are of cards that are known as compromised by then."""
    since_ms = settings.from_ms - delay_ms - KNOWN_CARDS_DAYS * DAY_MS
    fraud_days: list[IntArray] = []
    fraud_cards: list[IntArray] = []

    def remember(times_ms: IntArray, cards: IntArray) -> None:
        since = times_ms >= since_ms
        fraud_days.append(metrics.days_of(times_ms[since]))
        fraud_cards.append(cards[since])

    parts: list[Scored] = []
    for part in replay(
        model.features,
        history,
        from_ms=settings.from_ms,
        until_ms=settings.until_ms,
        cold=settings.cold,
        on_rows=on_rows,
        on_earlier_frauds=remember,
    ):
        scores = model.score(part.matrix).score
        parts.append(Scored(part.times_ms, part.cards, part.amounts, part.frauds, scores))
        if online is not None:
            online.feed(part, scores)
        remember(part.times_ms[part.frauds], part.cards[part.frauds])
    if not parts:
        raise SettingsError(
            f"{settings.transactions}: no transactions from {write_time(settings.from_ms)} to "
            f"{write_time(settings.until_ms)}; the file has {write_time(history.first_ms)} to {write_time(history.last_ms)}"
        )
    scored = concatenated(parts)
    known = metrics.known_compromised(
        scored.days,
        scored.cards,
        np.concatenate(fraud_days),
        np.concatenate(fraud_cards),
        delay_days=-(-delay_ms // DAY_MS),
    )
    return scored, known


def concatenated(parts: Sequence[Scored]) -> Scored:
    """One stretch from consecutive ones."""
    columns = ([getattr(part, name) for part in parts] for name in ("times_ms", "cards", "amounts", "frauds", "scores"))
    return Scored(*map(np.concatenate, columns))


def per_day(scored: Scored, review: float) -> tuple[Day, ...]:
    """The figures of each UTC day with transactions, in order."""
    days = scored.days
    found = []
    for day in np.unique(days):
        rows = days == day
        at = metrics.at_threshold(scored.frauds[rows], scored.scores[rows], review)
        found.append(
            Day(
                date=write_time(int(day) * DAY_MS)[:10],
                transactions=int(rows.sum()),
                frauds=at.frauds,
                alerts=at.alerts,
                hits=at.hits,
                precision=none_if_nan(at.precision),
                recall=none_if_nan(at.recall),
            )
        )
    return tuple(found)


def _warnings(artefact: Artefact, settings: EvaluateSettings) -> tuple[str, ...]:
    training = artefact.manifest.training
    if settings.from_ms < _ms(training.labels_known_until) and settings.until_ms > _ms(training.from_time):
        fitted = f"{training.from_time} to {training.labels_known_until}"
        return (f"the range overlaps what the version was fitted on ({fitted}): its figures are too good",)
    if _ms(training.labels_known_until) <= settings.from_ms < _ms(training.until_time):
        return (
            f"the range begins before {training.until_time}, when the version was trained: it could not have decided then",
        )
    return ()


def _ms(text: str) -> int:
    found = read_time(text)
    if found is None:
        raise ModelError(f"the manifest has no readable time: {text!r}; train the version anew")
    return found

"""Train a version: replay history through the core, fit, export, prove, register.

    from ........ fit for validation ..... | label gap | validation | ............ | until
    from ........ fit of the version ............................... | not yet known | until

The label of a transaction counts as known only `label_delay` later. So the newest stretch before `until` is not fitted;
metrics and the block threshold come from a model that had, when the validation week began, only the labels known by then;
and the version itself is fitted once more on everything that is known at `until`. Its review threshold is set on the
newest stretch, which it has not seen: how many alerts a score gives needs no labels.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from fraudstream.codec.times import write_time
from fraudstream.core.features import DAY_MS, FeatureSet
from fraudstream.core.windows import BoolArray, FloatArray, IntArray
from fraudstream.errors import SettingsError
from fraudstream.models import artefact as parts
from fraudstream.models import card, metrics
from fraudstream.models.baseline import Earlier, feature_baselines, score_baseline
from fraudstream.models.champion import OnnxScorer
from fraudstream.models.estimators import DEFAULT_ESTIMATOR, DEFAULT_PARAMS, LEGIT_SHARE, Fitted, fit, make_estimator
from fraudstream.models.export import check_parity, to_onnx
from fraudstream.models.history import check_label_delay, replay
from fraudstream.models.history_file import History
from fraudstream.models.quality import Scored, figures, slices
from fraudstream.models.registry import DEFAULT_NAME, Registry
from fraudstream.models.thresholds import block_threshold, review_threshold

OnProgress = Callable[[str, int, int], None]
"""Told the stage, and how much of how much of it is done (of 0: it cannot be known)."""

VALIDATION_DAYS: Final = 7  # whole weeks: weekends differ
FRAUDS_MIN: Final = 10  # below this many in either part, neither a fit nor a threshold means anything
# Enough that a split that was exported wrongly is met; scikit-learn needs about a second for it.
PARITY_ROWS: Final = 20_000
# Replayed at every start of a worker: a few milliseconds, some 50 KB.
GOLDEN_ROWS: Final = 512
REFERENCE_DAYS: Final = 7  # as above: whole weeks
# Scores of fewer transactions make no histogram worth comparing with.
REFERENCE_ROWS_MIN: Final = 1_000
LIBRARIES: Final = ("fraudstream", "numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime")


@dataclass(frozen=True)
class TrainSettings:
    """What to train on and how. Times in ms since the epoch; `until_ms` is not included.

    `validation` is the length of the stretch held out, in ms; by default a week, or half of what there is if that is less.
    """

    transactions: Path
    registry: Path
    from_ms: int
    until_ms: int
    label_delay_ms: int
    features: FeatureSet = field(default_factory=FeatureSet.default)
    name: str = DEFAULT_NAME
    estimator: str = DEFAULT_ESTIMATOR
    params: Mapping[str, Any] | None = None
    legit_share: float = LEGIT_SHARE
    alerts_per_day: float = 100.0
    block_precision: float = 0.95
    validation: int | None = None
    seed: int = 0

    @property
    def estimator_params(self) -> Mapping[str, Any]:
        """The parameters given; those of the default estimator if it was not changed and none were given."""
        if self.params is not None:
            return self.params
        return DEFAULT_PARAMS if self.estimator == DEFAULT_ESTIMATOR else {}

    @property
    def validation_ms(self) -> int:
        """How much of the newest labelled history is held out."""
        if self.validation is not None:
            return self.validation
        half = (self.until_ms - self.from_ms - 2 * self.label_delay_ms) // 2
        whole_days = half // DAY_MS * DAY_MS or half
        return min(VALIDATION_DAYS * DAY_MS, whole_days)

    @property
    def known_until_ms(self) -> int:
        """Labels of transactions before this are known at `until_ms`."""
        return self.until_ms - self.label_delay_ms

    @property
    def validation_from_ms(self) -> int:
        return self.known_until_ms - self.validation_ms

    @property
    def validation_known_ms(self) -> int:
        """Labels of transactions before this are known when the validation begins."""
        return self.validation_from_ms - self.label_delay_ms

    def check(self) -> None:
        """Raise `SettingsError` for what cannot work, before anything is read."""
        if self.label_delay_ms < 0 or (self.validation is not None and self.validation <= 0):
            raise SettingsError("the label delay must not be negative, nor the validation empty")
        if self.validation_ms <= 0 or self.validation_known_ms <= self.from_ms:
            needed = (2 * self.label_delay_ms + (self.validation or 0)) / DAY_MS
            raise SettingsError(
                f"{write_time(self.from_ms)} to {write_time(self.until_ms)} is too short: {needed:g} days go to the label "
                "delay (before the validation, and after it) and to the validation, and nothing is left to fit; begin "
                "earlier"
            )
        if not 0 < self.legit_share <= 1 or not 0 < self.block_precision <= 1 or not self.alerts_per_day > 0:
            raise SettingsError("legit share and block precision lie above 0 and up to 1; alerts per day above 0")
        check_label_delay(self.features, self.label_delay_ms)
        make_estimator(self.estimator, self.estimator_params, self.seed)


@dataclass(frozen=True)
class Rows:
    """The transactions of [from, until) with their features."""

    times_ms: IntArray
    cards: IntArray
    amounts: FloatArray
    frauds: BoolArray
    matrix: parts.Matrix

    def span(self, from_ms: int, until_ms: int) -> "Rows":
        """Those in [from_ms, until_ms), without copying."""
        cut = slice(*np.searchsorted(self.times_ms, (from_ms, until_ms)).tolist())
        return Rows(self.times_ms[cut], self.cards[cut], self.amounts[cut], self.frauds[cut], self.matrix[cut])

    def scored(self, scores: FloatArray) -> Scored:
        return Scored(self.times_ms, self.cards, self.amounts, self.frauds, scores)


def train(settings: TrainSettings, on_progress: OnProgress | None = None) -> parts.Manifest:
    """Train and register a version.

    Raises
    ------
    SettingsError
        If the file, the range, the feature list or the estimator cannot be used.
    ModelError
        If the model cannot be exported faithfully, or the registry not written.
    """
    tell = on_progress or (lambda *_: None)
    settings.check()
    history = History(settings.transactions, settings.features)
    rows = _read(settings, history, tell)
    known = rows.span(settings.from_ms, settings.known_until_ms)
    tell("fit for validation", 0, 0)
    validation, thresholds = _validate(settings, rows)
    tell("fit", 0, 0)
    fitted = _fit(settings, known)
    tell("export and compare", 0, 0)
    model = to_onnx(fitted.estimator, len(settings.features.names), legit_share=fitted.legit_share)
    sample = _parity_sample(rows, settings.known_until_ms, settings.seed)
    expected = fitted.score(rows.matrix[sample])
    newest = _newest(settings, rows)
    scorer = OnnxScorer(model, len(settings.features.names))
    newest_scores = newest.scored(scorer(newest.matrix))
    if settings.label_delay_ms >= settings.validation_ms:
        thresholds = _recent(thresholds, newest_scores)
    limits = [t for t in (thresholds.review, thresholds.block) if t is not None]
    parity = check_parity(model, rows.matrix[sample], expected, limits)
    golden = _golden(rows.matrix[sample], expected)
    earlier = _earlier(settings, history, rows, newest)
    baseline = _baseline(settings, newest, known, newest_scores.scores, past=(earlier, scorer(earlier.matrix)))
    tell("register", 0, 0)
    training = _training_part(settings, history, known, fitted)

    def manifest_of(number: int, created_at: str) -> parts.Manifest:
        features = settings.features
        return parts.Manifest(
            format=parts.FORMAT,
            name=settings.name,
            version=number,
            created_at=created_at,
            features=parts.FeaturesPart(features.digest, features.names, parts.declared_of(features)),
            training=training,
            validation=validation,
            thresholds=thresholds,
            parity=parity,
            libraries=_libraries(),
            files={},
        )

    return Registry(settings.registry).add(
        settings.name,
        {parts.MODEL: model, parts.BASELINE: msgspec.json.encode(baseline), parts.GOLDEN: golden.to_bytes()},
        manifest_of,
        card=card.render,
    )


def _read(settings: TrainSettings, history: History, tell: OnProgress) -> Rows:
    if history.last_ms < settings.validation_from_ms:
        raise SettingsError(
            f"{settings.transactions} ends at {write_time(history.last_ms)}, before the validation begins "
            f"({write_time(settings.validation_from_ms)}): set an earlier end"
        )
    got = list(
        replay(
            settings.features,
            history,
            from_ms=settings.from_ms,
            until_ms=settings.until_ms,
            on_rows=lambda done, of: tell("read", done, of),
        )
    )
    if not got:
        raise SettingsError(
            f"{settings.transactions}: no transactions from {write_time(settings.from_ms)} to "
            f"{write_time(settings.until_ms)}; the file has {write_time(history.first_ms)} to {write_time(history.last_ms)}"
        )
    return Rows(
        np.concatenate([part.times_ms for part in got]),
        np.concatenate([part.cards for part in got]),
        np.concatenate([part.amounts for part in got]),
        np.concatenate([part.frauds for part in got]),
        np.concatenate([part.matrix for part in got]),
    )


def _fit(settings: TrainSettings, rows: Rows) -> Fitted:
    frauds = int(rows.frauds.sum())
    if frauds < FRAUDS_MIN or frauds == len(rows.frauds):
        raise SettingsError(
            f"{frauds} frauds among {len(rows.frauds)} transactions to fit: at least {FRAUDS_MIN}, and legitimate "
            "transactions beside them, are needed; take a longer range"
        )
    return fit(
        settings.estimator,
        settings.estimator_params,
        rows.matrix,
        rows.frauds,
        legit_share=settings.legit_share,
        seed=settings.seed,
    )


def _validate(settings: TrainSettings, rows: Rows) -> tuple[parts.ValidationPart, parts.ThresholdsPart]:
    """Fit on what was known when the validation began; thresholds and metrics on the validation."""
    held_out = rows.span(settings.validation_from_ms, settings.known_until_ms)
    frauds = int(held_out.frauds.sum())
    if frauds < FRAUDS_MIN:
        raise SettingsError(
            f"{frauds} frauds in the validation ({write_time(settings.validation_from_ms)} to "
            f"{write_time(settings.known_until_ms)}): at least {FRAUDS_MIN} are needed; take a longer validation"
        )
    scores = _fit(settings, rows.span(settings.from_ms, settings.validation_known_ms)).score(held_out.matrix)
    scored = held_out.scored(scores)
    points = metrics.curve(scored.frauds, scored.scores)
    review = review_threshold(points, scored.day_count, settings.alerts_per_day)
    block = block_threshold(points, settings.block_precision, review)
    part = parts.ValidationPart(
        from_time=write_time(settings.validation_from_ms),
        until_time=write_time(settings.known_until_ms),
        fitted_until=write_time(settings.validation_known_ms),
        transactions=len(scored),
        frauds=frauds,
        metrics=figures(scored, review=review, block=block),
        slices=slices(scored, review=review, utc_offset_ms=settings.features.spec.calendar.utc_offset_ms),
    )
    return part, parts.ThresholdsPart(review, block, settings.alerts_per_day, settings.block_precision)


def _parity_sample(rows: Rows, known_until_ms: int, seed: int) -> IntArray:
    """Known frauds first (up to half of the sample), then others, drawn once for all."""
    rng = np.random.default_rng(seed)
    known = rows.frauds & (rows.times_ms < known_until_ms)
    frauds = rng.permutation(np.flatnonzero(known))[: PARITY_ROWS // 2]
    others = rng.permutation(np.flatnonzero(~known))[: PARITY_ROWS - len(frauds)]
    return np.concatenate((frauds, others))


def _golden(matrix: parts.Matrix, scores: FloatArray) -> parts.Golden:
    """Rows from the whole range of scores, evenly by rank."""
    order = np.argsort(scores, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, GOLDEN_ROWS).astype(int))]
    return parts.Golden(matrix[chosen], scores[chosen])


def _newest(settings: TrainSettings, rows: Rows) -> Rows:
    """The reference period of drift: the newest stretch, which the version has not been fitted on.

    Labels are not needed for it, and scores there are like those of the days to come. Only where that is too short does
    it reach back into what was fitted.
    """
    week_ago_ms = settings.until_ms - REFERENCE_DAYS * DAY_MS
    newest = rows.span(max(settings.known_until_ms, week_ago_ms), settings.until_ms)
    if len(newest.times_ms) < REFERENCE_ROWS_MIN:
        newest = rows.span(week_ago_ms, settings.until_ms)
    return newest if len(newest.times_ms) else rows


def _recent(validated: parts.ThresholdsPart, newest: Scored) -> parts.ThresholdsPart:
    """The review threshold by the version's own scores of the newest stretch: a number of alerts needs no labels."""
    points = metrics.curve(newest.frauds, newest.scores)
    review = review_threshold(points, newest.day_count, validated.alerts_per_day)
    block = None if validated.block is None else max(validated.block, review)
    return parts.ThresholdsPart(review, block, validated.alerts_per_day, validated.block_precision)


def _earlier(settings: TrainSettings, history: History, rows: Rows, newest: Rows) -> Rows:
    """What came before the reference period, without the beginning, where windows were still filling, if enough is left."""
    until_ms = int(newest.times_ms[0])
    filled_ms = history.first_ms + settings.features.horizon_ms
    enough_ms = until_ms - 3 * (settings.until_ms - until_ms)
    third_ms = settings.from_ms + (until_ms - settings.from_ms) // 3
    return rows.span(filled_ms if filled_ms < enough_ms else third_ms, until_ms)


def _baseline(
    settings: TrainSettings, newest: Rows, known: Rows, scores: FloatArray, *, past: tuple[Rows, FloatArray]
) -> parts.Baseline:
    """The reference: bins of the newest stretch, and of `past` (rows and their scores) what chance does to them."""
    earlier, earlier_scores = past
    chance = Earlier(earlier.times_ms, settings.until_ms - int(newest.times_ms[0]))
    names = settings.features.names
    return parts.Baseline(
        from_time=write_time(int(newest.times_ms[0])),
        until_time=write_time(settings.until_ms),
        transactions=len(scores),
        features=feature_baselines(
            names,
            newest.matrix,
            fitted=known.matrix,
            fitted_frauds=known.frauds,
            past=chance,
            past_matrix=earlier.matrix,
        ),
        score=score_baseline(scores, chance, earlier_scores),
        daily=chance.daily(),
    )


def _training_part(settings: TrainSettings, history: History, known: Rows, fitted: Fitted) -> parts.TrainingPart:
    return parts.TrainingPart(
        source=settings.transactions.name,
        from_time=write_time(settings.from_ms),
        until_time=write_time(settings.until_ms),
        label_delay_ms=settings.label_delay_ms,
        labels_known_until=write_time(settings.known_until_ms),
        transactions=len(known.times_ms),
        frauds=int(known.frauds.sum()),
        legit_share=fitted.legit_share,
        estimator=settings.estimator,
        params=dict(settings.estimator_params),
        seed=settings.seed,
        notes=history.notes,
    )


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree that is not installed
            found[name] = "unknown"
    return found

"""The online model in a backtest: what it would have said, had its labels come as late as they do live.

Through the same learner as the live role. Before each hour it is given the transactions whose verdict is known by then (event
time and label delay), then the hour is scored with what it has learned: a scorer is never more than a second behind.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fraudstream.codec.times import write_time
from fraudstream.core.online import decided_with
from fraudstream.core.windows import BoolArray, FloatArray, IntArray
from fraudstream.events import Example
from fraudstream.models import metrics
from fraudstream.models.history import Replayed
from fraudstream.models.learner import LearnerSettings, OnlineLearner, Subject
from fraudstream.models.online import one_by_one
from fraudstream.models.quality import OnlineFigures, OnlineReport, none_if_nan

STEP_MS = 3_600_000


@dataclass
class _Waiting:
    """Scored transactions whose verdicts are still to come, from `next` on."""

    part: Replayed
    champion: FloatArray
    next: int = 0


class _Scored(NamedTuple):
    """What figures are made of. The features of a part are dropped once its verdicts have come."""

    times_ms: IntArray
    frauds: BoolArray
    champion: FloatArray
    online: FloatArray
    blend: FloatArray


class OnlineReplay:
    """Fed with the parts of a replay in their order, each with the champion's scores."""

    def __init__(self, subject: Subject, settings: LearnerSettings, *, label_delay_ms: int) -> None:
        self._subject = subject
        self._learner = OnlineLearner(subject, settings)
        self._delay_ms = label_delay_ms
        self._waiting: deque[_Waiting] = deque()
        self._evaluate_any = one_by_one(self._learner.model, subject.features)
        self._scored: list[_Scored] = []

    def feed(self, part: Replayed, champion: FloatArray) -> None:
        """Learn what is known by then and score, hour by hour."""
        hours = part.times_ms // STEP_MS
        online, blend = champion.copy(), champion.copy()
        self._waiting.append(_Waiting(part, champion))
        for rows in np.split(np.arange(len(hours)), np.flatnonzero(np.diff(hours)) + 1):
            self._learn(int(hours[rows[0]]) * STEP_MS)
            serving = self._learner.serving()
            if serving is None:
                continue
            linear = serving.linear()
            evaluate = self._evaluate_any if linear is None else linear.probabilities
            found = evaluate(part.matrix[rows], champion[rows])
            online[rows], blend[rows] = found, decided_with("blend", champion[rows], found, serving.share)
        self._scored.append(_Scored(part.times_ms, part.frauds, champion, online, blend))

    def report(self, from_ms: int) -> OnlineReport:
        """Figures over the transactions from `from_ms` on."""
        scored = _Scored(*map(np.concatenate, zip(*self._scored, strict=True)))
        rows = scored.times_ms >= from_ms
        frauds = scored.frauds[rows]
        champion, online, blend = (_figures(frauds, of[rows]) for of in (scored.champion, scored.online, scored.blend))
        learner = self._learner
        return OnlineReport(
            from_time=write_time(from_ms),
            transactions=int(rows.sum()),
            frauds=int(frauds.sum()),
            learned=learner.counts["learned"],
            share=learner.mixture.share,
            champion=champion,
            online=online,
            blend=blend,
        )

    def _learn(self, until_ms: int) -> None:
        while self._waiting:
            first = self._waiting[0]
            times = first.part.times_ms
            end = int(np.searchsorted(times, until_ms - self._delay_ms, side="right"))
            for at in range(first.next, end):
                known_ms = int(times[at]) + self._delay_ms
                self._learner.take(self._example(first, at, known_ms), known_ms, str(at))
            first.next = max(first.next, end)
            if end < len(times):
                return
            self._waiting.popleft()

    def _example(self, waiting: _Waiting, at: int, known_ms: int) -> Example:
        part, score = waiting.part, float(waiting.champion[at])
        subject = self._subject
        return Example(
            transaction_id=str(part.ids[at]),
            card_id=str(part.cards[at]),
            event_time_ms=int(part.times_ms[at]),
            label_time_ms=known_ms,
            is_fraud=bool(part.frauds[at]),
            source="chargeback",
            amount=float(part.amounts[at]),
            action="allow",
            score=score,
            champion_score=score,
            online_score=None,
            threshold=0.0,
            model_name=subject.name,
            model_version=subject.version,
            features_digest=subject.features_digest,
            features=part.matrix[at].astype("<f4").tobytes(),
        )


def _figures(frauds: BoolArray, scores: FloatArray) -> OnlineFigures:
    points = metrics.curve(frauds, scores)
    return OnlineFigures(
        log_loss=none_if_nan(metrics.log_loss(frauds, scores)),
        ap=none_if_nan(metrics.average_precision(points)),
        auc=none_if_nan(metrics.auc_roc(points)),
        expected_calibration_error=none_if_nan(metrics.expected_calibration_error(frauds, scores)),
    )

"""When the truth about a transaction becomes known, and who says it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.random import Generator
from numpy.typing import NDArray

from fraudstream_producers.randomness import Stream, generator
from fraudstream_producers.world import DAY_MS, HOUR_MS, Floats, Ints

Share = Annotated[float, Meta(ge=0, le=1)]


class Labels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Delays of the labels. They are always right, and every transaction has one at most, but for `again_share`.

    Most come as chargebacks after days: log-normal (`median_days`, `sigma` of the logarithm) or gamma (`median_days`,
    `shape`), never later than `cap_days`. Some come as verdicts of an analyst within hours. An honest transaction's
    label takes as long as a fraud's, so that the time of a label says nothing about what it says. `again_share` of the
    frauds that an analyst found are disputed by the cardholder, too: a chargeback says the same once more.
    """

    delay: Literal["lognormal", "gamma"] = "lognormal"
    median_days: Annotated[float, Meta(gt=0, le=3_650)] = 7.0
    sigma: Annotated[float, Meta(gt=0, le=5)] = 0.8
    shape: Annotated[float, Meta(gt=0, le=100)] = 1.5
    cap_days: Annotated[float, Meta(gt=0, le=3_650)] = 120.0
    honest_share: Share = 1.0  # of the honest transactions ever get a label
    analyst_fraud_share: Share = 0.15  # of the frauds an analyst saw before any chargeback
    analyst_honest_share: Share = 0.01
    analyst_median_hours: Annotated[float, Meta(gt=0, le=720)] = 3.0
    again_share: Share = 0.0


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The labels of one day's transactions, as columns."""

    row: Ints  # which of the day's transactions
    delay_ms: Ints  # from event_time to label_time; at least 1
    by_analyst: NDArray[np.bool_]


def verdicts(settings: Labels, is_fraud: NDArray[np.bool_], seed: int, day: int, scale: float = 1.0) -> Verdicts:
    """The labels of a day's transactions, in their order; all delays are multiplied by `scale`."""
    rng = generator(seed, Stream.LABELS, day)
    count = len(is_fraud)
    share = np.where(is_fraud, settings.analyst_fraud_share, settings.analyst_honest_share)
    by_analyst = rng.random(count) < share
    chargeback_ms = np.minimum(_chargeback_days(settings, count, rng), settings.cap_days) * DAY_MS
    analyst_ms = np.exp(rng.normal(np.log(settings.analyst_median_hours), 0.7, count)) * HOUR_MS
    delay_ms = np.where(by_analyst, np.minimum(analyst_ms, settings.cap_days * DAY_MS), chargeback_ms)
    row = np.flatnonzero(is_fraud | (rng.random(count) < settings.honest_share))
    again = np.flatnonzero(is_fraud & by_analyst & (rng.random(count) < settings.again_share))
    return Verdicts(
        np.concatenate([row, again]),
        _scaled(np.concatenate([delay_ms[row], chargeback_ms[again]]), scale),
        np.concatenate([by_analyst[row], np.zeros(len(again), np.bool_)]),
    )


def _scaled(delay_ms: Floats, scale: float) -> Ints:
    return np.maximum(1, np.rint(delay_ms * scale)).astype(np.int64)


def _chargeback_days(settings: Labels, count: int, rng: Generator) -> Floats:
    if settings.delay == "lognormal":
        return np.exp(rng.normal(np.log(settings.median_days), settings.sigma, count))
    return rng.gamma(settings.shape, settings.median_days / _gamma_median(settings.shape), count)


@lru_cache
def _gamma_median(shape: float) -> float:
    """Median of a gamma variable of scale 1, from a fixed sample: there is no closed form (error below 1 %)."""
    return float(np.median(np.random.Generator(np.random.PCG64(0)).gamma(shape, 1.0, 100_001)))

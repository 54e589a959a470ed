"""From censuses to checks: the last day and the last transactions against the reference, feature by feature."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec import Struct, field

from fraudstream.core.alarms import AlarmBook, Check
from fraudstream.core.census import SCORE, SCORE_UNIT, Counts
from fraudstream.core.drift import Null, alpha_of, chi2_quantile, jensen_shannon, kolmogorov_smirnov, psi, psi_limit
from fraudstream.core.quality import SQUARE_UNIT, UNIT, Tallies
from fraudstream.core.spec import SCORE_TOLD
from fraudstream.core.windows import FloatArray, IntArray
from fraudstream.events import ModelEvent

# What the kind of a check on bins begins with; `day` or `recent` follows.
PSI: Final = "psi_"
# Below this a window says nothing: a bin of a tenth would hold fifty.
TRANSACTIONS_MIN: Final = 500
# A trickle or a flood is an alarm from here on, whatever the days before were like.
RATE_MARGIN: Final = 0.25
# Rejected records of the recent ones, at least: two among ten are no rate.
REJECTED_MIN: Final = 20
# Frauds of a stretch, at least: the mean of their losses is then known to a tenth of their spread, or better.
FRAUDS_MIN: Final = 100
# Frauds of one campaign resemble each other: twice the variance of independent ones, as measured on simulated months.
CAMPAIGNS: Final = 2.0
# Checks of means: the frauds' loss, and ADWIN on the log-loss and on the score.
LABEL_CHECKS: Final = 3
# Their part of the alarms that are asked for. They are few beside some forty comparisons with the reference, and a new
# pattern of fraud is seen by them alone: an equal share for each check would make them blind.
LABEL_PART: Final = 0.5
# New keys, missing fields and values out of range are an alarm from this share of a day's transactions on.
SHARE_MAX: Final = 0.05
_SHARES: Final[Mapping[str, str]] = {
    "new": "a {} was seen for the first time",
    "missing": "{} was missing",
    "outside": "{} was smaller or larger than ever in the reference period",
}


class Bins(Struct, frozen=True):
    """The reference counts of one feature, or of the score, and what chance does; `told_only`: it drifts with the clock."""

    counts: tuple[int, ...]
    null_day: Null | None
    null_recent: Null | None
    told_only: bool = False


class Reference(Struct, frozen=True):
    """What is compared with. `recent` transactions make the recent window; `daily` are mean and deviation of a day's."""

    bins: dict[str, Bins]
    recent: int
    daily: tuple[float, float] | None = None


class Limits(Struct, frozen=True):
    """What the user sets: false alarms a month over all checks, and the share of rejected records that is too much."""

    alarms_per_month: float = 1.0
    reject_share_max: float = 0.01

    @property
    def by_labels(self) -> float:
        """The alarms a month that the checks of means may raise."""
        return LABEL_PART * self.alarms_per_month

    @property
    def by_reference(self) -> float:
        """The alarms a month that the comparisons with the reference may raise."""
        return self.alarms_per_month - self.by_labels


@dataclass(frozen=True)
class Windows:
    """What is judged; None while it is not full. Times are event times, none of them ahead of the wall clock.

    Parameters
    ----------
    newest_ms
        The newest event time that was counted, -1 before the first.
    day
        The newest 24 whole hours.
    recent
        The newest transactions, as many as the reference asks for.
    records
        The newest records, as many, of which some were rejected: without transactions there is no `recent`.
    days
        Counts by UTC day (since 1970), as far as they were read; the last one is still going on.
    """

    newest_ms: int = -1
    day: Counts | None = None
    recent: Counts | None = None
    records: Counts | None = None
    days: Mapping[int, Counts] = dataclasses.field(default_factory=dict)


def checks(reference: Reference, windows: Windows, limits: Limits) -> list[Check]:
    """Every figure against its limit. A window that is not full yet, or has too few transactions, is left out."""
    day, recent = windows.day, windows.recent
    usual = reference.daily[0] if reference.daily is not None else 0.0
    per_day = day.transactions if day is not None else usual
    found: list[Check] = []
    judged = 2 * sum(not bins.told_only for bins in reference.bins.values()) + 1
    compared = [(kind, counts) for kind, counts in (("day", day), ("recent", recent)) if counts is not None]
    for kind, counts in compared:
        if counts.transactions < TRANSACTIONS_MIN:
            continue
        per_month = 30.0 if kind == "day" else 30.0 * max(1.0, per_day / max(counts.transactions, 1))
        alpha = alpha_of(limits.by_reference, judged, per_month)
        for name, bins in reference.bins.items():
            # A history shorter than some such windows teaches nothing of them; a day scatters more, so its limit is safe.
            null = bins.null_day if kind == "day" else bins.null_recent or bins.null_day
            found.append(_shift(name, kind, bins, null=null, now=counts.bins[name], alpha=alpha))
    if day is not None and reference.daily is not None:
        found.append(_arrivals(day, reference.daily, alpha_of(limits.by_reference, judged, 30.0)))
    if day is not None and day.transactions >= TRANSACTIONS_MIN:
        found += _shares(day)
    if windows.records is not None:
        found += _rejects(windows.records, limits.reject_share_max)
    return found


def _shift(name: str, kind: str, bins: Bins, *, null: Null | None, now: IntArray, alpha: float) -> Check:
    reference = np.array(bins.counts)
    value = psi(reference, now)
    n = int(now.sum())
    limit = psi_limit(null, len(reference), alpha=alpha, reference=int(reference.sum()), now=n)
    shares = now / max(n, 1), reference / max(int(reference.sum()), 1)
    most = int(np.argmax(np.abs(shares[0] - shares[1])))
    subject = SCORE_TOLD if name == SCORE else name
    where = _where(most, len(reference))
    message = (
        f"{subject}: {shares[0][most]:.1%} of the {'last day' if kind == 'day' else 'last transactions'} lie {where}, "
        f"{shares[1][most]:.1%} did in the reference period"
    )
    values = {
        "jensen_shannon": jensen_shannon(reference, now),
        "kolmogorov_smirnov": kolmogorov_smirnov(reference, now),
        "transactions": float(n),
    }
    return Check(subject, f"{PSI}{kind}", value, limit, message, values, bins.told_only)


def _where(at: int, bins: int) -> str:
    if bins == 1:
        return "in the one bin there is"
    return "in the lowest bin" if at == 0 else "in the highest bin" if at == bins - 1 else f"in bin {at + 1} of {bins}"


def _arrivals(day: Counts, daily: tuple[float, float], alpha: float) -> Check:
    mean, sd = daily
    n = day.transactions
    limit = max(RATE_MARGIN * mean, sd * math.sqrt(chi2_quantile(alpha, 1.0)))
    message = (
        f"{n:,} transactions in the last day, {mean:,.0f} (standard deviation {sd:,.0f}) before the model was trained"
    )
    return Check("arrivals", "rate", abs(n - mean), limit, message, {"transactions": float(n), "mean": mean})


def _shares(day: Counts) -> list[Check]:
    """First sights of keys, missing fields and values never seen in the reference period, as shares of the day's transactions."""
    found = []
    for name, count in day.sums.items():
        what, _, field = name.partition(".")
        if what not in _SHARES:
            continue
        share = count / day.transactions
        message = f"{_SHARES[what].format(field)} for {share:.1%} of the last day's transactions"
        found.append(Check(field, what, share, SHARE_MAX, message, {"transactions": float(count)}))
    return found


def _rejects(records: Counts, share_max: float) -> list[Check]:
    rejected = records.sums["rejected"]
    seen = rejected + records.transactions
    if seen < TRANSACTIONS_MIN:
        return []
    share = rejected / seen if rejected >= REJECTED_MIN else 0.0
    message = f"{rejected:,} of the last {seen:,} records are no transactions (see the dead letters for the reasons)"
    return [Check("rejects", "rate", share, share_max, message, {"rejected": float(rejected)})]


def loss_check(days: Sequence[Tallies], limits: Limits) -> Check | None:
    """Do the newest labelled frauds surprise the champion more than those before? None while there are too few.

    A new pattern of fraud moves few transactions and shows in no feature; it shows in the log-loss of the frauds. Compared
    are means of two stretches of days by Welch's statistic; frauds come in campaigns, so its variance counts double.
    """
    late = np.zeros(2), 0
    split = len(days)
    while split and late[1] < FRAUDS_MIN:
        split -= 1
        late = _losses(days[split:])
    early = _losses(days[:split])
    if min(early[1], late[1]) < FRAUDS_MIN:
        return None
    means = [float(of[0][0]) / of[1] for of in (early, late)]
    variances = [max(0.0, float(of[0][1]) / of[1] - mean**2) for of, mean in zip((early, late), means, strict=True)]
    error = math.sqrt(CAMPAIGNS * sum(v / of[1] for v, of in zip(variances, (early, late), strict=True)))
    # Days overlap from look to look as windows do; a stretch of them is about a week.
    alpha = alpha_of(limits.by_labels, LABEL_CHECKS, 30.0 / 7.0)
    limit = math.sqrt(chi2_quantile(2 * alpha, 1.0))
    message = (
        f"the newest {late[1]:,} frauds with labels cost the champion {means[1]:.2f} nats each, the {early[1]:,} before "
        f"them {means[0]:.2f}: it does not know what fraud looks like now"
    )
    value = (means[1] - means[0]) / error if error > 0 else 0.0
    return Check("fraud loss", "welch", value, limit, message, {"early": means[0], "late": means[1]})


def _losses(days: Sequence[Tallies]) -> tuple[FloatArray, int]:
    """Sums of the frauds' losses and of their squares, and their number."""
    sums = [
        sum(day[name] for day in days) / unit
        for name, unit in (("fraud_loss", UNIT), ("fraud_loss_squared", SQUARE_UNIT))
    ]
    return np.array(sums), sum(day["frauds"] for day in days)


class Estimated(Struct, frozen=True):
    """Quality that the scores themselves promise, if they are calibrated: no label needed.

    Of transactions with scores p, about the sum of p are frauds (confidence-based performance estimation; its formulas
    are the expected counts of true and false alerts).
    """

    transactions: int
    alerts: int
    frauds: float
    precision: float | None
    recall: float | None
    alert_rate: float | None
    amount_alerted: float
    amount_missed: float


def estimated(sums: Mapping[str, int]) -> Estimated:
    """The expected figures of the transactions that were counted; the money is whole amounts, without a cost matrix."""
    n, alerts = sums["transactions"], sums["alerts"]
    frauds, hits = sums["score"] / SCORE_UNIT, sums["alert_score"] / SCORE_UNIT
    return Estimated(
        transactions=n,
        alerts=alerts,
        frauds=frauds,
        precision=hits / alerts if alerts else None,
        recall=hits / frauds if frauds else None,
        alert_rate=alerts / n if n else None,
        amount_alerted=sums["alert_amount_score"] / 100,
        amount_missed=(sums["amount_score"] - sums["alert_amount_score"]) / 100,
    )


class Followed(Struct):
    """A stream of figures whose mean is watched, as far as it was seen.

    `figures` are the newest; `usual` is the mean of the first ones (0 while they are too few); `moved` is set from a move of
    the mean, which was `before` it, until an alarm tells of it; `fed` and `upto` say how far the source was read.
    """

    figures: list[float] = []
    usual: float = 0.0
    moved: bool = False
    before: float = 0.0
    fed: tuple[int, int] = (0, 0)
    upto: int = -1


class Watched(Struct):
    """The state: what was found last, the alarms, and the days. `at_ms` is the newest event time that was counted.

    `unpublished` are events of alarms that are in the state and perhaps not on their topic yet.
    """

    model: str = ""
    version: str = ""
    at_ms: int = -1
    transactions: int = 0
    checks: list[Check] = []
    bins: dict[str, list[list[int]]] = {}  # (reference, last day, recent) by feature
    alarms: AlarmBook = field(default_factory=AlarmBook)
    days: dict[int, Estimated] = {}
    score: Followed = field(default_factory=Followed)
    loss: Followed = field(default_factory=Followed)
    unpublished: list[ModelEvent] = []

    def histograms(self, check: Check) -> tuple[list[int], list[int]]:
        """The bins of the reference and of the window of a check; empty for checks without any."""
        if not check.kind.startswith(PSI):
            return [], []
        reference, day, recent = self.bins[SCORE if check.subject == SCORE_TOLD else check.subject]
        return reference, day if check.kind == f"{PSI}day" else recent

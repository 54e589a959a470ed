"""What the learner decides beside the model: the share of a blend, and when to stop learning. Told and answering.

Everything here is a function of the examples in their order, never of a clock or of how they were cut into batches: a
learner that was killed and began again from its snapshot comes to the same state to the last bit.
"""

import math
from typing import Final, Literal

from msgspec import Struct

from fraudstream.core.features import DAY_MS

Policy = Literal["champion", "online", "blend", "shadow"]
"""What a decision is made with. `shadow`: with the champion, the online model's score is only recorded."""

Cause = Literal["fraud_share", "rate", "not_finite"]

# Scores of exactly 0 and 1 would make one wrong answer infinitely bad; scikit-learn clips float32 probabilities so too, to
# the epsilon of float32.
LOG_LOSS_CLIP: Final = 2.0**-23


def log_loss(is_fraud: bool, probability: float) -> float:
    """Surprise of one verdict, in nats."""
    told = probability if is_fraud else 1.0 - probability
    return -math.log(min(max(told, LOG_LOSS_CLIP), 1.0))


class Mixture(Struct):
    """The online model's share in a blend, by what each would have paid in log-loss for the newest examples.

    The share is the posterior probability of the online model among the two, if the evidence of an example fades with
    the number of examples since: `log_odds` is the faded sum of (champion's loss - online model's loss).
    """

    log_odds: float = 0.0

    @property
    def share(self) -> float:
        """In (0, 1); a half before anything is known."""
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, self.log_odds))))

    def update(self, loss_champion: float, loss_online: float, *, memory: float) -> None:
        """Learn from one example. `memory`: after how many examples evidence has faded to 1/e."""
        self.log_odds = (1.0 - 1.0 / memory) * self.log_odds + (loss_champion - loss_online)


class GuardLimits(Struct, frozen=True):
    """What is learned from only within these: labels can be forged, and pipelines can break.

    `fraud_share_min` and `fraud_share_max` bound the share of frauds over the last `memory` examples or so;
    `examples_per_day_max` how many may come in a day (as many may come at once, as in a daily file).
    """

    fraud_share_min: float = 1e-5
    fraud_share_max: float = 0.2
    memory: float = 2_000.0
    examples_per_day_max: float = 2_000_000.0


class Guard(Struct):
    """May be learned from what comes? Frozen while a limit is passed, and for good once weights are no numbers."""

    seen: int = 0
    fraud_share: float = 0.0
    level: float = 0.0  # of a bucket that holds a day's examples and leaks as fast
    level_at_ms: int = 0
    frozen: Cause | None = None

    def admit(self, is_fraud: bool, at_ms: int, limits: GuardLimits) -> bool:
        """Take note of an example that was published at `at_ms` (its record's time); may it be learned?"""
        self.seen += 1
        # A plain mean first, so that the share means something from the start.
        self.fraud_share += (is_fraud - self.fraud_share) / min(self.seen, limits.memory)
        per_day = limits.examples_per_day_max
        passed_ms = max(0, at_ms - self.level_at_ms)
        self.level = max(0.0, self.level - passed_ms * per_day / DAY_MS) + 1.0
        self.level_at_ms = max(self.level_at_ms, at_ms)
        if self.frozen != "not_finite":
            self.frozen = self._cause(limits)
        self.level = min(self.level, 2.0 * per_day)
        return self.frozen is None

    def _cause(self, limits: GuardLimits) -> Cause | None:
        # What freezes ends a little inside the limit: at the limit itself it would begin and end with every example.
        margin = 0.9 if self.frozen == "rate" else 1.0
        if self.level > margin * limits.examples_per_day_max:
            return "rate"
        if self.seen < limits.memory:
            return None
        inside = 0.9 if self.frozen == "fraud_share" else 1.0
        low, high = limits.fraud_share_min / inside, limits.fraud_share_max * inside
        return None if low <= self.fraud_share <= high else "fraud_share"

"""What the learner keeps of quality beside what it learns: fields of the same hash, written by the same atomic commit."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from fraudstream.codec.amounts import minor_units
from fraudstream.core.quality import QUALITY, Judged, Quality
from fraudstream.events import Example

log = logging.getLogger("fraudstream.learner")


class Judge:
    """Judges examples by the scores their transactions had when they were decided.

    `thresholds` are review and block of one version, by its name; of others only the threshold of the action is known.
    """

    def __init__(self, thresholds: Mapping[str, tuple[float, float]] | None = None) -> None:
        self._thresholds = thresholds or {}
        self.quality = Quality()

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Go on from what was stored, without what cannot be read of it."""
        fields = {name.removeprefix(QUALITY): part for name, part in parts.items() if name.startswith(QUALITY) and part}
        self.quality = Quality.from_fields(fields)
        for name, fault in self.quality.unreadable.items():
            log.error("the figures of quality %s cannot be read and begin anew: %s", name, fault)

    def judge(self, examples: Sequence[Example]) -> None:
        """Count examples, each of which comes once."""
        by_version: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            if not example.degraded:  # decided without state: that says nothing of a model
                by_version[f"{example.model_name} {example.model_version}"].append(example)
        for version, some in by_version.items():
            limits = np.array([self._limits(version, example) for example in some])
            self.quality.update(
                Judged(
                    version,
                    times_ms=np.array([example.event_time_ms for example in some], np.int64),
                    frauds=np.array([example.is_fraud for example in some], np.bool_),
                    amounts_minor=np.array([minor_units(example.amount) for example in some], np.int64),
                    review=limits[:, 0],
                    block=limits[:, 1],
                    scores={
                        "champion": np.array([example.champion_score for example in some]),
                        "online": np.array([_or_nan(example.online_score) for example in some]),
                        "decided": np.array([example.score for example in some]),
                    },
                )
            )

    def parts(self) -> dict[str, bytes]:
        """The fields that changed; those that left are empty."""
        written, dropped = self.quality.changes()
        return {QUALITY + name: b"" for name in dropped} | {QUALITY + name: part for name, part in written.items()}

    def _limits(self, version: str, example: Example) -> tuple[float, float]:
        known = self._thresholds.get(version)
        if known is not None:
            return known
        return example.threshold, example.threshold if example.action == "block" else math.inf


def _or_nan(score: float | None) -> float:
    return math.nan if score is None else score

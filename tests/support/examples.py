"""Examples to learn from, as records of their topic: a stream that can be learned, from one seed."""

import math
import random
from collections.abc import Iterator, Sequence

import numpy as np

from fraudstream.codec import encode_example
from fraudstream.events import Example
from fraudstream.models.learner import Subject
from fraudstream.testing import EPOCH_MS, FakeRecord
from fraudstream.topics import TOPICS

NAMES = tuple(f"feature_{number}" for number in range(19))
SUBJECT = Subject("fraud", "1", "d" * 64, NAMES)


def examples(count: int, *, seed: int = 1, fraud_share: float = 0.05) -> Iterator[Example]:
    """Frauds that the champion sees half of: the rest shows in the first feature."""
    rng = random.Random(seed)
    for number in range(count):
        is_fraud = rng.random() < fraud_share
        values = np.array([rng.gauss(2.0 * is_fraud if n == 0 else 0.0, 1.0 + n) for n in range(len(NAMES))], "<f4")
        champion = 1.0 / (1.0 + math.exp(-rng.gauss(-1.0 if is_fraud else -4.0, 1.5)))
        yield Example(
            transaction_id=f"t{number}",
            card_id=f"c{number % 100}",
            event_time_ms=EPOCH_MS + 1000 * number,
            label_time_ms=EPOCH_MS + 1000 * number + 7 * 86_400_000,
            is_fraud=is_fraud,
            source="chargeback",
            amount=20.0,
            action="allow",
            score=champion,
            champion_score=champion,
            online_score=None,
            threshold=0.5,
            model_name=SUBJECT.name,
            model_version=SUBJECT.version,
            features_digest=SUBJECT.features_digest,
            features=values.tobytes(),
        )


def records(found: Sequence[Example], *, first: int = 0, every_ms: int = 1000) -> list[FakeRecord]:
    """Records of the topic, in order, `every_ms` apart."""
    return [
        FakeRecord(TOPICS.examples, 0, first + n, EPOCH_MS + every_ms * (first + n), b"c", encode_example(example))
        for n, example in enumerate(found)
    ]

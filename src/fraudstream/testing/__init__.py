"""For tests of those who build on fraudstream: pipe records in, read records out, crash in between. No broker, no Redis.

The real codec, engine and commit rules run; only Kafka and Redis are replaced, by a log and `MemoryStore`. Faults that
your system must survive are planted by name: `Driver(at=fails("after commit"))`. What seeds can do to the whole system is
in `fraudstream.testing.simulation`.
"""

from fraudstream.adapters.memory_learner import MemoryLearnerStore
from fraudstream.testing.driver import (
    EPOCH_MS,
    MINUTE_MS,
    AmountModel,
    Driver,
    FakeRecord,
    card_transaction,
    toy_model,
)
from fraudstream.testing.faults import FlakyBroker, FlakyStore, ForgetfulStore, Hook, WorkerKilled, fails, kills

__all__ = [
    "EPOCH_MS",
    "MINUTE_MS",
    "AmountModel",
    "Driver",
    "FakeRecord",
    "FlakyBroker",
    "FlakyStore",
    "ForgetfulStore",
    "Hook",
    "MemoryLearnerStore",
    "WorkerKilled",
    "card_transaction",
    "fails",
    "kills",
    "toy_model",
]

"""The system under random faults of its real parts: Kafka, Redis and three workers, killed, frozen and restarted.

`upstream` writes what comes in, `faults` decides what goes wrong, `run` lets both happen, `oracle` says what must be true
afterwards. `make chaos SEED=7` runs one round, `make chaos MINUTES=30` rounds of following seeds.
"""

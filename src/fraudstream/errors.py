"""Exceptions a caller can act on. What is wrong with one record is a value (`events.Rejected`), never an exception."""


class FraudstreamError(Exception):
    """Base of every error this package raises on purpose; its text is one line that says what to do next."""


class SettingsError(FraudstreamError):
    """A setting is missing, unreadable or out of range. Ends the start with exit code 2."""


class ModelError(FraudstreamError):
    """A model version is missing, tampered with, or does not fit the declared features. It never decides."""


class StateUnavailable(FraudstreamError):  # noqa: N818 - names a condition of the outside world, not a fault of ours
    """The state store cannot be reached or refuses to work."""


class StillBuilding(StateUnavailable):
    """What is asked is there when it has been built, however long that takes: wait, and do not give up."""


class BrokerUnavailable(FraudstreamError):  # noqa: N818 - see above
    """Kafka cannot be reached, or did not acknowledge what was published."""

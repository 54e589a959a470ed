"""The one exception that a command shows as a line and an exit code."""


class UsageError(Exception):
    """What was asked cannot be done: a bad option, an unreadable file, a broker that does not answer (exit code 2)."""

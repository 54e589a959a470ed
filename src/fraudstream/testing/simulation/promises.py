"""How a broken promise is told: an error of its own, as `python -O` takes assertions away."""


class PromiseBroken(AssertionError):  # noqa: N818 - says what happened, not that a program is wrong
    """Something that must always hold did not, in the words of the error."""


def promise(held: bool, otherwise: str) -> None:
    """Raise `PromiseBroken` unless it held."""
    if not held:
        raise PromiseBroken(otherwise)

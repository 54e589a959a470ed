"""Amounts in hundredths, as decimal arithmetic on the written number would give them."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

# |amount * 100 - nearest integer| beyond which the product may be on the wrong side of a half. Below 10^12 (the largest
# amount a limit can allow) amount * 100 is off by less than 0.02, so 0.45 is far more careful than it has to be, and
# amounts with at most two decimals never get there: their product is off an integer by that error alone.
_NEAR_HALF: Final = 0.45


def minor_units(amount: float) -> int:
    """`amount` in hundredths, round half even, exactly as for the shortest decimal text that reads back as `amount`.

    Parameters
    ----------
    amount
        Major units, finite, 0 to 1e12.

    Returns
    -------
    int
        Exact for every amount written with at most two decimals and at most 15 digits.

    Examples
    --------
    Plain `round(2.675 * 100)` gives 267, because the product is 267.49999999999994:

    >>> minor_units(2.675), minor_units(0.285), minor_units(12.34)
    (268, 28, 1234)
    """
    product = amount * 100.0
    nearest = round(product)
    if -_NEAR_HALF < product - nearest < _NEAR_HALF:
        return nearest
    # repr() is the shortest decimal text of a double: the number as it was written, up to 15 digits.
    return int(Decimal(repr(amount)).scaleb(2).quantize(Decimal(1), ROUND_HALF_EVEN))

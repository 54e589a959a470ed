"""Times on the wire: RFC 3339 text; inside the process: integer milliseconds since 1970-01-01T00:00:00Z."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final

import msgspec

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset; the type the JSON decoder reads RFC 3339 text with."""

TIME_MS_MAX: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z: the last time that RFC 3339 can write
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_SECONDS: Final = tuple(f"{second:02d}." for second in range(60))
_MILLISECONDS: Final = tuple(f"{millisecond:03d}Z" for millisecond in range(1000))


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch of a time with an offset; what is finer than a millisecond is cut."""
    passed = moment - _EPOCH
    return passed.days * 86_400_000 + passed.seconds * 1000 + passed.microseconds // 1000


def read_time(text: str) -> int | None:
    """Milliseconds since the epoch of RFC 3339 text, or None when it is unreadable or has no offset.

    Read to the nearest microsecond, then cut to the millisecond. A space for the `T`, small `t` and `z`, and an offset
    without its colon (`+0200`) are taken; a leap second (`:60`) is not.
    """
    try:
        return to_ms(msgspec.convert(text, Moment))
    except msgspec.ValidationError:
        return None


@lru_cache(maxsize=4096)  # minutes: event times are close together, live as in a replay; about 0.5 MB when full
def _minute_text(minute: int) -> str:
    return (_EPOCH + timedelta(minutes=minute)).isoformat()[:17]


def write_time(time_ms: int) -> str:
    """RFC 3339 text in UTC with milliseconds. `time_ms` in [0, TIME_MS_MAX].

    >>> write_time(1_530_403_212_000)
    '2018-07-01T00:00:12.000Z'
    """
    minute, rest = divmod(time_ms, 60_000)
    second, millisecond = divmod(rest, 1000)
    return _minute_text(minute) + _SECONDS[second] + _MILLISECONDS[millisecond]

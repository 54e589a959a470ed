"""Dead letters: the original key and value, untouched, with headers that say what was wrong and where it came from."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from fraudstream.codec.times import TIME_MS_MAX, write_time
from fraudstream.events import Record, Rejected

REASON: Final = "fraudstream-reason"
MESSAGE: Final = "fraudstream-message"
TOPIC: Final = "fraudstream-topic"
PARTITION: Final = "fraudstream-partition"
OFFSET: Final = "fraudstream-offset"
TIMESTAMP: Final = "fraudstream-timestamp"
TIME: Final = "fraudstream-time"

HEADERS: Final = {
    REASON: "Reason code.",
    MESSAGE: "What was wrong, in words; never a part of the payload.",
    TOPIC: "Topic of the refused record.",
    PARTITION: "Its partition.",
    OFFSET: "Its offset.",
    TIMESTAMP: "Its timestamp, milliseconds since the epoch; -1 when it had none.",
    TIME: "When it was refused, RFC 3339.",
}
"""Name and meaning of every header that a dead letter has besides the original ones. All values are UTF-8 text."""

CUT: Final = "fraudstream-cut"

OPTIONAL_HEADERS: Final = {
    CUT: "Bytes of the original value, where the topic refused the whole letter as too large: this one has its beginning.",
}
"""Headers that only some dead letters have. A letter that was cut has none of the original headers."""

Headers = list[tuple[str, bytes | None]]
"""As Kafka has them: names may repeat, values may be null."""


class DeadLetter(Struct, frozen=True):
    """What the headers of a dead letter say."""

    reason: str
    message: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    time: str


def dead_letter_headers(record: Record, rejected: Rejected, at_ms: int, *, cut: bool = False) -> Headers:
    """The headers of a record's dead letter: the original ones in their order, then ours.

    Headers of our names that the record already has, because it is a dead letter that was replayed and refused again,
    are replaced.

    Parameters
    ----------
    record
        The refused record, as Kafka delivered it.
    rejected
        Why.
    at_ms
        Now, in milliseconds since the epoch.
    cut
        Whether the letter has only the beginning of the value; the original headers are left out then.
    """
    timestamp: int | None = record.timestamp
    if timestamp is None:  # type: ignore[redundant-expr, unused-ignore]  # clients of very old brokers
        timestamp = -1
    ours = [
        (REASON, rejected.reason.value),
        (MESSAGE, rejected.message),
        (TOPIC, record.topic),
        (PARTITION, str(record.partition)),
        (OFFSET, str(record.offset)),
        (TIMESTAMP, str(timestamp)),
        (TIME, write_time(min(max(at_ms, 0), TIME_MS_MAX))),
    ]
    if cut:
        ours.append((CUT, str(len(record.value or b""))))
    kept = [] if cut else original_headers(record.headers)
    return kept + [(name, text.encode()) for name, text in ours]


def original_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> Headers:
    """The headers without ours: what a dead letter's record came with, for replaying it."""
    return [(name, value) for name, value in headers or () if name not in HEADERS and name not in OPTIONAL_HEADERS]


def read_dead_letter(headers: Iterable[tuple[str, bytes | None]] | None) -> DeadLetter | None:
    """What the headers of a dead letter say; None when they are not those of a dead letter of ours."""
    texts = {name: value.decode(errors="replace") for name, value in headers or () if name in HEADERS and value}
    try:
        return DeadLetter(
            reason=texts[REASON],
            message=texts[MESSAGE],
            topic=texts[TOPIC],
            partition=int(texts[PARTITION]),
            offset=int(texts[OFFSET]),
            timestamp_ms=int(texts[TIMESTAMP]),
            time=texts[TIME],
        )
    except (KeyError, ValueError):
        return None

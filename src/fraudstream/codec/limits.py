"""What a record may measure. Each limit has a name, a default and a reason."""

from msgspec import Struct

from fraudstream.errors import SettingsError

_DAY_MS = 86_400_000

# The window state keeps sums of squares of amounts in hundredths as 64-bit integers: (3 * 10^9)^2 < 2^63.
_AMOUNT_MAX_MAX = 30_000_000.0
# Deep enough for any event; far below the depth at which a recursive parser runs out of stack.
_NESTING_DEPTH_MAX_MAX = 64


class Limits(Struct, frozen=True):
    """Limits on one record of `transactions` or `labels`. Beyond a limit a record is a dead letter, never an error."""

    payload_bytes_max: int = 65_536
    """Bytes of a value. A transaction has some 250; 64 KiB leave room for extras, and a fetch of Kafka's default
    1 MiB still holds 16 of the largest, so no single record can fill a micro-batch's memory."""

    id_length_max: int = 128
    """Characters of a transaction, card or terminal id. UUIDs have 36, SHA-512 in hex has 128. Ids become keys in
    Redis, kept for the retention, so their length is paid for millions of times."""

    amount_max: float = 1_000_000.0
    """Major units. Above what a card is charged at once in most currencies; beyond it a wrong unit is likelier. Raise it
    for currencies of small units, up to 30 million: above that the square of an amount no longer fits the state."""

    nesting_depth_max: int = 16
    """Objects and arrays open at once, the outermost included. Events have one to three; parsers recurse."""

    text_length_max: int = 1_024
    """Characters of free text that is kept (a label's `reason`): one sentence of an analyst, not a document."""

    event_time_behind_ms_max: int = 30 * _DAY_MS
    """How far `event_time` may lie before the record's own time: a terminal that was offline for weeks. Older than the
    longest window of the default features (30 days), a transaction could not be told from a wrong unit or clock."""

    event_time_ahead_ms_max: int = _DAY_MS
    """How far `event_time` may lie after the record's own time: a clock that is off by a time zone (14 h at most) is
    still taken; more would push the windows of its card into the future for good."""

    def __post_init__(self) -> None:
        """Refuse limits under which the codec's own promises would not hold.

        Raises
        ------
        SettingsError
            With the name of the limit and its range.
        """
        ranges: tuple[tuple[str, float, float], ...] = (
            ("payload_bytes_max", 1, 2**31),
            ("id_length_max", 1, 4_096),
            ("amount_max", 0, _AMOUNT_MAX_MAX),
            ("nesting_depth_max", 1, _NESTING_DEPTH_MAX_MAX),
            ("text_length_max", 1, 2**31),
            ("event_time_behind_ms_max", 0, 2**53),
            ("event_time_ahead_ms_max", 0, 2**53),
        )
        for name, lowest, highest in ranges:
            if not lowest <= getattr(self, name) <= highest:
                raise SettingsError(f"limit {name} must be between {lowest:g} and {highest:g}")

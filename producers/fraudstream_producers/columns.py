"""Columns on their way to a file or a topic, as Arrow tables."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraudstream_producers.errors import UsageError
from fraudstream_producers.world import Ints

TIMESTAMP = pa.timestamp("ms", tz="UTC")

# The columns of a transactions file; `is_fraud` is the truth and never part of a transaction's JSON.
TRANSACTIONS = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_time", TIMESTAMP),
        ("card_id", pa.string()),
        ("terminal_id", pa.string()),
        ("amount", pa.float64()),
        ("is_fraud", pa.bool_()),
    ]
)

# The columns of a labels file. `reason` names the fraud pattern and is null for honest transactions.
LABELS = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("card_id", pa.string()),
        ("is_fraud", pa.bool_()),
        ("label_time", TIMESTAMP),
        ("source", pa.string()),
        ("reason", pa.string()),
    ]
)


def numbered(prefix: str, numbers: Ints, digits: int) -> pa.Array:
    """`prefix` and each number with leading zeros, as an Arrow string array (built as bytes: 20 times str.format).

    Raises
    ------
    UsageError
        A number has more than `digits` digits.
    """
    if len(numbers) and int(numbers.max()) >= 10**digits:
        raise UsageError(f"{int(numbers.max())} does not fit into an id of {digits} digits")
    head = np.frombuffer(prefix.encode(), np.uint8)
    text = np.empty((len(numbers), len(head) + digits), np.uint8)
    text[:, : len(head)] = head
    rest = numbers.astype(np.int64)
    for column in range(text.shape[1] - 1, len(head) - 1, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, column] = digit + ord("0")
    ends = np.arange(len(numbers) + 1, dtype=np.int32) * np.int32(text.shape[1])
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(ends), pa.py_buffer(text))


def timestamps(epoch_ms: Ints) -> pa.Array:
    """Milliseconds since the epoch as Arrow timestamps in UTC."""
    return pa.array(epoch_ms, pa.int64()).cast(TIMESTAMP)


def epoch_ms(column: pa.ChunkedArray) -> Ints:
    """Arrow timestamps as milliseconds since the epoch. The column must hold no null."""
    values: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return values

"""What is known of the system downstream: the names of its topics and the JSON of their records."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from fraudstream_producers.columns import epoch_ms

TimeFormat = Literal["rfc3339", "ms"]
TRANSACTIONS_TOPIC = "transactions"
LABELS_TOPIC = "labels"


class TransactionJson(Struct, gc=False):
    """The value of a record of `transactions`. A null of the file stays null, for downstream to refuse."""

    transaction_id: str | None
    event_time: str | int
    card_id: str | None
    terminal_id: str | None
    amount: float | None


class LabelJson(Struct, gc=False, omit_defaults=True):
    """The value of a record of `labels`."""

    transaction_id: str | None
    is_fraud: bool
    label_time: str | int
    source: str
    reason: str | None = None


class Encoder:
    """Rows of a table to keys and values. Only named columns are ever sent, so the truth cannot slip out."""

    def __init__(self, time_format: TimeFormat = "rfc3339", extra_columns: Sequence[str] = ()) -> None:
        self._time_format = time_format
        self._extra_columns = tuple(extra_columns)
        self._encode = msgspec.json.Encoder().encode

    def transactions(self, table: pa.Table) -> tuple[list[bytes | None], list[bytes]]:
        """Keys (card_id) and values of the rows of a transactions table."""
        rows: Any = map(
            TransactionJson,
            table["transaction_id"].to_pylist(),
            self._times(table["event_time"]),
            table["card_id"].to_pylist(),
            table["terminal_id"].to_pylist(),
            table["amount"].to_pylist(),
        )
        if self._extra_columns:
            rows = map(_with_extras, rows, table.select(self._extra_columns).to_pylist())
        return _keys(table["card_id"]), list(map(self._encode, rows))

    def labels(self, table: pa.Table) -> tuple[list[bytes | None], list[bytes]]:
        """Keys (card_id, so that a label follows its transaction's partition) and values of a labels table."""
        rows = map(
            LabelJson,
            table["transaction_id"].to_pylist(),
            table["is_fraud"].to_pylist(),
            self._times(table["label_time"]),
            table["source"].to_pylist(),
            table["reason"].to_pylist(),
        )
        return _keys(table["card_id"]), list(map(self._encode, rows))

    def _times(self, column: pa.ChunkedArray) -> list[str] | list[int]:
        values = epoch_ms(column)
        return values.tolist() if self._time_format == "ms" else rfc3339(values)


def rfc3339(values: NDArray[np.int64]) -> list[str]:
    """Milliseconds since the epoch as text: 2018-04-01T00:00:31.000Z."""
    text: list[str] = np.datetime_as_string(values.view("datetime64[ms]"), timezone="UTC").tolist()
    return text


def _keys(card_id: pa.ChunkedArray) -> list[bytes | None]:
    keys: list[bytes | None] = card_id.cast(pa.large_binary()).to_pylist()
    return keys


def _with_extras(row: TransactionJson, extras: dict[str, Any]) -> dict[str, Any]:
    return msgspec.structs.asdict(row) | {name: value for name, value in extras.items() if value is not None}

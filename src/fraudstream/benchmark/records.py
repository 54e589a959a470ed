"""Live transactions as Kafka records, and the two ways to send them: all at once, or each at its time."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Producer

from fraudstream.core.windows import FloatArray
from fraudstream.errors import BrokerUnavailable

FLUSH_S_MAX: Final = 120.0
# Records before the schedule begins: they open connections, and are not measured.
LEAD_S: Final = 1.0
# An open-loop sender looks at its schedule this often; what is due goes out at once.
LOOK_S: Final = 0.0005


@dataclass(frozen=True)
class Records:
    """Columns of equal length, in the order of event time."""

    ids: list[str]
    keys: list[str]
    values: list[bytes]
    times_ms: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int) -> "Records":
        """The first so many."""
        return Records(self.ids[:count], self.keys[:count], self.values[:count], self.times_ms[:count])


def read(file: Path, first: int, count: int, *, faster: int = 1) -> Records:
    """The records of the transactions number `first` and following of a Parquet file.

    Event time passes `faster` times as fast as in the file, from the file's first transaction on.
    """
    table = pq.read_table(file, columns=["transaction_id", "event_time", "card_id", "terminal_id", "amount"])
    if table.num_rows < first + count:
        raise ValueError(f"{file} has {table.num_rows:,} transactions, {first + count:,} are needed")
    at_ms = table["event_time"].cast("int64").to_numpy()
    at_ms = (at_ms[0] + (at_ms - at_ms[0]) // faster)[first : first + count]
    part = table.slice(first, count)
    times = pa.array(at_ms).cast(part["event_time"].type)
    part = part.set_column(part.column_names.index("event_time"), "event_time", times)
    times_ms = at_ms.tolist()
    encode = msgspec.json.Encoder().encode
    values = [encode(row) for row in part.to_pylist()]
    return Records(part["transaction_id"].to_pylist(), part["card_id"].to_pylist(), values, times_ms)


def fill(bootstrap_servers: str, topic: str, records: Records) -> None:
    """Send all records as fast as they go, each with its event time as timestamp; all are acknowledged."""
    producer = Producer({**_producer(bootstrap_servers), "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for key, value, at_ms in zip(records.keys, records.values, records.times_ms, strict=True):
        while True:
            try:
                producer.produce(topic, value, key, timestamp=at_ms)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(FLUSH_S_MAX):
        raise BrokerUnavailable(f"{left:,} records were not acknowledged within {FLUSH_S_MAX:g} s")


def schedule_s(rate: float, count: int, seed: int) -> FloatArray:
    """When each of `count` records is due, in seconds from the start: Poisson arrivals, as of cards that do not know
    each other.

    Examples
    --------
    >>> due = schedule_s(rate=100.0, count=10_000, seed=1)
    >>> bool((due[1:] >= due[:-1]).all()), round(float(due[-1]))
    (True, 100)
    """
    gaps: FloatArray = np.random.default_rng(seed).exponential(1 / rate, count)
    return np.cumsum(gaps)


def send_open_loop(options: Mapping[str, Any], told: Connection) -> None:
    """The body of a process that sends each record at its scheduled time, whatever becomes of the ones before.

    `options`: bootstrap_servers, topic, file, faster, first, lead (records sent before the schedule begins), count, rate, seed.
    Tells (0.0) when it is ready, is told the Unix time of the schedule's zero, and tells at the end how late the latest
    record was handed to the client.
    """
    lead, count = options["lead"], options["count"]
    records = read(Path(options["file"]), options["first"], lead + count, faster=options["faster"])
    producer = Producer({**_producer(options["bootstrap_servers"]), "linger.ms": 0})
    producer.list_topics(options["topic"], timeout=10)
    topic = options["topic"]
    for number in range(lead):
        producer.produce(topic, records.values[number], records.keys[number], timestamp=records.times_ms[number])
        if number % 50 == 49:
            producer.poll(0)
            time.sleep(50 * LEAD_S / max(lead, 1))
    producer.flush(FLUSH_S_MAX)
    due_s = schedule_s(options["rate"], count, options["seed"]).tolist()
    told.send(0.0)
    zero_s = told.recv()
    latest_s, sent = 0.0, 0
    while sent < count:
        now_s = time.time() - zero_s
        while sent < count and due_s[sent] <= now_s:
            at = lead + sent
            producer.produce(topic, records.values[at], records.keys[at], timestamp=records.times_ms[at])
            latest_s = max(latest_s, now_s - due_s[sent])
            sent += 1
        producer.poll(0)
        if sent < count:
            time.sleep(max(LOOK_S, due_s[sent] + zero_s - time.time()))
    producer.flush(FLUSH_S_MAX)
    told.send(latest_s)


def _producer(bootstrap_servers: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap_servers,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "log_level": 0,
    }

"""Records that no ordinary client can make: headers whose names are any bytes."""

import aiokafka
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

# Above what Kafka takes by default, so that a test can go up to that limit.
BATCH_BYTES = 2_000_000


class _Name(str):
    """A header name that goes out as given."""

    __slots__ = ("raw",)

    def __new__(cls, raw: bytes) -> "_Name":
        made = super().__new__(cls, raw.decode("latin-1"))
        made.raw = raw
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw


async def produce_headers(
    bootstrap_servers: str,
    topic: str,
    records: list[tuple[bytes, bytes, list[tuple[bytes, bytes]]]],
    compression: int = 0,
) -> None:
    """Produce (key, value, headers) records in one batch to partition 0."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    try:
        batch = producer.create_batch()
        # The Python parser is the one that asks the name for its bytes.
        builder = _DefaultRecordBatchBuilderPy(
            magic=2, compression_type=compression, is_transactional=0, producer_id=-1, producer_epoch=-1,
            base_sequence=0, batch_size=BATCH_BYTES,
        )  # fmt: skip
        batch._builder = builder
        for key, value, headers in records:
            assert batch.append(key=key, value=value, timestamp=None, headers=[(_Name(n), v) for n, v in headers])
        await (await producer.send_batch(batch, topic, partition=0))
    finally:
        await producer.stop()

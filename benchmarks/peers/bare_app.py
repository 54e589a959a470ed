"""A bare loop around confluent-kafka: consume a list, decide it, produce, flush, commit."""

import os
import signal

from benchmarks.peers.job import Job
from confluent_kafka import Consumer, Producer

BATCH = 1000
stopping = False


def stop(*_: object) -> None:
    global stopping  # noqa: PLW0603 - a signal handler's only way to tell a loop
    stopping = True


def main() -> None:
    job = Job()
    servers = os.environ["PEER_KAFKA"]
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": os.environ["PEER_PREFIX"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
        }
    )
    producer = Producer(
        {"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "compression.type": "lz4",
         "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}
    )  # fmt: skip
    consumer.subscribe([os.environ["PEER_TRANSACTIONS"]])
    decisions, alerts = os.environ["PEER_DECISIONS"], os.environ["PEER_ALERTS"]
    while not stopping:
        messages = [m for m in consumer.consume(BATCH, 0.05) if m.error() is None]
        if not messages:
            continue
        places = [(m.partition() or 0, m.offset() or 0) for m in messages]
        for key, decision, alert in job.many([m.value() or b"" for m in messages], places):
            if alert is not None:
                producer.produce(alerts, alert, key)
            producer.produce(decisions, decision, key)
        producer.flush()
        consumer.commit(asynchronous=True)
    consumer.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    main()

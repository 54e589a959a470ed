"""Bytewax as its documentation shows it: a Kafka source, `flat_map_batch` over what one poll brought, two Kafka sinks."""

import os
from collections.abc import Iterable
from typing import Any

import bytewax.operators as op
from benchmarks.peers.job import Job
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main

BATCH = 1000
OUT = {"compression.type": "lz4", "linger.ms": "20"}
brokers = [os.environ["PEER_KAFKA"]]
job = Job()
flow = Dataflow("fraud")


def decide(batch: list[Any]) -> Iterable[tuple[bytes, bytes, bytes | None]]:
    return job.many([message.value for message in batch], [(message.partition, message.offset) for message in batch])


def message(key: bytes, value: bytes | None) -> KafkaSinkMessage[bytes, bytes]:
    return KafkaSinkMessage(key, value or b"")


source = kop.input(
    "transactions", flow, brokers=brokers, topics=[os.environ["PEER_TRANSACTIONS"]], batch_size=BATCH, tail=True
)
answers = op.flat_map_batch("decide", source.oks, decide)
decided = op.map("decision", answers, lambda answer: message(answer[0], answer[1]))
alerting = op.filter("alerting", answers, lambda answer: answer[2] is not None)
alerted = op.map("alert", alerting, lambda answer: message(answer[0], answer[2]))
kop.output("decisions", decided, brokers=brokers, topic=os.environ["PEER_DECISIONS"], add_config=OUT)
kop.output("alerts", alerted, brokers=brokers, topic=os.environ["PEER_ALERTS"], add_config=OUT)

if __name__ == "__main__":
    cluster_main(flow, [], 0, worker_count_per_proc=1)

"""Quix Streams as its documentation shows it: a streaming data frame, `apply`, and two output topics."""

import os
from typing import Any

from benchmarks.peers.job import Job
from quixstreams import Application, message_context

job = Job()
app = Application(
    broker_address=os.environ["PEER_KAFKA"],
    consumer_group=os.environ["PEER_PREFIX"],
    auto_offset_reset="earliest",
    auto_create_topics=False,
    consumer_poll_timeout=0.1,
    producer_extra_config={"compression.type": "lz4", "linger.ms": 20},
)
transactions = app.topic(os.environ["PEER_TRANSACTIONS"], key_deserializer="bytes", value_deserializer="bytes")
decisions = app.topic(os.environ["PEER_DECISIONS"], key_serializer="bytes", value_serializer="bytes")
alerts = app.topic(os.environ["PEER_ALERTS"], key_serializer="bytes", value_serializer="bytes")


def decide(value: bytes) -> dict[str, Any]:
    context = message_context()
    _, decision, alert = job.one(value, context.partition, context.offset)
    return {"decision": decision, "alert": alert}


answers = app.dataframe(transactions).apply(decide)
answers.apply(lambda answer: answer["decision"]).to_topic(decisions)
answers.filter(lambda answer: answer["alert"] is not None).apply(lambda answer: answer["alert"]).to_topic(alerts)

if __name__ == "__main__":
    app.run()

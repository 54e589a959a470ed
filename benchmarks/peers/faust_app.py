"""Faust as its documentation shows it: an agent over events, or over lists of them with `take_events`.

Over events it is tried with a Redis client that does not hold up the event loop, as the documentation wants it, and
with one that does, which is cheaper.
"""

import os
import sys
from typing import Any

import faust
from benchmarks.peers.job import Job

BATCH, WITHIN_S = 1000, 0.1
WAY = os.environ["PEER_WAY"]

app = faust.App(
    os.environ["PEER_PREFIX"],
    broker=f"aiokafka://{os.environ['PEER_KAFKA']}",
    key_serializer="raw",
    value_serializer="raw",
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=6.0,
    broker_heartbeat_interval=2.0,
    broker_rebalance_timeout=6.0,
    # Room for a whole batch beside the one in work; the default serves events.
    stream_buffer_maxsize=16_384,
    # With the defaults (no linger, 16 kB) each request carries an answer or a few, which holds up everything.
    producer_linger=0.1,
    producer_max_batch_size=1_000_000,
    producer_compression_type="lz4",
    topic_disable_leader=True,
    worker_redirect_stdouts=False,
)
transactions = app.topic(os.environ["PEER_TRANSACTIONS"])
decisions = app.topic(os.environ["PEER_DECISIONS"])
alerts = app.topic(os.environ["PEER_ALERTS"])
job = Job()


async def publish(key: bytes, decision: bytes, alert: bytes | None) -> None:
    """Queue them; Faust's producer acknowledges in the background."""
    if alert is not None:
        await alerts.send(key=key, value=alert)
    await decisions.send(key=key, value=decision)


@app.agent(transactions)
async def decide(stream: Any) -> None:
    if WAY == "take":
        async for events in stream.take_events(BATCH, within=WITHIN_S):
            places = [(event.message.partition, event.message.offset) for event in events]
            for answer in job.many([event.value for event in events], places):
                await publish(*answer)
    elif WAY == "async":
        async for event in stream.events():
            await publish(*await job.one_async(event.value, event.message.partition, event.message.offset))
    else:
        async for event in stream.events():
            await publish(*job.one(event.value, event.message.partition, event.message.offset))


if __name__ == "__main__":
    sys.argv = ["faust", "worker", "--without-web", "-l", "warn"]
    app.main()

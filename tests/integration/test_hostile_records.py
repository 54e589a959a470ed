"""Records at the edge of what Kafka itself takes, through a whole worker: none of them stops its partition."""

import asyncio
import os
from pathlib import Path

from tests.support.kafka import consume, produce
from tests.support.raw_headers import produce_headers
from tests.support.servers import Kafka
from tests.support.system import system

# Kafka's default limit is 1,048,588 bytes for a batch; the letter of this one exceeds it by its headers.
LARGEST_VALUE_BYTES = 1_048_400


def test_broken_header_names_and_the_largest_records_are_set_aside(
    kafka: Kafka, redis_url: str, registry: Path, tmp_path: Path
) -> None:
    """They end as dead letters with their reasons, cut where they do not fit, and what follows is worked on."""
    with system(kafka.bootstrap_servers, redis_url, registry, tmp_path) as running:
        running.create_topics(1)
        worker = running.start_worker()
        topic = running.topics.transactions
        broken = [(b"c", b"not json", [(b"\xff", b"1")])]
        asyncio.run(produce_headers(running.bootstrap_servers, topic, broken))
        large = os.urandom(LARGEST_VALUE_BYTES)
        asyncio.run(produce_headers(running.bootstrap_servers, topic, [(b"c", large, [])]))
        produce(running.bootstrap_servers, topic, [(b"c", b"[]")])
        running.wait_accounted(3, 60)
        letters = consume(running.bootstrap_servers, running.topics.transactions_dead_letter, 3)
        headers = [dict(letter.headers() or ()) for letter in letters]
        assert [h["fraudstream-reason"] for h in headers] == [b"invalid_json", b"payload_too_large", b"not_an_object"]
        assert headers[0]["\\xff"] == b"1"
        cut = headers[1].get("fraudstream-cut")
        assert cut == (None if kafka.kind == "tansu" else b"%d" % LARGEST_VALUE_BYTES)
        assert large.startswith(letters[1].value() or b"-")
        assert worker.stop() == 0

"""What is away comes back: Redis and Kafka stopped, restarted, emptied under a worker that runs."""

import json
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.support.labelled import last_records
from tests.support.outages import Made, assert_decided_once, rows, send, status, troubles
from tests.support.servers import Kafka
from tests.support.system import System, Worker, read_all
from tests.support.waiting import wait_until

from fraudstream.embedded import RedisServer, start_kafka
from fraudstream.embedded.kafka_server import apache_kafka_unavailable

# SIGTERM while Redis hangs: a call in flight (the timeout of 1 s these tests set, connecting included), and Faust's end.
STOP_S_MAX = 12.0
RECORDS = 6_000


def test_redis_hangs_and_is_restarted_in_the_flow(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """The worker waits, its health says for what, and it goes on: each transaction is decided and published once."""
    running = made(kafka.bootstrap_servers, own_redis.url)
    records = last_records(history, RECORDS)
    running.start_worker()
    send(running, records[: RECORDS // 3])
    running.wait_accounted(500, 60)
    own_redis.pause()
    wait_until(lambda: "score waits: Redis" in troubles(running), 20, "the health says that Redis is away")
    assert not status(running)["ready"]
    own_redis.resume()
    send(running, records[RECORDS // 3 : 2 * RECORDS // 3])
    running.wait_accounted(RECORDS // 3 + 500, 60)
    own_redis.kill()
    own_redis.restart()
    running.client.script_flush()
    send(running, records[2 * RECORDS // 3 :])
    running.wait_accounted(RECORDS, 60)
    running.wait_ready()
    assert_decided_once(running, records)


def test_with_score_degraded_alerts_go_on_without_redis_and_are_repaired(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path, tmp_path: Path
) -> None:
    """Provisional answers while Redis is gone, final ones of all when it is back, and the state of a run without outage."""
    env = {"FRAUDSTREAM_ON_STATE_UNAVAILABLE": "score-degraded", "FRAUDSTREAM_DEGRADED_AFTER_S": "0.5"}
    records = last_records(history, 3_000)
    running = made(kafka.bootstrap_servers, own_redis.url, **env)
    running.start_worker()
    send(running, records[:1_000])
    running.wait_accounted(1_000, 60)
    own_redis.kill()
    send(running, records[1_000:2_000])
    ids = [json.loads(value)["transaction_id"] for _, value in records]
    missed = set(ids[1_000:2_000])
    wait_until(lambda: _totals(running)["provisional"] == len(missed), 60, "all were answered provisionally")
    assert "score answers provisionally: Redis" in troubles(running)
    assert "1000 records will be decided again" in troubles(running)
    own_redis.restart()
    send(running, records[2_000:])
    running.wait_accounted(3_000, 60)
    running.wait_ready()
    assert running.counts()["decided"] == 3_000
    told = _told_until(running, running.topics.decisions, set(ids))
    assert {answer["transaction_id"] for answer in told if answer.get("degraded")} >= missed
    guessed = [answer["transaction_id"] for answer in told if answer.get("degraded") and answer["action"] != "allow"]
    final = {answer["transaction_id"] for answer in told if not answer.get("degraded") and answer["action"] != "allow"}
    assert guessed
    alerts = read_all(running.bootstrap_servers, running.topics.alerts, len(guessed) + len(final))
    assert {alert["alert_id"] for alert in alerts} == {f"alert:{name}" for name in final} | {
        f"alert:{name}:provisional" for name in guessed
    }

    calm = made(kafka.bootstrap_servers, own_redis.url)
    calm.start_worker()
    for start in (0, 1_000, 2_000):
        send(calm, records[start : start + 1_000])
        calm.wait_accounted(start + 1_000, 60)
    assert rows(running) == rows(calm)


def test_sigterm_while_redis_hangs_ends_in_time_and_loses_nothing(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """The process ends within the bound with exit code 0 or 1; the next worker decides what was left."""
    running = made(kafka.bootstrap_servers, own_redis.url)
    records = last_records(history, RECORDS)
    worker = running.start_worker()
    send(running, records)
    running.wait_accounted(500, 60)
    own_redis.pause()
    wait_until(lambda: "score waits" in worker.log(), 20, "the worker waits for Redis")
    began_s = time.monotonic()
    assert worker.stop(60) in {0, 1}
    assert time.monotonic() - began_s < STOP_S_MAX
    own_redis.resume()
    running.workers.clear()
    running.start_worker()
    running.wait_accounted(RECORDS, 60)
    assert_decided_once(running, records)


def test_an_outage_beyond_the_limit_ends_the_worker_with_one_line(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """Exit code 1, and a line that names what was away and for how long."""
    running = made(kafka.bootstrap_servers, own_redis.url, FRAUDSTREAM_OUTAGE_S_MAX="2")
    worker = running.start_worker()
    running.wait_ready()
    own_redis.kill()
    send(running, last_records(history, 100))
    assert worker.process.wait(60) == 1
    lines = [line for line in worker.log().splitlines() if "CRITICAL" in line]
    assert len(lines) == 1
    # Whichever role asked first.
    assert re.search(r"(score|label|learn) ends: \w+: given up after \d+ s: Redis", lines[0])
    assert "Traceback" not in worker.log()


@pytest.mark.parametrize("policy", ["stop", "accept", "replay"])
def test_an_emptied_redis_is_dealt_with_as_the_policy_says(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path, policy: str
) -> None:
    """Emptied in the flow and before a start: stop ends with one line, accept goes on, replay decides all again."""
    running = made(kafka.bootstrap_servers, own_redis.url, FRAUDSTREAM_ON_STATE_LOST=policy)
    records = last_records(history, 900)
    worker = running.start_worker()
    send(running, records[:300])
    running.wait_accounted(300, 60)
    running.wait_ready()
    running.client.flushall()
    send(running, records[300:600])
    expected = {"accept": 300, "replay": 600}
    if policy == "stop":
        assert worker.process.wait(30) == 1
        assert running.accounted() == 0
    else:
        running.wait_accounted(expected[policy], 60)
        assert running.counts() == running.counts() | {"decided": expected[policy]}
        assert worker.stop() == 0
    running.workers.clear()
    running.client.flushall()
    second = Worker(running.env, running.directory / "second.log")
    running.workers.append(second)
    if policy == "stop":
        assert second.process.wait(60) == 1
        assert "FRAUDSTREAM_ON_STATE_LOST" in second.log()
        assert "Traceback" not in second.log() + worker.log()
        return
    send(running, records[600:])
    running.wait_accounted(expected[policy] + (300 if policy == "replay" else 0), 60)
    assert second.stop() == 0
    assert running.counts()["decided"] == {"accept": 300, "replay": 900}[policy]


def test_a_broker_restart_costs_nothing(own_redis: RedisServer, made: Made, history: Path, tmp_path: Path) -> None:
    """Kafka killed and restarted on its data under the flow: all is decided and published once; SIGTERM while it is
    away ends the worker in time.
    """
    if apache_kafka_unavailable():
        pytest.skip("needs a broker that keeps its records: java 17 and mvn")
    with start_kafka(tmp_path / "kafka", prefer="apache") as broker:
        running = made(broker.bootstrap_servers, own_redis.url)
        records = last_records(history, RECORDS)
        worker = running.start_worker()
        send(running, records)
        running.wait_accounted(500, 60)
        broker.kill()
        wait_until(lambda: "score waits: Kafka" in troubles(running), 60, "the health says that Kafka is away")
        broker.restart()
        running.wait_accounted(RECORDS, 90)
        running.wait_ready()
        assert_decided_once(running, records)
        broker.kill()
        began_s = time.monotonic()
        assert worker.stop(60) in {0, 1}
        assert time.monotonic() - began_s < 2 * STOP_S_MAX


def test_a_worker_whose_broker_hangs_is_unready_and_then_ends_itself(
    own_redis: RedisServer, made: Made, history: Path, tmp_path: Path
) -> None:
    """A broker that is there and answers nothing: partitions stand still, and past the limit one line and exit code 1."""
    with start_kafka(tmp_path / "kafka") as broker:
        running = made(broker.bootstrap_servers, own_redis.url, FRAUDSTREAM_STALLED_S_MAX="5")
        worker = running.start_worker()
        send(running, last_records(history, 100))
        # With a batch in its hands it would wait for the acknowledgements, which is an outage with a limit of its own.
        wait_until(lambda: status(running).get("totals", {}).get("decided") == 100, 60, "all is acknowledged")
        broker.pause()
        try:
            wait_until(lambda: "stands still" in troubles(running), 60, "the health says what stands still")
            assert worker.process.wait(90) == 1
        finally:
            broker.resume()
    lines = [line for line in worker.log().splitlines() if "CRITICAL" in line]
    assert "ends: no progress for 5 s: " in lines[0]
    assert "the broker last answered" in lines[0] or "records were last asked for" in lines[0]
    # The other role may have come to its limit meanwhile, and Faust's goodbye waits for a broker that does not answer.
    assert [line for line in lines if "ends: no progress for 5 s: " not in line and "cut short" not in line] == []


@pytest.mark.parametrize("policy", ["stop", "earliest"])
def test_records_that_were_deleted_before_they_were_read_are_told(
    own_redis: RedisServer, made: Made, history: Path, tmp_path: Path, policy: str
) -> None:
    """Under a running worker and at a start: stop ends with one line that names them, earliest counts them and goes on."""
    if apache_kafka_unavailable():
        pytest.skip("needs a broker that deletes records: java 17 and mvn")
    with start_kafka(tmp_path / "kafka", prefer="apache") as broker:
        running = made(broker.bootstrap_servers, own_redis.url, FRAUDSTREAM_ON_OFFSETS_EXPIRED=policy)
        records = last_records(history, 900)
        worker = running.start_worker()
        send(running, records[:300])
        running.wait_accounted(300, 60)
        running.wait_ready()
        worker.process.send_signal(signal.SIGSTOP)  # shorter than a session: it must not notice otherwise
        send(running, records[300:600])
        _delete_all(running)
        worker.process.send_signal(signal.SIGCONT)
        if policy == "stop":
            assert worker.process.wait(60) == 1
            _assert_one_line(worker, r"offsets \d+ to \d+ of \S+\[\d\] were deleted before they were read; .*=earliest")
        else:
            wait_until(lambda: _totals(running)["expired"] == 300, 60, "the loss is counted")
            assert worker.stop() == 0
            _forget_commits(running)  # the store still knows how far the input was read
        running.workers.clear()
        send(running, records[600:750])
        _delete_all(running)
        send(running, records[750:])
        second = Worker(running.env, running.directory / "second.log")
        running.workers.append(second)
        if policy == "stop":
            assert second.process.wait(60) == 1
            _assert_one_line(second, r"offsets \d+ to \d+ of \S+\[\d\] were deleted before they were read")
        else:
            running.wait_accounted(450, 60)
            # Told at each start until something behind it was decided, so the first 300 once more.
            wait_until(lambda: _totals(running)["expired"] == 450, 60, "the loss is counted")


def test_a_store_that_lost_its_tail_loses_no_record(
    kafka: Kafka, own_redis: RedisServer, made: Made, history: Path
) -> None:
    """Redis comes back older than the worker left it while many batches wait: all of them are decided in it."""
    running = made(kafka.bootstrap_servers, own_redis.url, FRAUDSTREAM_BATCH_RECORDS_MAX="10")
    records = last_records(history, RECORDS)
    worker = running.start_worker()
    send(running, records)
    running.wait_accounted(300, 60)
    older = _dump(running.client)
    running.wait_accounted(600, 60)
    worker.process.send_signal(signal.SIGSTOP)  # so that nothing is half done while Redis goes back in time
    _restore(running.client, older)
    worker.process.send_signal(signal.SIGCONT)
    running.wait_accounted(RECORDS, 60)
    assert running.counts()["decided"] == RECORDS
    ids = {json.loads(value)["transaction_id"] for _, value in records}
    decided = read_all(running.bootstrap_servers, running.topics.decisions, RECORDS)
    assert {decision["transaction_id"] for decision in decided} <= ids
    assert "is read again from offset" in worker.log()


def _dump(client: redis.Redis) -> dict[bytes, tuple[bytes, int]]:
    script = "local f = {} for _, k in ipairs(redis.call('KEYS', '*')) do f[#f+1] = k f[#f+1] = redis.call('DUMP', k) f[#f+1] = redis.call('PTTL', k) end return f"
    flat: Any = client.eval(script, 0)
    return {flat[n]: (flat[n + 1], max(0, flat[n + 2])) for n in range(0, len(flat), 3)}


def _restore(client: redis.Redis, older: dict[bytes, tuple[bytes, int]]) -> None:
    pipe = client.pipeline(transaction=True)
    pipe.flushall()
    for key, (value, ttl_ms) in older.items():
        pipe.restore(key, ttl_ms, value)
    pipe.execute()


def _delete_all(running: System) -> None:
    """Delete every record of the input, as its retention does."""
    admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
    wanted = [TopicPartition(running.topics.transactions, partition, OFFSET_END) for partition in (0, 1)]
    for deleted in admin.delete_records(wanted).values():
        deleted.result(30)


def _forget_commits(running: System) -> None:
    """Delete the group, as Kafka does with one that was away for long."""
    admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
    for forgotten in admin.delete_consumer_groups([f"{running.env['FRAUDSTREAM_KAFKA__GROUP']}-score"]).values():
        forgotten.result(30)


def _assert_one_line(worker: Worker, pattern: str) -> None:
    lines = [line for line in worker.log().splitlines() if "CRITICAL" in line]
    assert len(lines) == 1
    assert re.search(pattern, lines[0])
    assert "Traceback" not in worker.log()


def _told_until(running: System, topic: str, wanted: set[str]) -> list[dict[str, Any]]:
    """What a topic holds, once there is a final answer for each wanted transaction."""
    count = len(wanted)
    while True:
        told = read_all(running.bootstrap_servers, topic, count)
        missing = wanted - {answer["transaction_id"] for answer in told if not answer.get("degraded")}
        if not missing:
            return told
        count += len(missing)


def _totals(running: System) -> Counter[str]:
    return Counter(status(running).get("totals", {}))

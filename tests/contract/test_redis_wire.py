"""The short way to Redis: whatever happened to one question, the next one gets its own answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraudstream.adapters.redis_wire import Wire


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0)) as client:
        yield client


@pytest.fixture
def wire(client: redis.Redis) -> Wire:
    return Wire(client)


def test_commands_are_answered_in_order_over_one_connection(wire: Wire, client: redis.Redis) -> None:
    """Bytes, text and numbers as arguments; a connection is made once."""
    ids = {wire.ask(("CLIENT", "ID"))[0] for _ in range(3)}
    assert len(ids) == 1
    assert wire.ask(("SET", b"k", 7), ("GET", "k"), ("MGET", "k", "none")) == [b"OK", b"7", [b"7", None]]


def test_after_an_error_in_the_middle_no_answer_is_left_over(wire: Wire) -> None:
    """The first error is raised once all answers are read, and the connection is used again."""
    before = wire.ask(("CLIENT", "ID"))
    with pytest.raises(redis.ResponseError, match="unknown command"):
        wire.ask(("ECHO", "1"), ("NONSENSE",), ("ECHO", "2"), ("MORE-NONSENSE",), ("ECHO", "3"))
    assert wire.ask(("ECHO", "4"), ("CLIENT", "ID")) == [b"4", *before]


def test_a_late_answer_is_not_the_next_questions(wire: Wire, client: redis.Redis) -> None:
    """A question that timed out ends its connection: its answer, when it comes, goes nowhere."""
    with pytest.raises(redis.TimeoutError):
        wire.ask(("ECHO", "first"), ("BLPOP", "waited-for", 0))
    client.rpush("waited-for", "late")
    assert wire.ask(("ECHO", "second"), ("ECHO", "third")) == [b"second", b"third"]
    assert client.lrange("waited-for", 0, -1) == [b"late"]  # its question had gone with the connection


def test_what_cannot_be_sent_leaves_nothing_behind(wire: Wire) -> None:
    """An argument of no known kind is an error before anything is sent; the next question is answered."""
    with pytest.raises(TypeError):
        wire.ask(("ECHO", "1"), ("ECHO", object()))
    assert wire.ask(("ECHO", "2")) == [b"2"]


def test_a_connection_that_was_closed_meanwhile_is_replaced(wire: Wire, client: redis.Redis) -> None:
    """A server that drops idle connections is no failure of the next question."""
    (before,) = wire.ask(("CLIENT", "ID"))
    client.client_kill_filter(_id=str(before))
    (after,) = wire.ask(("CLIENT", "ID"))
    assert after != before


def test_threads_get_their_own_answers(wire: Wire) -> None:
    """Each question has a connection for itself while it lasts."""

    def echo(number: int) -> bool:
        words = [b"%d-%d" % (number, n) for n in range(5)]
        return wire.ask(*(("ECHO", word) for word in words)) == words

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(echo, range(500)))

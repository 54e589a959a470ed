"""Commands to Redis at what they cost by themselves: for the two calls that every micro-batch makes.

redis-py's client takes a connection from its pool, asks its metrics and its features about every command and packs
argument by argument: more than a small batch's whole question. Connections, and what is done to them, stay redis-py's.
"""

from typing import Any

import hiredis
import redis


class Wire:
    """Sends commands together and reads their answers, over a connection of the client's pool that is kept for it.

    What goes wrong on a connection ends it: an answer that was not waited for must not be the next question's. One that
    was closed meanwhile is noticed before it is used, as the pool does. Nothing is retried.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._kept: list[Any] = []  # more than one only where threads ask at the same time

    def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The answers in order, in one round trip. Raises the first error among them, or that of the connection."""
        connection = self._take()
        try:
            connection.send_packed_command([b"".join(map(hiredis.pack_command, commands))])
            answers = [_answer(connection) for _ in commands]
        except BaseException:
            self._end(connection)
            raise
        self._kept.append(connection)
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise answer
        return answers

    def _take(self) -> Any:
        while True:
            try:
                connection = self._kept.pop()
            except IndexError:
                return self._pool.get_connection()
            if _usable(connection):
                return connection
            self._end(connection)

    def _end(self, connection: Any) -> None:
        connection.disconnect()
        self._pool.release(connection)


def _usable(connection: Any) -> bool:
    """Whether it is open and nothing is waiting to be read from it."""
    if connection.should_reconnect():
        return False
    try:
        return not connection.can_read()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return False


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:  # those of the commands behind it have to be read as well
        return error

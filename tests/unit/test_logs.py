"""Log lines: JSON for a collector, an end told once, a client library kept from flooding."""

import asyncio
import json
import logging
import sys

from fraudstream.errors import StateUnavailable
from fraudstream.logs import JsonFormatter, OnceOnly, Seldom


def _record(name: str, message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.ERROR, "f.py", 1, message, arguments, info)


def test_a_line_of_json_is_one_object_with_the_stack_in_it() -> None:
    """Line breaks, quotes and stacks stay inside one line of JSON; the time is UTC."""
    try:
        raise ValueError('a "quoted"\nfault')
    except ValueError:
        record = logging.LogRecord("fraudstream.worker", logging.ERROR, "f.py", 1, "é %s\n", ("x",), sys.exc_info())
    record.created, record.msecs = 1_700_000_000.007, 7.0
    line = JsonFormatter().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert told["time"] == "2023-11-14T22:13:20.007Z"
    assert (told["level"], told["logger"], told["message"]) == ("error", "fraudstream.worker", "é x\n")
    assert 'ValueError: a "quoted"' in told["error"]


def test_an_end_that_was_told_is_not_told_again_by_faust() -> None:
    """The stack of an error whose text says it all is dropped; any other error keeps its stack."""
    keeps = OnceOnly().filter
    assert not keeps(_record("mode.services", "Crashed reason=%r", error=StateUnavailable("away")))
    assert not keeps(_record("mode.services", "Crashed reason=%r", error=asyncio.CancelledError()))
    assert not keeps(_record("mode.worker", "[^_Worker]: We experienced a crash! Reraising original exception..."))
    assert not keeps(_record("mode.services", "Error while stopping child", error=RuntimeError("Event loop is closed")))
    assert keeps(_record("mode.services", "Crashed reason=%r", error=ValueError("ours")))
    assert keeps(_record("fraudstream.worker", "score ends: away"))


def test_a_client_library_says_the_same_thing_seldom() -> None:
    """The same line of aiokafka's passes once in the time, whatever its arguments; our own lines always pass."""
    now_s = 0.0
    keeps = Seldom(30.0, lambda: now_s).filter
    assert keeps(_record("aiokafka.client", "Unable connect to node with id %s: %s", 1, "refused"))
    assert not keeps(_record("aiokafka.client", "Unable connect to node with id %s: %s", 2, "refused"))
    assert keeps(_record("aiokafka.client", "Unable to update metadata from %s", [1]))
    now_s = 31.0
    assert keeps(_record("aiokafka.client", "Unable connect to node with id %s: %s", 1, "refused"))
    assert all(keeps(_record("fraudstream.worker", "score waits")) for _ in range(3))

"""Logging: one line an event, for people or as JSON for a collector. Payloads are never logged."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Final

from fraudstream.errors import FraudstreamError

# Libraries that tell at INFO what only their developers need.
_QUIET: Final = ("faust", "mode", "aiokafka", "asyncio", "onnxruntime", "fraudstream.adapters", "fraudstream.run")
_CRASH_FOLLOWS: Final = "We experienced a crash!"
_LOOP_GONE: Final = "Event loop is closed"


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object: time (RFC 3339), level, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class OnceOnly(logging.Filter):
    """Drops what Faust tells again, with a stack each time, of an end that the worker has told in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        # An end cancels the agents, and ends the consumer's thread before it is stopped: Faust takes both for a crash.
        told = isinstance(error, FraudstreamError | asyncio.CancelledError) or str(error) == _LOOP_GONE
        return not told and _CRASH_FOLLOWS not in str(record.msg)


class Seldom(logging.Filter):
    """Lets a client library say the same thing once in `every_s`: aiokafka tells each of hundreds of attempts a second."""

    def __init__(self, every_s: float = 30.0, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock_s = clock_s
        self._said_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        now_s, what = self._clock_s(), str(record.msg)  # without its arguments; there are as many as lines of its code
        if now_s - self._said_s.get(what, -self._every_s) < self._every_s:
            return False
        self._said_s[what] = now_s
        return True


def set_up(level: str, form: str) -> None:
    """Log to stderr from `level` on; `form` is `console` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(OnceOnly())
    handler.addFilter(Seldom())
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))

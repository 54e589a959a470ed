"""Logging: one line an event, for people or as JSON for a collector. Payloads are never logged."""

import json
import logging
import sys
import time
from typing import Final

# Libraries that tell at INFO what only their developers need.
_QUIET: Final = ("faust", "mode", "aiokafka", "asyncio", "onnxruntime", "fraudstream.adapters", "fraudstream.run")


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


def set_up(level: str, form: str) -> None:
    """Log to stderr from `level` on; `form` is `console` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))

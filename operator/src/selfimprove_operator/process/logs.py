"""Logs as JSON, one object a line, with the run that a line is about.

Callers give it by `extra={"run": ..., "namespace": ..., "stage": ...}`. No other attribute of a
record is written, so that a library's extras, such as whole objects, never reach a log.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

from typing_extensions import override

CONTEXT: Final = ("namespace", "run", "stage")
QUIET: Final = ("aiohttp", "asyncio", "kopf", "kubernetes")
"""Libraries that tell of every object at the level info."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; a traceback is its field `exception`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        made = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": made.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {
            key: str(value) for key in CONTEXT if (value := getattr(record, key, None)) is not None
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Send all logs of the process to a stream; libraries speak from warnings on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))

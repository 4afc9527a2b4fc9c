"""Logs as JSON, one object per line, with the run that the line is about.

The run comes from `extra={"run": ..., "namespace": ..., "stage": ...}`. Other attributes of a
record are not written, because libraries attach whole objects to theirs.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

from typing_extensions import override

CONTEXT: Final = ("namespace", "run", "stage")
QUIET: Final = ("aiohttp", "asyncio", "kopf", "kubernetes")
"""Libraries that log every object at level info."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with a traceback in the field `exception`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        created = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
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
    """Send all logs of the process to a stream; of libraries only warnings and errors."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))

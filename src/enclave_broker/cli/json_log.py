"""The log as JSON, one object a line, for programs that collect it.

In ASCII: whatever else a text has is escaped, so that nobody can end a line or begin one. What a record carries beside
its message (`extra=`) are further fields.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["json_line", "log_as_json"]

_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "taskName", "message", "asctime"}
_OF_SERVER = {"color_message"}
"""Another form of the message, of uvicorn's."""


def log_as_json(stream: TextIO, level: str) -> None:
    """Everything that any logger of this process says, from `level` on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=level, force=True)


def json_line(logger: str, message: str) -> str:
    """A line of this log at level INFO, for what is said whatever the log's level is."""
    return _JsonLines().format(logging.makeLogRecord({"name": logger, "msg": message, "levelname": "INFO"}))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        more = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD | _OF_SERVER}
        return _encoded({**more, **line})


def _encoded(fields: dict[str, Any]) -> str:
    """A field that is no JSON is shown as Python shows it; a log never fails for one."""
    head = ("time", "level", "logger", "message")
    ordered = {**{name: fields[name] for name in head}, **fields}
    try:
        return json.dumps(ordered, default=repr, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps({name: value if name in head else repr(value) for name, value in ordered.items()})

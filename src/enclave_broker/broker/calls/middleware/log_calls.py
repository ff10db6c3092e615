"""LogCalls: one record a call, for the host's log. Not the audit: that is the session's log, written by the chain.

Owns what a record says and that nothing in it can forge a second line. Arguments are in none unless asked for.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from enclave_broker.broker.calls.middleware.compose import CallNext
from enclave_broker.broker.calls.middleware.redact import Redact
from enclave_broker.broker.calls.sensitive_names import SensitiveNames
from enclave_broker.types.bounded_json import WireError, encode_json
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError, ToolError

__all__ = ["LogCalls"]

log = logging.getLogger("enclave_broker.calls")

_MAX_CHARACTERS = 256  # of a subject, an id or a code in a record
_MAX_ARGS_CHARACTERS = 2_000
_MAX_ARGS_BYTES = 1 << 16  # longer ones aren't shown: redacting them takes its time
_MAX_BYTES = 5 << 20  # a size beyond it isn't found out: counting means writing
_MESSAGE = (
    "tool call %(tool)s by %(subject)r: %(outcome)s in %(duration).6f s (code %(code)r, session %(session_id)r, "
    "call %(call_id)r, %(args_bytes)s bytes of arguments, %(result_bytes)s of result)"
)


class LogCalls:
    """Writes one record to `logger` when a call ends, however it ends.

    The record has the attributes `tool`, `subject`, `tenant`, `session_id`, `call_id`, `outcome` (done, failed or
    cancelled), `code` (of a failure, else "-"), `duration` (seconds), `args_bytes` and `result_bytes` (of the JSON;
    None of a failure and above 5 MiB). With `args` it has `arguments`, too: their JSON as `redact` leaves it, cut at
    2,000 characters; without `redact`, values under sensitive names are left out, as in history. Texts are cut, and
    what isn't printable in them is escaped, line ends and bidirectional controls included, in the attributes and in the
    message. An error while a record is written goes to this package's own log: it never costs a result.
    """

    def __init__(
        self, logger: logging.Logger, *, level: int = logging.INFO, args: bool = False, redact: Redact | None = None
    ) -> None:
        if not isinstance(logger, logging.Logger):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"LogCalls: logger is a logging.Logger, not {logger!r}")
        if not isinstance(args, bool):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"LogCalls: args is True or False, not {args!r}")
        self._logger = logger
        self._level = level
        self._redact = (redact or SensitiveNames()) if args else None
        self._message = _MESSAGE + ": %(arguments)s" if args else _MESSAGE

    def __repr__(self) -> str:
        return f"LogCalls({self._logger!r})"

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        if not self._logger.isEnabledFor(self._level):
            return await call_next(call)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            value = await call_next(call)
        except BaseException as error:
            self._write(call, clock() - began, error, None)
            raise
        self._write(call, clock() - began, None, value)
        return value

    def _write(self, call: ToolCall, duration: float, error: BaseException | None, value: Any) -> None:
        try:
            fields = self._fields(call, duration, error, value)
            # Logger.log would look for its caller in the stack, for longer than all the rest takes.
            logger = self._logger
            record = logger.makeRecord(logger.name, self._level, __file__, 0, self._message, (fields,), None)
            record.__dict__.update(fields)
            logger.handle(record)
        except Exception:  # the host's filters and handlers
            log.exception("a call of tool %s could not be logged", call.name)

    def _fields(self, call: ToolCall, duration: float, error: BaseException | None, value: Any) -> dict[str, Any]:
        principal = call.principal
        args_bytes = _size(call.args)
        fields = {
            "tool": _line(call.name),
            "subject": _line(principal.subject),
            "tenant": None if principal.tenant is None else _line(principal.tenant),
            "session_id": _line(call.session_id),
            "call_id": _line(call.id),
            "outcome": "done" if error is None else "failed",
            "code": "-",
            "duration": duration,
            "args_bytes": args_bytes,
            "result_bytes": _size(value) if error is None else None,
        }
        if isinstance(error, asyncio.CancelledError):
            fields["outcome"] = "cancelled"
        elif error is not None:
            fields["code"] = _line(error.code) if isinstance(error, ToolError) else "EXECUTION_ERROR"
        if self._redact is not None:
            fields["arguments"] = _shown(self._redact, call, args_bytes)
        return fields


def _size(value: Any) -> int | None:
    try:
        return len(encode_json(value, _MAX_BYTES))
    except WireError:
        return None


def _shown(redact: Redact, call: ToolCall, size: int | None) -> str:
    if size is None or size > _MAX_ARGS_BYTES:
        return "[too long]"
    return _line(encode_json(redact.value(call.args), _MAX_BYTES).decode(), _MAX_ARGS_CHARACTERS)


def _line(text: str, length: int = _MAX_CHARACTERS) -> str:
    """A text on one line: cut, and escaped if anything in it can't be printed."""
    if len(text) > length:
        text = text[: length - 1] + "…"
    return text if text.isprintable() else repr(text)[1:-1]

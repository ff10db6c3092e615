"""The audit line: one record a call, at its outcome, on the logger `enclave_broker.audit`. No argument and no result.

What it says stands twice: as attributes of the LogRecord, for formatters that keep fields, and as one line of text in
which every value is JSON, in ASCII, so that nobody's name can begin a line or move a cursor.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from enclave_broker.broker.telemetry.facts import EndedCall, Outcome

__all__ = ["LOGGER", "Audit"]

LOGGER = "enclave_broker.audit"
MAX_CHARACTERS = 500
"""Of one value: the line stays one that can be read."""


class Audit:
    """One a broker. Costs one question whether the logger is enabled while it isn't."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(LOGGER)

    def call(
        self, call: EndedCall, outcome: Outcome, code: str, rule: str | None, seconds: float, result_bytes: int
    ) -> None:
        """The call has its outcome, or gets none. `code` is its error's, "" if it has none."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        fields = _fields(call, outcome, code, rule, seconds, result_bytes)
        self._logger.info("%s", _line(fields), extra=fields)


def _fields(
    call: EndedCall, outcome: Outcome, code: str, rule: str | None, seconds: float, result_bytes: int
) -> dict[str, Any]:
    principal = call.caller.principal
    return {
        "event": "tool_call",
        "session_id": call.caller.id,
        "call_id": call.id,
        "tool": _cut(call.name),
        "route": call.route,
        "subject": _cut(principal.subject),
        "tenant": None if principal.tenant is None else _cut(principal.tenant),
        "outcome": outcome,
        "error_code": _cut(code) or None,
        "rule": None if rule is None else _cut(rule),
        "attempts": call.attempt,
        "duration_ms": round(seconds * 1000, 3),
        "args_bytes": len(call.args_json),
        "args_hash": hashlib.sha256(call.args_json).hexdigest(),
        "result_bytes": result_bytes,
        "by_host": call.engine_id == 0,
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def _line(fields: dict[str, Any]) -> str:
    """`name=value …`, without what isn't there."""
    return " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items() if value is not None)

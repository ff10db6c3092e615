"""What somebody else than a handler answers a call with: a listener, the host, a client's tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from enclave_broker.broker.calls.call import Outcome
from enclave_broker.types.errors import ConfigurationError, ToolError, code_of_handler
from enclave_broker.types.results import ScriptError

__all__ = ["outcome_of", "read_answer"]

FORM = "an answer is {'type': 'tool_result', 'id': str, 'data': value} or has 'error': {'code'?: str, 'message': str}"


def read_answer(message: Mapping[str, Any]) -> tuple[str, Any, ToolError | None]:
    """Id, value and error of a `tool_result`. Raises ConfigurationError that says what one looks like."""
    if not isinstance(message, Mapping) or message.get("type") != "tool_result":  # pyright: ignore[reportUnnecessaryIsInstance] input
        raise ConfigurationError(FORM)
    call_id, error = message.get("id"), message.get("error")
    if not isinstance(call_id, str) or ("data" in message) == (error is not None):
        raise ConfigurationError(FORM)
    if error is None:
        return call_id, message["data"], None
    if not isinstance(error, Mapping):
        raise ConfigurationError(FORM)
    fields = cast("Mapping[str, Any]", error)
    text, code = fields.get("message"), fields.get("code", "EXECUTION_ERROR")
    if not isinstance(text, str) or not isinstance(code, str):
        raise ConfigurationError(FORM)
    return call_id, None, ToolError(text, code=code)


def outcome_of(value: Any, error: ToolError | None, max_bytes: int) -> Outcome:
    """What the script gets of an answer: within the limits of results, and never with a code of the broker's."""
    if error is not None:
        code = code_of_handler(error.code)
        return Outcome(error=ScriptError(code=code, message=str(error.message)[:10_000], name="ToolError"))
    try:
        text = b"" if value is msgspec.UNSET else msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as fault:
        raise ConfigurationError(f"an answer's data is JSON: {fault}") from fault
    if len(text) > max_bytes:
        message = f"the result has {len(text):,} bytes as JSON; at most {max_bytes:,} are allowed: ask for less at once"
        return Outcome(error=ScriptError(code="TOOL_RESULT_TOO_LARGE", message=message, name="ToolError"))
    return Outcome(text)

"""What an answer that is no success becomes: one function, so that every error carries the wire's code.

Called by client.calls and client.streams. A broken connection is the transport's, a script's failure a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from enclave_broker.types.bounded_json import WireError, decode_json
from enclave_broker.types.errors import AuthenticationError, ClientError, PermissionDeniedError

__all__ = ["delay_of", "error_of"]

_KINDS: Mapping[int, type[ClientError]] = {401: AuthenticationError, 403: PermissionDeniedError}
_MAX_MESSAGE_CHARACTERS = 2_000
_MAX_RETRY_AFTER = 3_600.0  # seconds: a server that asks for more is asked again all the same


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> ClientError:
    """The error of an answer. One without `{code, message}` comes from something in between: its status names it.

    `details` are the server's; where it only has Retry-After, that as the protocol's `retry_info`.
    """
    fields = _fields(body)
    code, message, details = fields.get("code"), fields.get("message"), fields.get("details")
    if details is None and (seconds := _retry_after(headers)) is not None:
        details = [{"type": "retry_info", "retryDelayMs": round(seconds * 1000)}]
    if not isinstance(message, str):
        message = f"the server answered {status}{_phrase(status)}"
    return _KINDS.get(status, ClientError)(
        message[:_MAX_MESSAGE_CHARACTERS],
        status_code=status,
        code=code if isinstance(code, str) and code else None,
        details=details,
    )


def _fields(body: bytes) -> dict[str, Any]:
    try:
        value = decode_json(body)
    except WireError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def delay_of(error: ClientError) -> float:
    """Seconds after which the server wants to be asked again, 0 where it doesn't say."""
    given: Any = error.details
    for detail in cast("list[Any]", given) if isinstance(given, list) else []:
        if isinstance(detail, dict):
            milliseconds = cast("dict[str, Any]", detail).get("retryDelayMs")
            if isinstance(milliseconds, int | float) and milliseconds > 0:
                return min(milliseconds / 1000, _MAX_RETRY_AFTER)
    return 0.0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, None if it doesn't. A date counts as none."""
    text = headers.get("retry-after", "").strip()
    return min(float(text), _MAX_RETRY_AFTER) if text.isascii() and text.isdigit() else None

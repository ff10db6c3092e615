"""What goes wrong becomes `{code, message, details?}` here, and nowhere else.

Owns which code has which status, and what of an unknown error is shown: nothing but an id under which the log has it
whole. Called by the gate, by every endpoint and by the router for paths that aren't there.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from enclave_broker.types.bounded_json import WireError, encode_json
from enclave_broker.types.errors import ClosedError, EnclaveError, OverloadedError, RateLimitError, SessionError

__all__ = ["HttpError", "error_response", "json_response"]

logger = logging.getLogger("enclave_broker.http")

_MAX_JSON_BYTES = 64 << 20  # of an answer: a page of sessions or the calls of one, whose arguments are bounded
_STATUS: Mapping[str, int] = {
    "INVALID_REQUEST": 400,
    "INVALID_FILTER": 400,
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "UNKNOWN_CALL": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "SESSION_EXISTS": 409,
    "SESSION_CLOSED": 409,
    "APPROVAL_DECIDED": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RATE_LIMITED": 429,
    "HEADERS_TOO_LARGE": 431,
    "OVERLOADED": 503,
    "SHUTTING_DOWN": 503,
    "NOT_RUNNING": 503,
}
_CLOSING = {408, 413, 431}
"""With these the rest of the request is still on its way: nothing that follows on the connection could be trusted."""
_OF_STATUS: Mapping[int, tuple[str, str]] = {
    401: ("UNAUTHENTICATED", "who is asking isn't known"),
    403: ("FORBIDDEN", "this isn't allowed"),
    404: ("NOT_FOUND", "there is nothing at this path"),
    405: ("METHOD_NOT_ALLOWED", "this path doesn't have that method"),
}


class HttpError(EnclaveError):
    """What the edge itself refuses. `headers` go with the answer."""

    def __init__(self, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, code=code)
        self.args = (code, message)
        self.headers = dict(headers or {})


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON. Lone surrogates and NaN in it do no harm."""
    body = encode_json(value, _MAX_JSON_BYTES)
    return Response(body, status, {"Cache-Control": "no-cache", **(headers or {})}, "application/json")


def error_response(error: Exception) -> Response:
    """The answer to a request that has failed with `error`. One that nobody foresaw is logged whole."""
    if isinstance(error, HTTPException):
        code, message = _OF_STATUS.get(error.status_code, ("INVALID_REQUEST", "the request can't be answered"))
        return _answer(error.status_code, code, message, None, error.headers or {})
    if isinstance(error, EnclaveError):
        status = _STATUS.get(error.code, 409 if isinstance(error, SessionError) else 0)
        if isinstance(error, ClosedError):
            status = 503
        if status:
            return _answer(status, error.code, error.message, error.details, _headers(error))
    id = uuid.uuid4().hex[:12]
    logger.error("a request failed (error id %s)", id, exc_info=error)
    return _answer(500, "INTERNAL_ERROR", f"the server failed (error id {id})", None, {})


def _headers(error: EnclaveError) -> dict[str, str]:
    headers = error.headers if isinstance(error, HttpError) else {}
    if isinstance(error, OverloadedError | RateLimitError):
        if math.isfinite(error.retry_after):
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif error.code == "UNAUTHENTICATED":
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def _answer(status: int, code: str, message: str, details: Any, headers: Mapping[str, str]) -> Response:
    body = {"code": code, "message": message}
    if status in _CLOSING:
        headers = {**headers, "Connection": "close"}
    if details is not None:
        try:
            return json_response(body | {"details": details}, status, headers)
        except WireError:
            logger.warning("the details of %s are no JSON", code)
    return json_response(body, status, headers)

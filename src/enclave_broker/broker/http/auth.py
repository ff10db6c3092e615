"""Who is asking: what the host's `auth` says of a request, taken strictly.

Whatever it does but name somebody is a refusal: an exception, None, another object, the reserved name "anonymous", no
answer in time. Called by the gate. Which keys and tokens there are is the hook's.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from enclave_broker.types.errors import AuthenticationError, EnclaveError, PermissionDeniedError, RateLimitError
from enclave_broker.types.principal import Principal

__all__ = ["Authenticate", "authenticate"]

logger = logging.getLogger("enclave_broker.http")

Authenticate = Callable[[Request], Awaitable[Principal]]
"""It sees the request's head. A body can't be read: it is the broker's, and of any size."""

_REFUSALS = (AuthenticationError, PermissionDeniedError, RateLimitError)


async def authenticate(auth: Authenticate, scope: Scope, seconds: float) -> Principal:
    """The principal of a request.

    Raises AuthenticationError, and PermissionDeniedError or RateLimitError where the hook does.
    """
    try:
        async with asyncio.timeout(seconds):
            found = cast("Any", await auth(Request(scope)))  # the hook's code may not be typed
    except _REFUSALS as error:
        raise _plain(error) from None
    except HTTPException as error:
        if error.status_code == 403:
            raise PermissionDeniedError("this isn't allowed") from None
        raise AuthenticationError("who is asking isn't known") from None
    except Exception as error:  # noqa: BLE001 whose text may hold what the request has shown
        at = traceback.extract_tb(error.__traceback__)[-1]
        raised = f"{type(error).__name__} at {at.filename}:{at.lineno}"
        logger.error("auth raised %s, and the request was refused", raised)
        raise AuthenticationError("who is asking isn't known") from None
    if not isinstance(found, Principal) or found.is_anonymous:
        shown = "the reserved subject 'anonymous'" if isinstance(found, Principal) else type(found).__name__
        logger.error("auth gave %s instead of a Principal, and the request was refused", shown)
        raise AuthenticationError("who is asking isn't known")
    return found


def _plain(error: EnclaveError) -> EnclaveError:
    """A refusal under its own code: a subclass of the hook's may not have one of the wire's."""
    if error.code != type(error).default_code or error.code not in {"UNAUTHENTICATED", "FORBIDDEN", "RATE_LIMITED"}:
        error.code = next(kind for kind in _REFUSALS if isinstance(error, kind)).default_code
    error.message = error.message or "who is asking isn't known"
    return error

"""The token that a request brings: one `Authorization: Bearer …`, nothing else, and never from the query."""

from __future__ import annotations

import re

from starlette.requests import Request

from enclave_broker.types.errors import AuthenticationError

__all__ = ["bearer_token"]

_MAX_BYTES = 16_384  # tokens that list a person's groups have a few KiB; what is longer isn't even looked at
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1


def bearer_token(request: Request) -> str:
    """The token, in its ASCII letters. No message of an error has any of it.

    Raises AuthenticationError for a request without one, with more than one, and for what can't be one.
    """
    found: list[bytes] = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if not found:
        raise AuthenticationError("who is asking isn't known: there is no Authorization: Bearer …")
    if len(found) > 1:
        raise AuthenticationError("there is more than one Authorization")
    scheme, _, token = found[0].partition(b" ")
    if scheme.lower() != b"bearer":
        raise AuthenticationError("the Authorization has to be a Bearer …")
    token = token.strip(b" ")
    if len(token) > _MAX_BYTES or not _TOKEN.fullmatch(token):
        raise AuthenticationError("what stands behind Bearer is no key and no token")
    return token.decode("ascii")

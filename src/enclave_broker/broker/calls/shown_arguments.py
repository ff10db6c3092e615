"""What history shows of a call's arguments: not what stands under a name such as password, nor what a Redact hides.

Streams show a script's own arguments as they are; history is for others, too. Called by sessions when history is read:
what a call is given, and what the log keeps, is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec
import re2  # pyright: ignore[reportMissingTypeStubs] it has none

from enclave_broker.broker.calls.middleware.compose import Middleware
from enclave_broker.broker.calls.middleware.redact import REDACTED, Redact
from enclave_broker.broker.tools.catalog import Catalog

__all__ = ["SENSITIVE_NAMES", "Shown", "ShownArguments"]

SENSITIVE_NAMES = (
    *("access_token", "api_key", "apikey", "authorization", "client_secret", "cookie", "credentials", "cvv"),
    *("id_token", "otp", "passphrase", "passwd", "password", "pin", "private_key", "refresh_token", "secret", "token"),
)
"""Whole names, in any case and at every level."""
LARGE_BYTES = 32_768
"""Larger arguments that may hold something are hidden as a whole: to look through them would hold up the loop."""

Shown = Callable[[str, bytes], dict[str, Any]]
"""Of a tool's name and the JSON text of a call's arguments, the arguments as history shows them."""

_sensitive = Redact(keys=SENSITIVE_NAMES)
# A name inside of a text is followed by a backslash there, not by the quotation mark.
_may_hold = cast("Any", re2).compile(f'(?i)"(?:{"|".join(SENSITIVE_NAMES)})":').search


class ShownArguments:
    """Those of one broker's calls: its own Redacts count, and those of the route that a name has now."""

    def __init__(self, catalog: Catalog, middleware: Iterable[Middleware]) -> None:
        self._catalog = catalog
        self._redacts = _redacts(middleware)

    def __call__(self, name: str, text: bytes) -> dict[str, Any]:
        tool = self._catalog.find(name)
        redacts = self._redacts if tool is None or not tool.middleware else self._redacts + _redacts(tool.middleware)
        if _may_hold(text):
            redacts = (*redacts, _sensitive)
        if redacts and len(text) > LARGE_BYTES:
            return {REDACTED: f"{len(text)} bytes of arguments"}
        args = msgspec.json.decode(text)
        for redact in redacts:
            args = redact.value(args)
        return args


def _redacts(middleware: Iterable[Middleware]) -> tuple[Redact, ...]:
    return tuple(each for each in middleware if isinstance(each, Redact))

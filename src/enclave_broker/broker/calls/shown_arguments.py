"""What history shows of a call's arguments and errors: not what stands under a name such as password, nor what a
Redact hides.

Streams show a script's own arguments as they are; history is for others, too. Called by sessions when history is read:
what a call is given, and what the log keeps, is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from enclave_broker.broker.calls.middleware.compose import Middleware
from enclave_broker.broker.calls.middleware.redact import REDACTED, Redact
from enclave_broker.broker.calls.route_redacts import RouteRedacts, redacts_of
from enclave_broker.broker.calls.sensitive_names import SensitiveNames, is_sensitive, may_hold_sensitive
from enclave_broker.broker.tools.catalog import Catalog
from enclave_broker.types.results import ScriptError

__all__ = ["LEFT_OUT", "Reading", "ShownArguments"]

LARGE_BYTES = 32_768
"""Larger JSON that may hold something is hidden as a whole: to look through it would hold up the loop."""
LOOKED_BYTES = 256 << 10
"""So much of arguments, and of errors, is looked through in one reading; what comes after that and may hold something
is hidden as a whole."""
SHOWN_BYTES = 8 << 20
"""So much is shown in one reading at all."""
LEFT_OUT = "[left out]"

_sensitive = SensitiveNames()
_steps = re.compile(r"[.\[\]]").split


class ShownArguments:
    """Those of one broker's calls: its own Redacts count, and those of the routes that a name has or ever had."""

    def __init__(self, catalog: Catalog | None = None, middleware: Iterable[Middleware] = ()) -> None:
        self._redacts = redacts_of(middleware)
        self._routes = None if catalog is None else RouteRedacts(catalog.router)

    def close(self) -> None:
        """The broker stops: routes that come later don't count."""
        if self._routes is not None:
            self._routes.close()

    def reading(self) -> Reading:
        """For one list of calls, in which only so much is shown and looked through."""
        return Reading(self)

    def redacts(self, name: str) -> tuple[Redact, ...]:
        """Those for the calls of a tool."""
        return self._redacts if self._routes is None else self._redacts + self._routes.of(name)


class Reading:
    """One look at history, which never holds up the loop for long, however much there is."""

    def __init__(self, shown: ShownArguments) -> None:
        self._shown = shown
        self._redacts: dict[str, tuple[Redact, ...]] = {}
        self._to_show = SHOWN_BYTES
        self._to_look = {"arguments": LOOKED_BYTES, "details": LOOKED_BYTES}

    def args(self, name: str, text: bytes) -> dict[str, Any]:
        """The arguments of a call of this tool, given their JSON text."""
        return self._json(text, self._redacts_of(name), "arguments")

    def error(self, name: str, error: ScriptError | None) -> ScriptError | None:
        """The error of a call of this tool; shares nothing with the one given."""
        if error is None:
            return None
        redacts = self._redacts_of(name)
        message, details = error.message, error.details
        if error.code == "VALIDATION_ERROR":
            message, details = _without_reasons(message, details, redacts)
        if details is not None:
            details = self._json(msgspec.json.encode(details), redacts, "details")
        if redacts and not self._looks(len(message), "details"):
            message = REDACTED
        for redact in redacts:
            message = redact.text(message)
        return msgspec.structs.replace(error, message=message, details=details)

    def _redacts_of(self, name: str) -> tuple[Redact, ...]:
        known = self._redacts.get(name)
        if known is None:
            known = self._redacts[name] = self._shown.redacts(name)
        return known

    def _json(self, text: bytes, redacts: tuple[Redact, ...], what: str) -> Any:
        if len(text) > self._to_show:
            return {LEFT_OUT: f"{len(text)} bytes of {what}"}
        self._to_show -= len(text)
        if may_hold_sensitive(text):
            redacts = (*redacts, _sensitive)
        if redacts and not self._looks(len(text), what):
            return {REDACTED: f"{len(text)} bytes of {what}"}
        value = msgspec.json.decode(text)
        for redact in redacts:
            value = redact.value(value)
        return value

    def _looks(self, size: int, what: str) -> bool:
        """Whether so many bytes may be looked through."""
        if size > min(LARGE_BYTES, self._to_look[what]):
            return False
        self._to_look[what] -= size
        return True


def _without_reasons(message: str, details: Any, redacts: tuple[Redact, ...]) -> tuple[str, Any]:
    """A validation error without what it says of fields whose values are hidden: a reason quotes the value."""
    if not isinstance(details, list):
        return message, details
    shown: list[Any] = []
    for each in cast("list[Any]", details):
        match each:
            case {"type": "validation_info", "field": str(field), "reason": str(reason)} if _is_hidden(field, redacts):
                shown.append({**each, "reason": REDACTED})
                whole = f"{field}: {reason}"
                message = message.replace(whole, f"{field}: {REDACTED}") if whole in message else REDACTED
            case _:
                shown.append(each)
    return message, shown


def _is_hidden(field: str, redacts: tuple[Redact, ...]) -> bool:
    """Whether a field, such as `users[0].password`, is or is within something hidden. One that is cut may be."""
    steps = (field, *_steps(field))
    return "…" in field or any(is_sensitive(step) or any(each.hides(step) for each in redacts) for step in steps)

"""What would be right, where a script names what other places have and this one has not. A function of the message."""

from __future__ import annotations

import re

__all__ = ["hint_of"]

_NETWORK = "scripts have no network: whatever is outside is a tool"
_MODULES = "scripts load no modules: they have the language and the tools"
_PROCESS = "scripts have no process, environment or files: whatever is outside is a tool"
_BROWSER = "scripts run in no browser: they have the language and the tools"
_TIMERS = "setTimeout, setInterval and sleep(ms) are there"
_TOOLS = "tools are called as tools.NAMESPACE.NAME({...})"
_HINTS = {
    **dict.fromkeys(["tool", "Tool", "Tools", "TOOLS"], _TOOLS),
    **dict.fromkeys(["fetch", "XMLHttpRequest", "WebSocket", "EventSource", "axios", "Headers", "Request"], _NETWORK),
    **dict.fromkeys(["require", "module", "exports", "define", "importScripts"], _MODULES),
    **dict.fromkeys(["process", "fs", "path", "os", "Deno", "Bun", "Buffer", "__dirname", "__filename"], _PROCESS),
    **dict.fromkeys(["window", "document", "navigator", "localStorage", "sessionStorage", "alert", "self"], _BROWSER),
    **dict.fromkeys(["setImmediate", "requestAnimationFrame", "requestIdleCallback"], _TIMERS),
    "print": "console.log prints",
    "len": "arrays and texts have .length",
    "None": "JavaScript has null",
    "True": "JavaScript has true",
    "False": "JavaScript has false",
}
_UNDEFINED = re.compile(r"([A-Za-z_]\w*) is not defined\Z")
_MODULE = re.compile(r"could not load module ")


def hint_of(message: str) -> str | None:
    """The end of an engine's message that by itself teaches nothing; None if there is nothing to say."""
    if found := _UNDEFINED.match(message):
        return _HINTS.get(found[1])
    return _MODULES if _MODULE.match(message) else None

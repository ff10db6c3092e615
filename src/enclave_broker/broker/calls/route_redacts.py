"""What hides a tool's values although its route has gone: every Redact that a route has had while the broker runs.

Read by calls/shown_arguments.py. Calls themselves have the middleware of the route that took them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from enclave_broker.broker.calls.middleware.compose import Middleware
from enclave_broker.broker.calls.middleware.redact import Redact
from enclave_broker.broker.tools.globs import Glob
from enclave_broker.broker.tools.names import is_name
from enclave_broker.broker.tools.router import Router, RoutesChanged
from enclave_broker.broker.tools.routes import Route

__all__ = ["RouteRedacts", "redacts_of"]

MAX_PATTERNS = 10_000
"""Of one Redact. From there on it counts for every name."""


def redacts_of(middleware: Iterable[Middleware]) -> tuple[Redact, ...]:
    return tuple(each for each in middleware if isinstance(each, Redact))


class _Seen:
    """Where one Redact, or one that is equal to it, has stood."""

    def __init__(self, redact: Redact) -> None:
        self.redact = redact
        self.names: set[str] = set()
        self.globs: dict[str, Glob] = {}

    def add(self, glob: Glob) -> None:
        if len(self.names) + len(self.globs) < MAX_PATTERNS or self.counts_for(glob.pattern):
            if glob.exact:
                self.names.add(glob.pattern)
            else:
                self.globs[glob.pattern] = glob

    def counts_for(self, name: str) -> bool:
        if len(self.names) + len(self.globs) >= MAX_PATTERNS or name in self.names:
            return True
        return any(glob.matches(name) for glob in self.globs.values())


class RouteRedacts:
    """Those of one router from now on, until `close`; what has been seen is still known after that."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._seen: dict[str, _Seen] = {}
        self._changing = threading.Lock()
        self.close = router.on_change(self._changed)
        for route in router:
            self._add(route)

    def of(self, name: str) -> tuple[Redact, ...]:
        """Those of all routes that fit the name now, or ever have."""
        if not self._seen:
            return ()
        with self._changing:
            return tuple(seen.redact for seen in self._seen.values() if seen.counts_for(name))

    def _changed(self, told: RoutesChanged) -> None:
        """In the thread that has made the change."""
        if all(is_name(pattern) for pattern in told.added):
            found = [self._router.match(pattern) for pattern in told.added]
        else:
            found = [route for route in self._router if route.pattern in told.added]
        for route in found:
            if route is not None:
                self._add(route)

    def _add(self, route: Route) -> None:
        for redact in redacts_of(route.middleware):
            with self._changing:
                key = repr(redact) if type(redact) is Redact else str(id(redact))  # a subclass may be anything
                self._seen.setdefault(key, _Seen(redact)).add(route.glob)

"""Adding and removing routes: by hand, by decorator, from another router; who is told when they change.

Each change makes a new table (tools/routes.py), so that nothing is changed under a call. What a route's options mean
for a call is the chain's; calls/tool_router.py adds calls without a session.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, overload

from enclave_broker.broker.tools.names import check_name, is_name
from enclave_broker.broker.tools.routes import Route, RouteTable
from enclave_broker.broker.tools.tool import Tool, tool_from_function, tool_from_router_handler, tool_name
from enclave_broker.types.calls import Effect
from enclave_broker.types.errors import ConfigurationError

__all__ = ["Router", "RoutesChanged"]

log = logging.getLogger("enclave_broker.tools")

F = TypeVar("F", bound=Callable[..., Any])


class RoutesChanged(NamedTuple):
    """One change. What was replaced stands in both lists."""

    version: int
    added: tuple[str, ...]
    """Names and patterns."""
    removed: tuple[str, ...]
    need_auth: frozenset[str] = frozenset()
    """Those of both that refuse whoever is anonymous."""


class Router:
    """The routes that tools are found by. Any thread may change it and ask it.

    `prefix` is put before every pattern that is registered here, and is part of the name that a handler gets.
    Raises ConfigurationError for a prefix that no name begins with.
    """

    def __init__(self, *, prefix: str = "") -> None:
        self._prefix = _checked(prefix)
        self._table = RouteTable()
        self._version = 0
        self._changing = threading.Lock()
        self._listeners: tuple[Callable[[RoutesChanged], object], ...] = ()

    # -- asking ----------------------------------------------------------------------------------------------------

    def match(self, name: str) -> Route | None:
        """The route that takes calls of `name`; None if none does, and for what is no name.

        The one of exactly this name, else the one whose pattern begins with the most literal characters, else the one
        registered first. Names are compared as they are.
        """
        return self._table.match(name)

    @property
    def table(self) -> RouteTable:
        """All routes as they are now; later changes don't touch it."""
        return self._table

    @property
    def version(self) -> int:
        """Goes up with every change."""
        return self._version

    def __iter__(self) -> Iterator[Route]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    # -- changing --------------------------------------------------------------------------------------------------

    def register(
        self,
        pattern: str,
        handler: Callable[..., Any],
        *,
        rate_limit: Any = None,
        requires_auth: bool = False,
        effect: Effect = "write",
        secrets: Sequence[str] = (),
        middleware: Sequence[Callable[..., Any]] = (),
        requires_approval: bool = False,
    ) -> None:
        """Let `handler(name, args)` take the calls of every name that fits the pattern.

        It may take a ToolContext, too; `def` runs in a thread. All names share the one `rate_limit`. `requires_auth`
        refuses whoever is anonymous. Raises ConfigurationError for a pattern that is no glob, that no name can fit, or
        that is registered already, for a signature that can't be called so, and for wrong options.
        """
        whole = self._prefix + _text(pattern)
        tool = tool_from_router_handler(
            whole,
            handler,
            rate_limit=rate_limit,
            requires_auth=requires_auth,
            effect=effect,
            secrets=secrets,
            middleware=middleware,
            requires_approval=requires_approval,
        )
        self.change(add=[Route.of(tool)])

    @overload
    def tool(self, function: F, /) -> F: ...
    @overload
    def tool(
        self,
        name: str | None = None,
        /,
        *,
        effect: Effect = "write",
        secrets: Sequence[str] = (),
        timeout: float | timedelta | None = None,
        requires_auth: bool = False,
        requires_approval: bool = False,
        rate_limit: Any = None,
        middleware: Sequence[Callable[..., Any]] = (),
        reconcile: Callable[..., Any] | None = None,
        description: str | None = None,
        run_in_thread: bool = True,
        by_reference: bool = False,
    ) -> Callable[[F], F]: ...
    def tool(self, function: Any = None, /, **options: Any) -> Any:
        """Register a function under its own name or the one given, behind the prefix; returns the function unchanged.

        Its typed parameters are the arguments, as with Broker.tool. Raises ConfigurationError.
        """
        if callable(function):
            return self._add_function(function, None, {})

        def register(target: F) -> F:
            return self._add_function(target, function, options)

        return register

    def _add_function(self, function: F, name: str | None, options: dict[str, Any]) -> F:
        whole = self._prefix + (tool_name(function) if name is None else _text(name))
        self.add(tool_from_function(function, name=whole, warn_without_result_type=True, **options))
        return function

    def add(self, tool: Tool) -> None:
        """Register a tool under its own name, without the prefix.

        Raises ConfigurationError for a name outside the grammar or one that is taken.
        """
        check_name(tool.name)
        self.change(add=[Route.of(tool)])

    def include(self, router: Router, prefix: str = "") -> None:
        """Register all routes that the other router has now, `prefix` before their patterns; all of them or none.

        Raises ConfigurationError.
        """
        _checked(prefix)
        self.change(add=[route.below(prefix) for route in router])

    def remove(self, pattern: str) -> bool:
        """Take the route of exactly this pattern away, prefix included; False if there is none.

        Calls under way go on.
        """
        return self.change(remove=[pattern])

    def change(self, *, remove: Iterable[str] = (), add: Iterable[Route] = ()) -> bool:
        """Several changes at once, all or none: first `remove`, as far as it is there, then `add`.

        False if nothing was to be done. Raises ConfigurationError for a pattern that would be there twice.
        """
        removed, added = tuple(dict.fromkeys(remove)), tuple(add)
        for route in added:
            self.check(route)
        with self._changing:
            removed = tuple(pattern for pattern in removed if pattern in self._table)
            if not removed and not added:
                return False
            before, self._table = self._table, self._table.changed(removed, added)
            self._version += 1
            changed = [*added, *(route for route in before if route.pattern in removed)] if removed else added
            need_auth = frozenset(route.pattern for route in changed if route.requires_auth)
            told = RoutesChanged(self._version, tuple(route.pattern for route in added), removed, need_auth)
        for listener in self._listeners:
            try:
                listener(told)
            except Exception:  # a callback's boundary: the change has been made
                log.exception("a listener failed on a change of routes")
        return True

    def check(self, route: Route) -> None:
        """For subclasses: raise ConfigurationError for a route that must not be added."""

    def on_change(self, listener: Callable[[RoutesChanged], object]) -> Callable[[], None]:
        """Call it after each change, in the thread that made it; returns what ends that.

        What it raises is logged. When several threads make changes, they may be told out of order: compare versions.
        """
        with self._changing:
            self._listeners = (*self._listeners, listener)

        def end() -> None:
            with self._changing:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return end


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigurationError(f"a name or pattern is a string, not {type(name).__name__}")
    return name


def _checked(prefix: str) -> str:
    if prefix != "" and not is_name(_text(prefix)):
        raise ConfigurationError(f"prefix is what names begin with, such as 'orders:', not {prefix!r}")
    return prefix

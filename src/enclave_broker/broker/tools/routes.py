"""What a name leads to: a route, and the table of all routes at one time, which never changes.

Of the routes that fit a name one counts: that of exactly this name, else the one whose pattern begins with the most
literal characters, else the one that was registered first. Who adds and removes routes is tools/router.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from enclave_broker.broker.tools.glob_index import GlobIndex
from enclave_broker.broker.tools.globs import Glob, compile_glob
from enclave_broker.broker.tools.names import RESERVED_NAMESPACE, check_name, is_name, nearest
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.types.calls import Effect
from enclave_broker.types.errors import ConfigurationError, UnknownToolError

__all__ = ["Route", "RouteTable", "unknown_tool"]

_MAX_SHOWN = 100  # characters of a called name in a message


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A pattern and the tool behind it, whose name is the pattern. Frozen: a call keeps the route that it was given."""

    glob: Glob
    tool: Tool

    @property
    def pattern(self) -> str:
        return self.glob.pattern

    @property
    def handler(self) -> Callable[..., Any]:
        """What was registered."""
        return self.tool.handler

    @property
    def rate_limit(self) -> Any:
        """A RateLimit, which all names that the route takes share; None for no limit."""
        return self.tool.rate_limit

    @property
    def requires_auth(self) -> bool:
        """Whether whoever is anonymous is refused."""
        return self.tool.requires_auth

    @property
    def requires_approval(self) -> bool:
        return self.tool.requires_approval

    @property
    def effect(self) -> Effect:
        return self.tool.effect

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets that its handler is given, and no others."""
        return self.tool.secrets

    @property
    def middleware(self) -> tuple[Callable[..., Any], ...]:
        """Around the handler, inside the broker's own."""
        return self.tool.middleware

    @staticmethod
    def of(tool: Tool) -> Route:
        """The route of a tool, whose name is a name or a pattern.

        Raises ConfigurationError for a name outside the grammar, and for a pattern that no name can fit.
        """
        name = tool.name
        if is_name(name):
            check_name(name)
            return Route(compile_glob(name), tool)
        glob = compile_glob(name)
        if glob.exact:  # an escaped name is a name, and has one owner
            check_name(glob.literal_prefix)
            return Route.of(dataclasses.replace(tool, name=glob.literal_prefix))
        beginning = glob.literal_prefix
        if beginning and not is_name(beginning):
            raise ConfigurationError(f"the pattern {name!r} fits no name: none begins with {beginning[:40]!r}")
        if beginning.startswith(RESERVED_NAMESPACE):
            raise ConfigurationError(f"the pattern {name!r}: the namespace {RESERVED_NAMESPACE} is reserved")
        _ = glob.shapes  # read here, so that no call waits for ten thousand of them
        return Route(glob, tool)

    def below(self, prefix: str) -> Route:
        """The same with `prefix` before its pattern. Raises ConfigurationError."""
        return Route.of(dataclasses.replace(self.tool, name=prefix + self.pattern)) if prefix else self


class RouteTable:
    """Never changes. The index of patterns is made when it is first needed, and shared by tables that agree in them."""

    def __init__(self, routes: Mapping[str, Route] | None = None, index: GlobIndex[Route] | None = None) -> None:
        self._routes = routes or {}
        self._index = index

    def match(self, name: str) -> Route | None:
        """The route that counts for `name`, None if there is none or it is no name. Nothing is normalised."""
        route = self._routes.get(name)
        if route is not None and route.glob.exact:  # its name was held to the grammar when it was registered
            return route
        if not is_name(name) or name.startswith(RESERVED_NAMESPACE):
            return None
        return self._patterns().first(name)

    def changed(self, remove: Collection[str], add: Iterable[Route]) -> RouteTable:
        """The table without the routes of the patterns `remove`, and with those of `add` behind all others.

        Raises ConfigurationError for a pattern that would be there twice.
        """
        gone = [self._routes[pattern] for pattern in remove if pattern in self._routes]
        routes = {**self._routes}
        for route in gone:
            del routes[route.pattern]
        added: list[Route] = []
        for route in add:
            if route.pattern in routes:
                what, part = ("tool", "name") if route.glob.exact else ("route", "pattern")
                raise ConfigurationError(f"{what} {route.pattern!r} is registered already; a {part} has one owner")
            routes[route.pattern] = route
            added.append(route)
        same_patterns = all(route.glob.exact for route in gone + added)
        return RouteTable(routes, self._index if same_patterns else None)

    @cached_property
    def examples(self) -> Mapping[str, tuple[str, Tool]]:
        """What there is to be called, names and patterns in order: each with a name that it takes, and its tool.

        Without patterns of which no name is known that would lead to them.
        """
        found: dict[str, tuple[str, Tool]] = {}
        for pattern, route in sorted(self._routes.items()):
            name = route.glob.example
            if route.glob.exact or self.match(name) is route:
                found[pattern] = name, route.tool
        return found

    def names(self) -> list[str]:
        """The exact names, in order."""
        return sorted(route.pattern for route in self if route.glob.exact)

    def __iter__(self) -> Iterator[Route]:
        """In the order of registration."""
        return iter(self._routes.values())

    def __len__(self) -> int:
        return len(self._routes)

    def __contains__(self, pattern: str) -> bool:
        return pattern in self._routes

    def _patterns(self) -> GlobIndex[Route]:
        if self._index is None:
            patterns = [route for route in self if not route.glob.exact]
            patterns.sort(key=lambda route: -len(route.glob.literal_prefix))
            self._index = GlobIndex([(route.glob, route) for route in patterns])
        return self._index


def unknown_tool(name: str, names: Iterable[str]) -> UnknownToolError:
    """The refusal of a name that leads nowhere. `names`: those that the caller may call."""
    near = nearest(name, names)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    shown = name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "…"
    return UnknownToolError(f"unknown tool {shown!r}{hint}")

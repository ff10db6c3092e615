"""The tools of one broker. The chain's route step asks it; nothing else decides what a name means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from enclave_broker.broker.tools.router import Router
from enclave_broker.broker.tools.tool import Tool

__all__ = ["Catalog"]


class Catalog:
    """Tools by name, in a router that may hold patterns, too; a call keeps the tool that it was routed to."""

    def __init__(self, tools: Iterable[Tool] = (), *, router: Router | None = None) -> None:
        self.router = Router() if router is None else router
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool) -> None:
        """Raises ConfigurationError for a name outside the grammar or one that is taken."""
        self.router.add(tool)

    def find(self, name: str) -> Tool | None:
        route = self.router.match(name)
        return None if route is None else route.tool

    def names(self) -> list[str]:
        """Without what only fits a pattern."""
        return self.router.table.names()

    def __iter__(self) -> Iterator[Tool]:
        return iter([route.tool for route in self.router])

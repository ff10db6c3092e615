"""The tools of one broker by exact name. The chain's route step asks it; nothing else decides what a name means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from enclave_broker.broker.tools.names import check_name
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.types.errors import ConfigurationError

__all__ = ["Catalog"]


class Catalog:
    """Names to tools. A change makes a new mapping, so a call under way keeps the tool it was routed to."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: Mapping[str, Tool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool) -> None:
        """Raises ConfigurationError for a name outside the grammar or one that is taken."""
        check_name(tool.name)
        if tool.name in self._tools:
            raise ConfigurationError(f"tool {tool.name!r} is registered already; a name has one owner")
        self._tools = {**self._tools, tool.name: tool}

    def find(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def names(self) -> list[str]:
        return sorted(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

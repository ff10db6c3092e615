"""How a broker's tools are registered: the part of the façade that is about names and functions."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, overload

import msgspec

from enclave_broker.broker.calls.secrets import Secrets, Source
from enclave_broker.broker.calls.tool_router import ToolRouter
from enclave_broker.broker.tools.catalog import Catalog
from enclave_broker.broker.tools.client_tool import client_tool
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.tools.tool import Tool, tool_from_function
from enclave_broker.types.calls import Effect
from enclave_broker.types.errors import ConfigurationError

__all__ = ["Registry"]

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """A Broker is one. Tools may come and go while sessions are open; a call keeps the tool that it was routed to."""

    def __init__(
        self,
        tools: Mapping[str, Callable[..., Any] | Tool] | None,
        router: ToolRouter | None,
        secrets: Mapping[str, Source] | None,
    ) -> None:
        if router is not None and not isinstance(router, ToolRouter):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"router is a ToolRouter, not {router!r}")
        self.router = ToolRouter() if router is None else router
        """All tools, those of patterns too; what is registered there counts here at once."""
        self._threads = HandlerThreads()
        self._secrets = Secrets(secrets, self._threads)
        for route in self.router:
            self._secrets.check(f"route {route.pattern}", route.secrets)
        self.router.secrets = self._secrets
        self._catalog = Catalog(router=self.router)
        self._versions: tuple[int, str] | None = None
        for name, handler in (tools or {}).items():
            tool = handler if isinstance(handler, Tool) else tool_from_function(handler, name=name)
            self._catalog.add(dataclasses.replace(tool, name=name))

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
        description: str | None = None,
        run_in_thread: bool = True,
    ) -> Callable[[F], F]: ...
    def tool(self, function: Any = None, /, **options: Any) -> Any:
        """Register a function as a tool, under its own name or the one given; returns the function unchanged.

        Its typed parameters are the arguments (one named `args` is the whole object, one annotated `ToolContext` gets
        the context). `async def` runs in the loop, `def` in a thread. `secrets` are names of the broker's, whose values
        the context holds for each start. `requires_auth` refuses whoever is anonymous,
        `requires_approval` has a person asked about each call that no access rule has asked about,
        `rate_limit` is a RateLimit of its own, `middleware` stands inside the broker's. Raises ConfigurationError for
        a name that is taken or no name, and for a signature that can't be a tool's.
        """
        if callable(function):
            self._catalog.add(tool_from_function(function, warn_without_result_type=True))
            return function

        def register(target: F) -> F:
            self._catalog.add(tool_from_function(target, name=function, warn_without_result_type=True, **options))
            return target

        return register

    @property
    def tools(self) -> list[Tool]:
        """The registered tools, by name; a router's pattern stands for all that fit it."""
        return sorted(self._catalog, key=lambda tool: tool.name)

    @property
    def catalog_version(self) -> str:
        """Another one exactly if one of the tools is: its name, description, arguments or effect."""
        number = self.router.version
        if self._versions is None or self._versions[0] != number:
            told = [[tool.name, tool.description, tool.input_schema, tool.effect] for tool in self.tools]
            self._versions = number, hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]
        return self._versions[1]

    def include(self, router: ToolRouter, prefix: str = "") -> None:
        """Register all that a router has now, `prefix` before its names and patterns. Raises ConfigurationError."""
        self.router.include(router, prefix)

    def client_tool(
        self, name: str, *, args: Any, result: Any = Any, timeout: float | timedelta = 60.0, description: str = ""
    ) -> None:
        """Register a tool that the client of a session executes: the call waits for `POST …/tool-result`.

        `args` is the type of its argument object, `result` of its result, `timeout` how long the client may take, in
        seconds. Raises ConfigurationError.
        """
        self._catalog.add(client_tool(name, args=args, result=result, timeout=timeout, description=description))

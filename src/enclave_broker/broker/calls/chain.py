"""THE chain: what stands between a call and its handler, composed in one place, in one order.

    name grammar → route → allow-list → validate → [listeners] → started (recorded) → handler → result limits → outcome

Each step is a function of the call that returns None or something to await, and refuses by raising ToolError. Further
policies are further steps here; nothing else may start a handler. calls/runner.py runs the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from enclave_broker.broker.calls.call import Call, CallState
from enclave_broker.broker.calls.handler import Handler, start_of
from enclave_broker.broker.tools.catalog import Catalog
from enclave_broker.broker.tools.names import is_name, nearest
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.wheel import Wheel
from enclave_broker.types.errors import ToolNotAllowedError, UnknownToolError

__all__ = ["Chain", "Step", "compose"]


class Step(NamedTuple):
    """A named part of the chain. `apply` returns None when it is done, else what to await."""

    name: str
    apply: Callable[[Call], Awaitable[None] | None]


class Chain:
    """The composed steps: those that let a call through, then the handler, once."""

    def __init__(self, admission: Collection[Step] = (), handler: Handler | None = None) -> None:
        self._admission = tuple(admission)
        self._handler = handler

    def admit(self, call: Call) -> Awaitable[None] | None:
        """Take the call through every step of policy: None when that is done, else the rest of it, to be awaited.

        Raises what a step raised, as does awaiting the rest.
        """
        call.state = CallState.RUNNING
        for place, (name, apply) in enumerate(self._admission):
            call.step = name
            waiting = apply(call)
            if waiting is not None:
                return self._rest(call, waiting, place + 1)
        return None

    async def _rest(self, call: Call, waiting: Awaitable[None], place: int) -> None:
        await waiting
        for name, apply in self._admission[place:]:
            if call.is_settled:
                return  # its session has ended meanwhile
            call.step = name
            following = apply(call)
            if following is not None:
                await following

    async def handle(self, call: Call) -> None:
        """Run the handler of a call whose start is recorded; its `result` is set when this returns."""
        assert self._handler is not None
        call.step = "handler"
        await self._handler(call)

    async def until_durable(self, call: Call, writing: Awaitable[None]) -> None:
        """Wait for the store, until the call's deadline at most: what can't be recorded by then isn't done."""
        self.expect(call)
        await writing

    def expect(self, call: Call) -> None:
        """The call's time begins."""
        assert self._handler is not None
        self._handler.expect(call)

    async def perform(self, call: Call) -> None:
        """Record the start, then run the handler. Raises what it raised."""
        call.step = "started"
        writing = call.caller.started(call, start_of(call))
        if writing is not None:
            await self.until_durable(call, writing)
        if not call.is_settled:
            await self.handle(call)


def compose(catalog: Catalog, wheel: Wheel, threads: HandlerThreads) -> Chain:
    """The chain of a broker with these tools."""
    return Chain(
        (
            Step("name", _Named(catalog)),
            Step("route", _Route(catalog)),
            Step("allow-list", _allow_list),
            Step("validate", _validate),
        ),
        Handler(wheel, threads),
    )


def _unknown(catalog: Catalog, call: Call) -> UnknownToolError:
    near = nearest(call.name, [name for name in catalog.names() if call.caller.allows(name)])
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    shown = call.name if len(call.name) <= 100 else call.name[:100] + "…"
    return UnknownToolError(f"unknown tool {shown!r}{hint}")


class _Named:
    """The grammar refuses a name before any rule sees it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, call: Call) -> None:
        # A tool's name was held to the grammar when it was registered.
        if self._catalog.find(call.name) is None and not is_name(call.name):
            raise _unknown(self._catalog, call)


class _Route:
    """The tool of exactly this name; names are never normalised."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, call: Call) -> None:
        call.tool = self._catalog.find(call.name)
        if call.tool is None:
            raise _unknown(self._catalog, call)


def _allow_list(call: Call) -> None:
    if not call.caller.allows(call.name):
        raise ToolNotAllowedError(f"tool {call.name!r} is not on this session's allow-list")


def _validate(call: Call) -> None:
    assert call.tool is not None
    call.validated = call.tool.validate(call.args_json)

"""THE chain: what stands between a call and its handler, composed in one place, in one order.

    name grammar → route → allow-list → validate → [listeners] → started (recorded) → handler → result limits → outcome

Each step is a function of the call that returns None or something to await, and refuses by raising ToolError. Further
policies are further steps here; nothing else may start a handler. calls/runner.py runs the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from enclave_broker.broker.calls.call import Call, CallState
from enclave_broker.broker.calls.handler import Handler, started
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
    """The composed steps: those that let a call through, and those that then perform it, once."""

    def __init__(self, admission: Collection[Step], performance: Collection[Step]) -> None:
        self._admission = tuple(admission)
        self._performance = tuple(performance)

    async def admit(self, call: Call) -> None:
        """Take the call through every step of policy. Raises what a step raised."""
        call.state = CallState.RUNNING
        await self._take(call, self._admission)

    async def perform(self, call: Call) -> None:
        """Run the handler; the call's `result` is set when this returns. Raises what a step raised."""
        await self._take(call, self._performance)

    async def _take(self, call: Call, steps: tuple[Step, ...]) -> None:
        for name, apply in steps:
            call.step = name
            waiting = apply(call)
            if waiting is not None:
                await waiting
            if call.is_settled:
                return  # its session has ended meanwhile, or somebody else has answered


def compose(catalog: Catalog, wheel: Wheel, threads: HandlerThreads) -> Chain:
    """The chain of a broker with these tools."""
    return Chain(
        (
            Step("name", _Named(catalog)),
            Step("route", _Route(catalog)),
            Step("allow-list", _allow_list),
            Step("validate", _validate),
        ),
        (
            Step("started", started),
            Step("handler", Handler(wheel, threads)),
        ),
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
        if not is_name(call.name):
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

"""THE chain: what stands between a call and its handler, composed in one place, in one order.

    name grammar → route → allow-list → access(name) → validate → access(arguments) → quota (room? → approval → charge)
    → [listeners] → middleware[ arguments changed? validate, access again → started (recorded) → secrets → handler →
    result limits ] → outcome

Each step is a function of the call that returns None or something to await, and refuses by raising ToolError. Further
policies are further steps here; nothing else may start a handler. calls/runner.py runs the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import NamedTuple
from weakref import WeakKeyDictionary

from enclave_broker.broker.calls.around import Around
from enclave_broker.broker.calls.call import Call, Caller, CallState, Later
from enclave_broker.broker.calls.handler import Handler, start_of
from enclave_broker.broker.calls.middleware.compose import Middleware
from enclave_broker.broker.calls.policy import Policy
from enclave_broker.broker.calls.secrets import Secrets
from enclave_broker.broker.tools.catalog import Catalog
from enclave_broker.broker.tools.names import nearest
from enclave_broker.broker.tools.routes import RouteTable, unknown_tool
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.broker.wheel import Wheel
from enclave_broker.types.errors import ToolNotAllowedError, UnknownToolError

__all__ = ["Chain", "Step", "compose"]

_MAX_OFFERED = 10  # names that a refusal lists; more aren't read
_MAX_OFFERED_CHARACTERS = 300
_MAX_ASKED = 1_000  # names that the rules are asked about for it


class Step(NamedTuple):
    """A named part of the chain. `apply` returns None when it is done, else what to await."""

    name: str
    apply: Callable[[Call], Awaitable[None] | None]


class Chain:
    """The composed steps: those that let a call through, then the handler, once."""

    def __init__(
        self, admission: Collection[Step] = (), handler: Handler | None = None, around: Around | None = None
    ) -> None:
        self._admission = tuple(admission)
        self._handler = handler
        self._around = around

    def admit(self, call: Call) -> Awaitable[None] | None:
        """Take the call through every step of policy: None when that is done, else the rest of it, to be awaited.

        Raises what a step raised, as does awaiting the rest.
        """
        call.state = CallState.RUNNING
        steps = iter(self._admission)
        for name, apply in steps:
            call.step = name
            waiting = apply(call)
            if waiting is not None:
                return Later(partial(self._rest, call, waiting, steps))
        return None

    async def _rest(self, call: Call, waiting: Awaitable[None], steps: Iterator[Step]) -> None:
        await waiting
        for name, apply in steps:
            if call.is_settled:
                return  # its session has ended meanwhile
            call.step = name
            following = apply(call)
            if following is not None:
                await following

    def is_plain(self, call: Call) -> bool:
        """Whether nothing stands around the call's handler, so that its start may be recorded beforehand."""
        return self._around is None or not self._around.has_any(call)

    def handle(self, call: Call) -> Awaitable[None]:
        """Run the handler of a call whose start is recorded; its `result` is set when this is done."""
        assert self._handler is not None
        call.step = "handler"
        return self._handler(call)

    async def until_durable(self, call: Call, writing: Awaitable[None]) -> None:
        """Wait for the store, until the call's deadline at most: what can't be recorded by then isn't done."""
        self.expect(call)
        await writing

    def expect(self, call: Call) -> None:
        """The call's time begins."""
        assert self._handler is not None
        self._handler.expect(call)

    def perform(self, call: Call) -> Awaitable[None]:
        """Record the start, then run the handler, within its middleware. Awaiting it raises what they raised."""
        if self._around is not None and self._around.has_any(call):
            call.step = "middleware"
            return self._around.perform(call)
        return self._perform(call)

    async def _perform(self, call: Call) -> None:
        if call.is_settled:
            return
        call.step = "started"
        writing = call.caller.started(call, start_of(call))
        if writing is not None:
            await self.until_durable(call, writing)
        if not call.is_settled:
            await self.handle(call)


def compose(
    catalog: Catalog,
    wheel: Wheel,
    threads: HandlerThreads,
    policy: Policy | None = None,
    middleware: tuple[Middleware, ...] = (),
    secrets: Secrets | None = None,
) -> Chain:
    """The chain of a broker with these tools, rules and middleware."""
    rules = policy or Policy(None, None, None)
    handler = Handler(wheel, threads, secrets or Secrets(None, threads))
    route = _Route(catalog, rules)

    def judge(call: Call) -> None:
        call.step = "validate"
        _validate(call)
        call.step = "access"
        rules.judge_changed(call)

    judged = rules.has_rules
    return Chain(
        (
            *([Step("facts", rules.find_facts)] if judged else []),
            Step("route", route),
            Step("allow-list", route.allow_list),
            Step("access", rules.by_name),
            Step("validate", _validate),
            *([Step("access", rules.by_arguments)] if judged else []),
            Step("quota", rules.charge),
        ),
        handler,
        Around(middleware, handler, judge),
    )


class _Route:
    """The tool that takes calls of this name, which is never normalised; what is no name leads nowhere.

    A refusal says what the caller may call instead: only names and patterns that it may call as far as a name tells.
    """

    def __init__(self, catalog: Catalog, policy: Policy) -> None:
        self._catalog = catalog
        self._policy = policy
        self._allowed: WeakKeyDictionary[Caller, tuple[RouteTable, list[str]]] = WeakKeyDictionary()

    def __call__(self, call: Call) -> None:
        call.tool = self._catalog.find(call.name)
        if call.tool is None:
            near = nearest(call.name, self._allowed_to(call.caller), partial(self._may_know, call))
            error = unknown_tool(call.name, near)
            raise error if near else UnknownToolError(error.message + self._offer(call))

    def allow_list(self, call: Call) -> None:
        if not call.caller.allows(call.name):
            raise ToolNotAllowedError(f"tool {call.name!r} is not on this session's allow-list{self._offer(call)}")

    def _offer(self, call: Call) -> str:
        """What the caller may call instead, as the end of a message."""
        offered: list[str] = []
        for name in self._allowed_to(call.caller):
            if not self._may_know(call, name):
                continue
            if len(offered) == _MAX_OFFERED or sum(map(len, offered)) + len(name) > _MAX_OFFERED_CHARACTERS:
                offered.append("…")
                break
            offered.append(name)
        if not offered and any(name != example for name, (example, _) in self._examples().items()):
            return ""  # what else a pattern takes isn't known
        return f"; this session may call {', '.join(offered) or 'no tool'}"

    def _examples(self) -> Mapping[str, tuple[str, Tool]]:
        return self._catalog.router.table.examples

    def _may_know(self, call: Call, pattern: str) -> bool:
        return self._policy.may_know(call, *self._examples()[pattern])

    def _allowed_to(self, caller: Caller) -> list[str]:
        """Names and patterns that are on a caller's allow-list; looked for once, since either may have thousands."""
        table = self._catalog.router.table
        known = self._allowed.get(caller)
        if known is None or known[0] is not table:
            allowed = (pattern for pattern, (name, _) in table.examples.items() if caller.allows(name))
            known = self._allowed[caller] = table, list(islice(allowed, _MAX_ASKED))
        return known[1]


def _validate(call: Call) -> None:
    assert call.tool is not None
    call.validated = call.tool.validate(call.args_json, name=call.name)

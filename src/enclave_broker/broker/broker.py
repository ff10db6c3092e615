"""The broker: builds everything once, starts and ends it, and is the façade that hosts use.

Owns the life of runtime, calls and sessions and the loop they belong to. What a session does is sessions/'s, what
stands before a handler is calls/'s, where engines run is runtime/'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from enclave_broker.broker.assembly import Parts, assemble
from enclave_broker.broker.calls.access import AccessController
from enclave_broker.broker.calls.approvals import Approvals
from enclave_broker.broker.calls.middleware.compose import Middleware, check_middleware
from enclave_broker.broker.calls.policy import ContextResolver, Policy, checked_policy
from enclave_broker.broker.calls.rate_limit import RateLimiter
from enclave_broker.broker.calls.secrets import Source
from enclave_broker.broker.calls.tool_router import ToolRouter
from enclave_broker.broker.lifecycle import Lifecycle, Running
from enclave_broker.broker.observers import EventCallback
from enclave_broker.broker.one_run import ReturnWhen, check_run, one_run
from enclave_broker.broker.registry import Registry
from enclave_broker.broker.sessions.catalog_news import CatalogNews
from enclave_broker.broker.sessions.host import Sources, is_running_here
from enclave_broker.broker.sessions.manager import SessionManager
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.store.store import Store
from enclave_broker.broker.telemetry.telemetry import Telemetry
from enclave_broker.broker.tools.globs import compile_globs
from enclave_broker.broker.tools.router import RoutesChanged
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.runtime.runtime import Runtime
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.ids import new_session_id
from enclave_broker.types.limits import SessionLimits
from enclave_broker.types.principal import ANONYMOUS, Principal
from enclave_broker.types.result_types import typed
from enclave_broker.types.results import ExecutionResult

__all__ = ["Broker", "create_session"]

if TYPE_CHECKING:
    from starlette.applications import Starlette

T = TypeVar("T")
Now = Callable[[], float] | float | None

DRAIN_SECONDS = 5.0
"""How long leaving `async with broker` waits for what still runs."""


class Broker(Registry):
    """Runs scripts in the sandbox and routes each tool call they make through one chain to a Python function.

    Making one reads no file and no environment and starts nothing. It starts on `async with`, or on the first await,
    and ends with `aclose()`. It belongs to the loop that started it: from another loop or thread `execute` is handed
    over while that loop runs; after that the broker starts anew. On Linux a sandbox that can't be built completely is a
    ConfigurationError at the start, unless `weak_sandbox`. `runtimes` replaces the worker processes (one, for now).
    `access` decides who may call what, `rate_limiter` how often, `middleware` stands around every handler, outer to
    inner; `context` gives the rules facts about a principal, asked once a call. `secrets` are what tools get by name.
    """

    def __init__(
        self,
        *,
        tools: Mapping[str, Callable[..., Any] | Tool] | None = None,
        router: ToolRouter | None = None,
        middleware: Sequence[Middleware] = (),
        access: AccessController | None = None,
        rate_limiter: RateLimiter | None = None,
        context: ContextResolver | None = None,
        secrets: Mapping[str, Source] | None = None,
        sessions: SessionManager | None = None,
        limits: SessionLimits | None = None,
        store: Literal["memory"] | Store = "memory",
        weak_sandbox: bool = False,
        runtimes: Sequence[Runtime] = (),
        sources: Sources | None = None,
    ) -> None:
        if len(runtimes) > 1:
            raise ConfigurationError("more than one runtime is not supported yet")
        super().__init__(tools, router, secrets)
        self.access = access
        self._limiter = checked_policy(access, rate_limiter, context)
        self.router.limiter = self._limiter
        self.context = context
        """Gives the rules facts about a principal; read at each start."""
        self.sessions = sessions or SessionManager()
        self.limits = limits or SessionLimits()
        """What a session gets unless it has its own, and the most that a request over HTTP can ask for."""
        if isinstance(store, str) and store != "memory":
            raise ConfigurationError(f"store {store!r} is not here: 'memory' is, and any Store")
        self.weak_sandbox = weak_sandbox
        """Whether a start without all required walls is accepted; read at each start."""
        self._sources = sources or Sources()
        self._callbacks: list[EventCallback] = []
        self.telemetry = Telemetry()
        self._life = Lifecycle(self._start)
        self.approvals = Approvals(self._life.here, lambda: self.context)
        self._parts = Parts(
            catalog=self._catalog,
            middleware=check_middleware(middleware, "Broker(middleware=)"),
            secrets=self._secrets,
            threads=self._threads,
            runtimes=tuple(runtimes),
            store=None if isinstance(store, str) else store,
            owner_id=new_session_id(os.urandom)[2:],
            telemetry=self.telemetry,
            approvals=self.approvals,
        )
        """The calls that wait for a person."""
        self.on_approval = self.approvals.on

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def languages(self) -> list[str]:
        """What scripts may be written in."""
        return ["javascript"]

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""
        return self._life.running is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it runs in, None while it doesn't."""
        return self._life.owner()

    @property
    def shutting_down(self) -> bool:
        """Whether `shut_down` was called and no start has come since."""
        return self.sessions.refusing

    def http_app(self, **options: Any) -> Starlette:
        """The broker as an ASGI application, whose lifespan runs it; options are those of broker/http/app.py."""
        from enclave_broker.broker.http.app import http_app  # noqa: PLC0415 a plain import loads no web framework

        return http_app(self, **options)

    def mount(self, app: Starlette, path: str, **options: Any) -> None:
        """Mount `http_app(**options)` into a Starlette or FastAPI application, whose lifespan then runs the broker."""
        from enclave_broker.broker.http.mount import mount  # noqa: PLC0415 the same

        mount(self, app, path, **options)

    def shut_down(self) -> None:
        """End every session at once with SHUTTING_DOWN and refuse new ones; `aclose` does the rest. Idempotent."""
        self.sessions.shut_down()

    def on_event(self, callback: EventCallback) -> EventCallback:
        """Call it, a function or an async function, with every event of every session, in each session's order.

        What it raises is logged and harms nothing.
        """
        self._callbacks.append(callback)
        return callback

    # -- life ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._life.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._life.leave(DRAIN_SECONDS if error is None else 0.0)

    async def aclose(self) -> None:
        """End everything: what runs gets SHUTTING_DOWN as its final. Idempotent; `async with` may start it again."""
        await self._life.close()

    async def _start(self) -> Running:
        policy = Policy(self.access, self._limiter, self.context, self.approvals)
        running = await assemble(self._parts, policy, self.sessions, weak_sandbox=self.weak_sandbox)
        news = CatalogNews(self.access, self.context)
        running.on_end(self.router.on_change(partial(self._tell_sessions, running.host.loop, news)))
        running.on_end(news.end)
        return running

    def _tell_sessions(self, loop: asyncio.AbstractEventLoop, news: CatalogNews, told: RoutesChanged) -> None:
        """Tools have come or gone, maybe in another thread."""
        if not is_running_here(loop):
            loop.call_soon_threadsafe(self._tell_sessions, loop, news, told)
            return
        news.tell(self.sessions.list(limit=None), lambda: self.catalog_version, told)

    @contextlib.asynccontextmanager
    async def override(
        self, *, secrets: Mapping[str, Source] | None = None, seed: int | None = None, now: Now = None
    ) -> AsyncGenerator[Self]:
        """For tests and demonstrations: sessions that are opened in here have this randomness and this time.

        `now` is in seconds since the epoch. Handlers that start in here have these `secrets`, all of whose names the
        broker knows, whoever calls them. Raises ConfigurationError.
        """
        before = self._sources
        random = before.random if seed is None else Random(seed).randbytes  # noqa: S311 fixed on purpose
        clock = before.now if now is None else now if callable(now) else partial(float, now)
        self._sources = Sources(now=clock, random=random)
        try:
            with self._secrets.replaced(secrets or {}):
                yield self
        finally:
            self._sources = before

    # -- running code ----------------------------------------------------------------------------------------------

    async def execute(
        self,
        code: str,
        *,
        language: str = "javascript",
        allowed_tools: Sequence[str] | None = None,
        principal: Principal | None = None,
        timeout: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
        max_tool_calls: int | None = None,
        limits: SessionLimits | None = None,
        metadata: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        result_type: Any = Any,
        return_when: ReturnWhen = "final",
        on_event: EventCallback | None = None,
    ) -> ExecutionResult[Any]:
        """Run code in a session of its own and wait for its end.

        A script that fails is a result, never an exception. `allowed_tools` are exact names and globs, None is every
        tool. `context` is facts for the access rules; `metadata` is labels, and never is. `result_type` is what the
        value has to be (anything pydantic validates); a value that isn't is a failed result with VALIDATION_ERROR.
        `on_event` gets every event before this returns. With `return_when="waiting"` this also returns when all that is
        under way waits for a person: with that `status`, and `pending`; `sessions.get(session_id).wait()` has the end,
        up to ten minutes after it. Cancelling this ends the run.
        Raises ConfigurationError for wrong options, OverloadedError when there is no room, ClosedError after `aclose`.
        """
        check = typed(result_type)
        merged = self._limits_of(limits, timeout, deadline, max_tool_calls)
        waits = check_run(return_when, on_event)
        approvals = self.approvals if waits else None

        async def run() -> ExecutionResult[Any]:
            session = await self._open(allowed_tools, principal, merged, metadata, None, context=context, single=waits)
            return check(await one_run(session, code, language, on_event, sessions=self.sessions, approvals=approvals))

        return await self._life.here(run)

    def execute_sync(self, code: str, **options: Any) -> ExecutionResult[Any]:
        """`execute` for code without a loop, with the same options; beside a running loop (Jupyter) it works, too.

        The broker then lives in a thread of its own, and `async def` handlers run there. Raises RuntimeError when
        called in the very loop that the broker belongs to: there it could only wait for itself.
        """
        return self._life.run_sync(lambda: self.execute(code, **options))

    async def create_session(
        self,
        *,
        allowed_tools: Sequence[str] | None = None,
        timeout: float | timedelta | None = None,
        deadline: float | timedelta | None = None,
        max_tool_calls: int | None = None,
        principal: Principal | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        limits: SessionLimits | None = None,
        session_id: str | None = None,
        dispatch: Literal["auto", "manual"] = "auto",
    ) -> Session:
        """A session without code yet: `session.execute(code)` runs some. Options are `execute`'s.

        `user_id` is short for a principal with that subject. With `dispatch="manual"` the broker starts no call by
        itself: listeners (`session.on`) execute or answer each. Raises ConfigurationError, OverloadedError,
        SessionExistsError for a `session_id` that is taken.
        """
        if user_id is not None:
            if principal is not None:
                raise ConfigurationError("principal and user_id say the same thing: give one of them")
            principal = Principal(user_id)
        if dispatch not in {"auto", "manual"}:
            raise ConfigurationError(f"dispatch is 'auto' or 'manual', not {dispatch!r}")
        merged, manual = self._limits_of(limits, timeout, deadline, max_tool_calls), dispatch == "manual"
        return await self._life.here(
            lambda: self._open(allowed_tools, principal, merged, metadata, session_id, context=context, manual=manual)
        )

    def _limits_of(
        self, limits: SessionLimits | None, timeout: Any, deadline: Any, max_tool_calls: int | None
    ) -> SessionLimits:
        if limits is not None and not isinstance(limits, SessionLimits):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"limits is a SessionLimits, not {limits!r}")
        base = limits or self.limits
        return base.override(timeout=timeout, deadline=deadline, max_tool_calls=max_tool_calls)

    async def _open(
        self,
        allowed_tools: Sequence[str] | None,
        principal: Principal | None,
        limits: SessionLimits,
        metadata: Mapping[str, Any] | None,
        session_id: str | None,
        *,
        single: bool = False,
        manual: bool = False,
        detached: bool = True,
        context: Mapping[str, Any] | None = None,
    ) -> Session:
        if principal is not None and not isinstance(principal, Principal):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"principal is a Principal, not {principal!r}")
        if metadata is not None and not isinstance(metadata, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"metadata is a mapping of labels, not {metadata!r}")
        if context is not None and not isinstance(context, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"context is a mapping of facts for the policy, not {context!r}")
        allowed = compile_globs(allowed_tools)
        running = self._life.running or await self._life.ready()
        session = self.sessions.open(
            sources=self._sources,
            principal=principal or ANONYMOUS,
            limits=limits,
            allowed=allowed,
            metadata=metadata or {},
            session_id=session_id,
            single=single,
            manual=manual,
            detached=detached,
            context=context or {},
        )
        for callback in self._callbacks:
            running.host.observers.watch(session.all_events(), callback)
        return session

    async def open_session(
        self,
        limits: SessionLimits,
        *,
        allowed_tools: Sequence[str] | None,
        principal: Principal,
        metadata: Mapping[str, Any] | None,
        session_id: str | None,
        detached: bool,
    ) -> Session:
        """For an edge: a session for one execution, in this loop. `limits` are final. Raises as `create_session`."""
        return await self._open(allowed_tools, principal, limits, metadata, session_id, single=True, detached=detached)

    async def execute_tool_call(self, session_id: str, call: ToolCall | Mapping[str, Any]) -> Any:
        """A tool call without a script, or one that a script has made: the whole chain, once per call id.

        Returns the value as JSON. Raises ToolError with the wire's code, SessionNotFoundError, SessionClosedError.
        """
        running = self._life.running
        if running is not None and is_running_here(running.host.loop):
            return await self._call(session_id, call)
        return await self._life.here(partial(self._call, session_id, call))

    async def _call(self, session_id: str, call: ToolCall | Mapping[str, Any]) -> Any:
        await self._life.ready()
        asked = call.principal if isinstance(call, ToolCall) and call.session_id else None
        return await self.sessions.find_called(session_id, asked).calls.call(call)


async def create_session(broker: Broker, **options: Any) -> Session:
    """The same as `broker.create_session(...)`."""
    return await broker.create_session(**options)

"""Who starts and ends what a client calls in its own process: an application by its lifespan, a Broker by `async with`.

A Broker's own application would do it by its lifespan, too, but as a server's: with an eye on the process's signals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Protocol

from enclave_broker.client.transport import NotReachedError
from enclave_broker.types.errors import ConfigurationError, EnclaveError

__all__ = ["VERSIONS", "AsgiApp", "BrokerLife", "Life", "Lifespan", "Message", "RunsItself"]

VERSIONS = {"version": "3.0", "spec_version": "2.4"}

Message = MutableMapping[str, Any]


class AsgiApp(Protocol):
    def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        /,
    ) -> Awaitable[None]: ...


class Life(Protocol):
    @property
    def state(self) -> Mapping[str, Any]:
        """What every request finds in its scope."""
        ...

    async def started(self) -> None:
        """Start it, once. Raises NotReachedError when it can't, or the EnclaveError that says why."""
        ...

    async def aclose(self) -> None:
        """End it. Raises what it raises when it ends."""
        ...


class RunsItself(Protocol):
    """A Broker: `async with` runs it in this loop; one that runs in another loop already is joined, not moved."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> Any: ...
    def shut_down(self) -> None: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The running loop that it belongs to."""
        ...


class BrokerLife:
    """Runs a Broker unless somebody else does in this loop."""

    def __init__(self, broker: RunsItself) -> None:
        self.state: Mapping[str, Any] = {}
        self._broker = broker
        self._entering: asyncio.Task[bool] | None = None

    async def started(self) -> None:
        if self._entering is None:
            self._entering = asyncio.create_task(self._enter(), name="starting the client's broker")
        try:
            owned_here = await asyncio.shield(self._entering)
        except EnclaveError:
            self._entering = None  # the next request may find what was missing
            raise
        if not owned_here and self._broker.loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                "the broker runs in another event loop: use an AsyncClient there, or a client of its URL"
            )

    async def _enter(self) -> bool:
        here = asyncio.get_running_loop()
        if self._broker.loop is here:
            return False
        await self._broker.__aenter__()
        return self._broker.loop is here

    async def aclose(self) -> None:
        if self._entering is None:
            return
        try:
            owned = await asyncio.shield(self._entering)
        except EnclaveError:
            return
        self._entering = None
        if owned:
            self._broker.shut_down()  # what still runs has nobody who could wait for it
            await self._broker.__aexit__(None, None, None)


class Lifespan:
    """Runs an application's start and end. One that doesn't know the lifespan protocol has none."""

    def __init__(self, app: AsgiApp) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[None] | None = None
        self._ending = asyncio.Event()
        self._asked = False
        self._refused: str | None = None

    async def started(self) -> None:
        """Start it, once. Raises NotReachedError when it can't, or the EnclaveError that says why."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._starting), name="in-process lifespan")
        await asyncio.shield(self._starting)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._ending.wait()
        return {"type": "lifespan.shutdown"}

    async def _run(self, starting: asyncio.Future[None]) -> None:
        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete" and not starting.done():
                starting.set_result(None)
            elif message["type"] == "lifespan.startup.failed":
                self._refused = message.get("message", "") or "it doesn't say why"
                self._ending.set()

        failure: Exception | None = None
        try:
            await self._app({"type": "lifespan", "asgi": dict(VERSIONS), "state": self.state}, self._receive, send)
        except Exception as error:  # noqa: BLE001 the application's boundary
            failure = error
        if starting.done():
            if failure is not None:
                raise failure
        elif isinstance(failure, EnclaveError):
            starting.set_exception(failure)
        elif self._refused is not None:
            error = NotReachedError(f"the application can't start: {failure or self._refused}")
            error.__cause__ = failure
            starting.set_exception(error)
        else:
            starting.set_result(None)  # it doesn't know the protocol, and says so by an exception or by leaving

    async def aclose(self) -> None:
        """End it. Raises what the application raises when it ends."""
        self._ending.set()
        if self._task is not None:
            task, self._task = self._task, None
            await task

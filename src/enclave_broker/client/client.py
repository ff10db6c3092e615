"""Client: AsyncClient for code without an event loop. Owns the thread in which its loop runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from concurrent.futures import CancelledError
from typing import Any, Self, TypeVar, Unpack

from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.body import RunOptions
from enclave_broker.client.server import SessionInfo, ToolInfo
from enclave_broker.client.streams import Reconnection, StreamedEvent
from enclave_broker.client.target import Target
from enclave_broker.types.approval import Approval
from enclave_broker.types.errors import ClosedError
from enclave_broker.types.principal import Principal
from enclave_broker.types.results import CallRecord, ExecutionResult

__all__ = ["Client"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_JOIN_SECONDS = 5.0


class Client:
    """AsyncClient's methods without `await`, for any number of threads; options and errors are its.

    The work is done by an event loop in a thread of its own, which starts with the first call and ends with `close` or
    `with`. An interrupt (Ctrl-C) cancels what is waited for. Not for use in that loop itself, by a tool for example.
    """

    def __init__(
        self,
        target: Target,
        *,
        api_key: str | None = None,
        token: str | None = None,
        principal: Principal | None = None,
        timeout: float = 30.0,
        encryption: str = "disabled",
        path: str = "",
        reconnection: Reconnection | None = None,
    ) -> None:
        self._client = AsyncClient(
            target,
            api_key=api_key,
            token=token,
            principal=principal,
            timeout=timeout,
            encryption=encryption,
            path=path,
            reconnection=reconnection,
        )
        self._starting = threading.Lock()
        self._thread: _Thread | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """As `AsyncClient.aclose`; a second time it does nothing."""
        with self._starting:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self._client.aclose())
            finally:
                thread.stop()

    def tool(self, name: str) -> Callable[[F], F]:
        """As `AsyncClient.tool`. A `def` may use this client, an `async def` may not."""
        return self._client.tool(name)

    def execute(self, code: str, *, result_type: Any = Any, **options: Unpack[RunOptions]) -> ExecutionResult[Any]:
        """As `AsyncClient.execute`."""
        return self._run(self._client.execute(code, result_type=result_type, **options))

    def stream(
        self, code: str, *, filter: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]
    ) -> Generator[StreamedEvent]:
        """As `AsyncClient.stream`. Leaving the loop leaves the run alone."""
        return self._iterate(self._client.stream(code, filter=filter, **options))

    def attach(
        self,
        session_id: str,
        from_seq: int = 1,
        *,
        filter: Mapping[str, Any] | None = None,
        run_tools: bool = False,
    ) -> Generator[StreamedEvent]:
        """As `AsyncClient.attach`."""
        return self._iterate(self._client.attach(session_id, from_seq, filter=filter, run_tools=run_tools))

    def cancel(self, session_id: str, reason: str = "") -> bool:
        """As `AsyncClient.cancel`."""
        return self._run(self._client.cancel(session_id, reason))

    def destroy(self, session_id: str) -> None:
        """As `AsyncClient.destroy`."""
        self._run(self._client.destroy(session_id))

    def session(self, session_id: str) -> SessionInfo:
        """As `AsyncClient.session`."""
        return self._run(self._client.session(session_id))

    def sessions(
        self, *, state: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[SessionInfo]:
        """As `AsyncClient.sessions`."""
        return self._run(self._client.sessions(state=state, after=after, limit=limit))

    def calls(self, session_id: str) -> list[CallRecord]:
        """As `AsyncClient.calls`."""
        return self._run(self._client.calls(session_id))

    def approvals(self, session_id: str | None = None) -> list[Approval]:
        """As `AsyncClient.approvals`."""
        return self._run(self._client.approvals(session_id))

    def approve(self, *ids: str) -> None:
        """As `AsyncClient.approve`."""
        self._run(self._client.approve(*ids))

    def deny(self, *ids: str, reason: str = "") -> None:
        """As `AsyncClient.deny`."""
        self._run(self._client.deny(*ids, reason=reason))

    def tools(self) -> list[ToolInfo]:
        """As `AsyncClient.tools`."""
        return self._run(self._client.tools())

    # -- the loop's thread -----------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            thread = self._started()
        except BaseException:
            work.close()
            raise
        return thread.run(work)

    def _started(self) -> _Thread:
        with self._starting:
            if self._closed:
                raise ClosedError("the client is closed")
            if self._thread is None:
                self._thread = _Thread()
            return self._thread

    def _iterate(self, events: AsyncGenerator[StreamedEvent]) -> Generator[StreamedEvent]:
        thread = self._started()
        try:
            while (event := thread.run(_next(events))) is not None:
                yield event
        finally:
            thread.leave(events)


async def _close(events: AsyncGenerator[StreamedEvent]) -> None:
    await events.aclose()


async def _next(events: AsyncGenerator[StreamedEvent]) -> StreamedEvent | None:
    return await anext(events, None)


class _Thread:
    """An event loop in a daemon thread, from when it is made to `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._entering = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._main, name="enclave-broker client", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop()
            self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("the client's own event loop can't wait for the client: use AsyncClient there")
        with self._entering:
            if self._stopped:
                work.close()
                raise ClosedError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClosedError("the client was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def leave(self, events: AsyncGenerator[StreamedEvent]) -> None:
        """Close what a generator iterated. It may be collected in any thread, or at the interpreter's end when this one
        stands still: so nobody waits here."""
        with self._entering:
            if not self._stopped:
                asyncio.run_coroutine_threadsafe(_close(events), self._loop)

    def stop(self) -> None:
        with self._entering:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)

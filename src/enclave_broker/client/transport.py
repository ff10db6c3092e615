"""How a request reaches a broker and its answer comes back, piece by piece: the seam, and HTTP by httpx.

in_process.py has the other one. What a path, a body or an answer means is known above; nothing of httpx is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import NamedTuple, Protocol

import httpx

from enclave_broker.types.errors import TransportError

__all__ = ["HttpTransport", "NotReachedError", "Reply", "Request", "Transport"]

_MAX_IDLE_CONNECTIONS = 20
_IDLE_SECONDS = 3.0  # below the 5 after which common servers close a connection, so that none is used as it closes


class Request(NamedTuple):
    """`target` is the path and query, percent-encoded; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


class NotReachedError(TransportError):
    """Nobody has seen the request: there was no connection."""


class Reply(Protocol):
    """An answer whose head is there. Iterating gives its body as it comes, once; whoever has it closes it.

    The iteration ends where the body does. Raises TransportError when the connection breaks before. Giving up a wait
    for the next piece ends the iteration for good.
    """

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Transport(Protocol):
    """Any number of requests at once, in one event loop. No wait has a bound of its own but a connection's."""

    async def send(self, request: Request) -> Reply:
        """The answer's head. Raises TransportError, NotReachedError where nothing was sent."""
        ...

    async def aclose(self) -> None: ...


class HttpTransport:
    """Over HTTP/1.1. Follows no redirect and reads no environment: a key goes to the URL's host and nowhere else."""

    def __init__(self, url: str, *, connect_timeout: float) -> None:
        self._url = url
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=connect_timeout, write=connect_timeout),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=_MAX_IDLE_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
            ),
            follow_redirects=False,
            trust_env=False,
        )

    async def send(self, request: Request) -> Reply:
        # Compressed events would wait for each other.
        headers = {**request.headers, "accept-encoding": "identity"}
        built = self._client.build_request(
            request.method, self._url + request.target, headers=headers, content=request.body or None
        )
        try:
            return _HttpReply(await self._client.send(built, stream=True))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotReachedError(f"there is no connection to {self._url}: {_why(error)}") from error
        except httpx.HTTPError as error:
            raise TransportError(f"{self._url} gave no answer: {_why(error)}") from error

    async def aclose(self) -> None:
        await self._client.aclose()


class _HttpReply:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces = self._read()
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def _read(self) -> AsyncGenerator[bytes]:
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            raise TransportError(f"the connection broke: {_why(error)}") from error

    async def aclose(self) -> None:
        await self._pieces.aclose()
        await self._response.aclose()


def _why(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__

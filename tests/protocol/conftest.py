"""Every line of the wire protocol has a test named after it here, a file a section, against real servers.

What isn't there yet has none: the runtime channel over a WebSocket (workers are reached by a socket pair of our own),
encryption beyond its refusal, POST /sessions/{id}/execute. Events that nothing makes yet are in `schema.MADE_LATER`,
error codes in `codes.LATER` and `codes.HTTP_LATER`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from enclave_broker import AuthenticationError, PermissionDeniedError, Principal, RateLimitError
from tests.http.live import Live, serving
from tests.http.served import Served, served
from tests.protocol import shop
from tests.protocol.client import Enclave

APP = Path(shop.__file__).read_text(encoding="utf-8")
PAGE = "https://app.example"
"""The one origin that `strict` lets in."""

LOW = {
    "timeout": 1.0,
    "tool_timeout": 0.4,
    "per_tool_deadline": 0.6,
    "cpu_time": 0.1,
    "heartbeat_interval": 5.0,
    "max_tool_calls": 3,
    "max_concurrent_calls": 2,
    "max_timers": 3,
    "cancel_on_first_error": False,
    "max_memory_bytes": 8_388_608,
    "max_stdout_bytes": 100,
    "max_tool_args_bytes": 200,
    "max_tool_result_bytes": 200,
    "max_code_bytes": 300,
    "max_log_bytes": 100_000,
}
"""`strict`'s limits: far below what its clients ask for."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`enclave-broker serve` as it is by default."""
    with served(tmp_path_factory.mktemp("server"), app=f"{APP}\n\nbroker = make()\n") as running:
        yield running


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    """One whose operator allows little, and pages of one origin."""
    app = f"{APP}\n\nbroker = make(SessionLimits(**{LOW!r}))\n"
    with served(tmp_path_factory.mktemp("strict"), "--allowed-origin", PAGE, app=app) as running:
        yield Enclave(running.client)


@pytest.fixture(scope="session")
def enclave(server: Served) -> Enclave:
    return Enclave(server.client)


async def by_name(request: Request) -> Principal:
    match request.headers["x-user"]:
        case "banned":
            raise PermissionDeniedError("not you")
        case "many":
            raise RateLimitError("too many", retry_after=2.5)
        case "nobody":
            raise AuthenticationError("who?")
        case name:
            return Principal(name)


@pytest.fixture(scope="module")
def town() -> Iterator[Live]:
    """One that knows who is asking: who they say they are."""
    with serving(shop.make(), auth=by_name) as live:
        yield live


@pytest.fixture
def ann(town: Live) -> Enclave:
    return Enclave(town.client, {"X-User": "ann"})


@pytest.fixture
def bob(town: Live) -> Enclave:
    return Enclave(town.client, {"X-User": "bob"})

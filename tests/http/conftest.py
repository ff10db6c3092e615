from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from enclave_broker import Broker, ToolContext, ToolError
from tests.http.live import Live, memory_broker, serving


@pytest.fixture
def gate() -> asyncio.Event:
    """What the tool `wait` waits for. Set it in the server's loop."""
    return asyncio.Event()


@pytest.fixture
def shop(gate: asyncio.Event) -> Broker:
    """A broker with tools, not started."""
    broker = memory_broker()

    @broker.tool("orders:get", effect="read")
    async def get(id: int) -> dict[str, int]:
        """One order."""
        if id > 3:
            raise ToolError(f"there is no order {id}", code="NO_SUCH_ORDER")
        return {"id": id, "total": id * 10}

    @broker.tool("wait")
    async def wait() -> str:
        await gate.wait()
        return "waited"

    @broker.tool("whoami", effect="read")
    async def whoami(context: ToolContext) -> str:
        return context.principal.subject

    @broker.tool("label", effect="read")
    async def label(context: ToolContext) -> str:
        return str(context.metadata.get("ticket"))

    return broker


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    """One server for all inputs that leave nothing behind."""
    with serving(memory_broker()) as running:
        yield running


@pytest.fixture
def live(shop: Broker) -> Iterator[Live]:
    """The shop, served to everybody."""
    with serving(shop) as running:
        yield running

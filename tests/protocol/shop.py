"""The tools that the protocol's tests call.

`conftest.py` writes this file beside each server as its app, so it imports no test.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Literal

from enclave_broker import Broker, SessionLimits, ToolContext, ToolError

Args = dict[str, Any]


def make(limits: SessionLimits | None = None, **options: Any) -> Broker:
    """A broker with all of them."""
    broker = Broker(limits=limits or SessionLimits(), **options)
    for add in (add_orders, add_gates, add_data, add_bad, add_context):
        add(broker)
    broker.client_tool("browser:title", args=dict[str, int], timeout=60.0)
    return broker


def add_orders(broker: Broker) -> None:
    @broker.tool("orders:get", effect="read")
    async def get(id: int) -> dict[str, int]:
        """One order."""
        if id > 3:
            raise ToolError(f"there is no order {id}", code="NO_SUCH_ORDER")
        return {"id": id, "total": id * 10}

    @broker.tool("orders:list", effect="read")
    async def list_orders(status: Literal["open", "paid"] = "open") -> list[int]:
        return [1, 2, 3] if status == "open" else []

    @broker.tool("odd:na-me/x.y", effect="read")
    async def odd(n: int) -> int:
        return n

    @broker.tool("ping", effect="read")
    async def ping() -> str:
        return "pong"


def add_gates(broker: Broker) -> None:
    gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @broker.tool("gate:wait", timeout=60)
    async def wait(key: str) -> str:
        await gates[key].wait()
        return "waited"

    @broker.tool("gate:patient")  # its time-out is the session's
    async def patient(key: str) -> str:
        await gates[key].wait()
        return "waited"

    @broker.tool("gate:open")
    async def open_gate(key: str) -> None:
        gates[key].set()


def add_data(broker: Broker) -> None:
    @broker.tool("echo", effect="read")
    async def echo(args: Args) -> Args:
        return args

    @broker.tool("text:make", effect="read")
    async def text(length: int) -> str:
        return "x" * length


def add_bad(broker: Broker) -> None:
    @broker.tool("bad:crash")
    async def crash() -> None:
        raise ValueError("the password is hunter2")

    @broker.tool("bad:code")
    async def fail(code: str) -> None:
        raise ToolError("told on purpose", code=code)


def add_context(broker: Broker) -> None:
    @broker.tool("my:log")
    async def log(level: Literal["debug", "info", "warn", "error"], context: ToolContext) -> None:
        await context.log("said by a tool", level=level)
        await context.log("with data", level=level, order=7, tags=["a"])

    @broker.tool("my:progress")
    async def progress(context: ToolContext) -> None:
        for done in range(1, 401):
            await context.progress(done, 400)
            await asyncio.sleep(0.001)

    @broker.tool("my:time")
    async def left(context: ToolContext) -> float:
        """Seconds that are left, and so what the time-out is."""
        return (context.deadline - datetime.now(UTC)).total_seconds()

    @broker.tool("my:long-time", timeout=600)
    async def long_left(context: ToolContext) -> float:
        return (context.deadline - datetime.now(UTC)).total_seconds()

    @broker.tool("my:name", effect="read")
    async def name(context: ToolContext) -> str:
        return context.principal.subject

    @broker.tool("my:label", effect="read")
    async def label(context: ToolContext) -> str:
        return str(context.metadata.get("ticket"))

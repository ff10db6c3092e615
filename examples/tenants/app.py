"""A shop that serves several tenants: each sees its own orders, large refunds need a supervisor, one tool has a secret.

enclave-broker serve examples/tenants/app.py --api-keys keys.jsonl --audit
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from enclave_broker import (
    AccessController,
    Broker,
    Env,
    PrincipalLimits,
    SessionManager,
    ToolContext,
    ToolError,
)

broker = Broker(
    access=AccessController.from_file(Path(__file__).with_name("policy.yaml"), reload=True),
    secrets={"psp_key": Env("PSP_KEY")},
    sessions=SessionManager(per_principal=PrincipalLimits(max_sessions=20, max_waiting=3, cpu_time=10.0)),
)
ORDERS: dict[str | None, dict[int, float]] = {
    "acme": {1: 1200.0, 2: 80.0, 3: 6000.0, 4: 1500.0},
    "globex": {1: 35.0},
    None: {1: 500.0},
}
"""What each order came to, less what was refunded, of each tenant, and of who has none: the shop's own people."""


def orders_of(context: ToolContext) -> dict[int, float]:
    """Who asks comes from the key that the request had, so that no argument leads to another tenant."""
    return ORDERS.get(context.principal.tenant, {})


@broker.tool("orders:list", effect="read")
async def list_orders(context: ToolContext) -> dict[int, float]:
    """What each of your orders came to, less what was refunded."""
    return orders_of(context)


@broker.tool("refunds:create")
async def create_refund(order: int, amount: float, context: ToolContext) -> str:
    """Pay money back. More than 100 has to be approved."""
    orders = orders_of(context)
    if amount > orders.get(order, 0):
        raise ToolError(f"order {order} has no {amount:g} to refund", code="NOT_THAT_MUCH")
    orders[order] -= amount
    return f"{amount:g} for order {order}"


@broker.tool("payments:charge", secrets=["psp_key"])
async def charge(order: int, amount: float, context: ToolContext) -> dict[str, Any]:
    """Take money. The provider is down, and whoever wrote this tells too much of it."""
    key = context.secrets["psp_key"]
    if amount > 100:
        header = b64encode(f"shop:{key}".encode()).decode()
        details = [{"type": "request", "authorization": f"Basic {header}"}]
        raise ToolError("the provider refuses", code="PROVIDER_REFUSES", details=details)
    raise ConnectionError(f"POST https://psp.example/charge?key={key} for order {order}: connection reset")

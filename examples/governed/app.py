"""A shop whose calls are governed: who may call what is in policy.yaml, how often and what stands around it is here.

enclave-broker access check orders:search --app examples/governed/app.py --as bob
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enclave_broker import (
    AccessController,
    Broker,
    Cache,
    CallNext,
    Principal,
    RateLimit,
    RateLimiter,
    Retry,
    ToolCall,
    ToolRouter,
)

HOUR = 3600.0
MOST_ORDERS = 2
ORDERS = [{"id": id, "region": region} for id, region in enumerate(["EU", "US", "EU", "EU", "US"], start=1)]
SUSPENDED = {"dan"}


def facts(principal: Principal) -> dict[str, Any]:
    """What the rules may ask about whoever calls, beside who it is."""
    return {"suspended": principal.subject in SUSPENDED}


async def cap_orders(call: ToolCall, call_next: CallNext) -> Any:
    """Nobody gets more than a few orders at once. What it changes is validated and judged again."""
    if call.name == "orders:search" and call.args.get("limit", MOST_ORDERS) > MOST_ORDERS:
        call = call.replace(args={**call.args, "limit": MOST_ORDERS})
    return await call_next(call)


router = ToolRouter()
broker = Broker(
    router=router,
    access=AccessController.from_file(Path(__file__).with_name("policy.yaml"), reload=True),
    context=facts,
    rate_limiter=RateLimiter(per_principal=RateLimit(100, HOUR), per_tool={"refunds:*": RateLimit(3, HOUR)}),
    middleware=[cap_orders, Cache(HOUR), Retry(attempts=3)],  # outer to inner: what is cached was tried thrice
)


@broker.tool("orders:search", effect="read")
async def search_orders(region: str, limit: int = MOST_ORDERS) -> list[dict[str, Any]]:
    """Orders of a region."""
    return [order for order in ORDERS if order["region"] == region][:limit]


@broker.tool("refunds:create")
async def create_refund(order: int, amount: float) -> str:
    """Pay money back."""
    return f"{amount:g} for order {order}"


class Unreliable:
    """A service that drops its first requests."""

    def __init__(self, drops: int) -> None:
        self._drops = drops

    def ask(self) -> None:
        if self._drops:
            self._drops -= 1
            raise ConnectionResetError("dropped")


exchange, post_office = Unreliable(drops=2), Unreliable(drops=1)


@broker.tool("rates:get", effect="read")
async def get_rate(currency: str) -> float:
    """What a euro is worth. A read may be tried again."""
    exchange.ask()
    return {"USD": 1.25, "GBP": 0.8}[currency]


@broker.tool("mail:send")
async def send_mail(to: str) -> str:
    """A write is started once, whatever becomes of it."""
    post_office.ask()
    return f"sent to {to}"


@broker.tool("payroll:list", effect="read")
async def list_salaries() -> list[int]:
    """No rule speaks of it, so nobody may call it."""
    return [100]


async def make_report(name: str, args: dict[str, Any]) -> str:
    """Every report, by its name."""
    return f"the {name.removeprefix('reports:')} report of {args.get('year', 'this year')}"


router.register("reports:*", make_report, effect="idempotent", requires_auth=True, rate_limit=RateLimit(2, HOUR))

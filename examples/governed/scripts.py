"""The scripts that the example runs, one after the other, and what is promised of each."""

from __future__ import annotations

from typing import Any, NamedTuple

from enclave_broker import Principal

__all__ = ["SCRIPTS", "Script"]

ANN, BOB, DAN = Principal("ann"), Principal("bob"), Principal("dan")
ZOE = Principal("zoe", roles=frozenset({"supervisor"}))
ASK = "const ask = (name, args) => callTool(name, args).catch((error) => error.code);\n"


class Script(NamedTuple):
    title: str
    principal: Principal | None
    """None is somebody who isn't known."""
    code: str
    promised: list[str]
    """The outcome of each call."""
    value: Any


SCRIPTS = [
    Script(
        "many orders",
        ANN,
        "return (await tools.orders.search({ region: 'EU', limit: 1000 })).length",
        ["allowed"],
        2,
    ),
    Script("suspended", DAN, "return await ask('orders:search', { region: 'EU' })", ["denied"], "ACCESS_DENIED"),
    Script("no rule", ANN, "return await ask('payroll:list', {})", ["denied"], "ACCESS_DENIED"),
    Script(
        "refunds",
        ANN,
        "return [await ask('refunds:create', { order: 1, amount: 50 }), "
        "await ask('refunds:create', { order: 1, amount: 500 })]",
        ["allowed", "denied"],
        ["50 for order 1", "ACCESS_DENIED"],
    ),
    Script(
        "supervisor",
        ZOE,
        "return await ask('refunds:create', { order: 1, amount: 500 })",
        ["allowed"],
        "500 for order 1",
    ),
    Script(
        "refund loop",
        BOB,
        "const all = [];\n"
        "for (const order of [2, 3, 4]) all.push(await ask('refunds:create', { order, amount: 10 }));\n"
        "return all",
        ["allowed", "limited", "limited"],
        ["10 for order 2", "RATE_LIMITED", "RATE_LIMITED"],
    ),
    Script(
        "rates",
        ANN,
        "return [await ask('rates:get', { currency: 'USD' }), await ask('rates:get', { currency: 'USD' })]",
        ["retried", "cached"],
        [1.25, 1.25],
    ),
    Script("mail", ANN, "return await ask('mail:send', { to: 'bob' })", ["failed"], "EXECUTION_ERROR"),
    Script(
        "reports",
        BOB,
        "return await Promise.all(['daily', 'weekly', 'yearly'].map((name) => ask(`reports:${name}`, { year: 2026 })))",
        ["allowed", "allowed", "limited"],
        ["the daily report of 2026", "the weekly report of 2026", "RATE_LIMITED"],
    ),
    Script("a stranger", None, "return await ask('reports:daily', {})", ["denied"], "ACCESS_DENIED"),
]

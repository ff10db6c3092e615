"""What governing a call costs, in process and without an engine: the whole chain, and one check of many rules.

A call's cost is that of `execute_tool_call`, one after the other in one loop, minus that of `await handler(...)` alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from figures import Figure

from enclave_broker import (
    AccessController,
    Broker,
    CallNext,
    Principal,
    RateLimit,
    RateLimiter,
    Rule,
    SessionLimits,
    ToolCall,
    ToolRouter,
)

CALLS = 1_000  # a session, whose log grows with each
LIMITS = SessionLimits(max_tool_calls=CALLS)
PLENTY = RateLimit(1_000_000, 60.0)
ALLOWED = ["orders:*", "svc*:get", "svc500:*", "refunds:{get,list}"]
WHO = Principal("ann", tenant="acme", roles=frozenset({"staff"}), claims={"plan": "paid"})
NAME, ARGS = "svc500:add", {"a": 1, "b": 2}
FEW, MANY = 10, 10_000
CHECKS = 2_000


async def add(a: int, b: int) -> int:
    return a + b


async def pass_on(call: ToolCall, call_next: CallNext) -> Any:
    return await call_next(call)


def mixed_rules(number: int) -> list[Rule]:
    """Rules of five kinds; half of them ask for arguments or facts."""
    return [_rule(place % 5, place // 5 * 5) for place in range(number)]


def _rule(kind: int, at: int) -> Rule:
    match kind:
        case 0:
            return Rule(f"svc{at}:add", allow=False, when={"a": {"gt": 1_000_000}})
        case 1:
            return Rule(f"svc{at}:*", allow=True, unless={"suspended": True})
        case 2:
            return Rule(f"*:undo{at}", allow=False, unless={"role": "boss"})
        case 3:
            return Rule(f"*-part{at}-*", allow=True)
        case _:
            return Rule(f"data{at}:{{get,list}}*", allow="ask", when={"rows": {"le": 100}})


def mixed_routes(number: int) -> ToolRouter:
    """A router with routes of the same five kinds."""
    router = ToolRouter()

    async def handler(name: str, args: dict[str, Any]) -> Any:
        return name, args

    for rule in mixed_rules(number):
        router.register(rule.pattern, handler)
    return router


def governed(**options: Any) -> Broker:
    """A broker with the tool and no runtime."""
    return Broker(tools={NAME: add, "orders:get": add}, limits=LIMITS, **options)


def whole_chain() -> dict[str, Any]:
    limiter = RateLimiter(global_=PLENTY, per_principal=PLENTY, per_session=PLENTY)
    access = AccessController(rules=mixed_rules(1_000))
    return {"access": access, "rate_limiter": limiter, "middleware": [pass_on, pass_on]}


async def calls(broker: Broker) -> float:
    """Microseconds a call, with those of its handler, in a session of their own."""
    async with await broker.create_session(principal=WHO, allowed_tools=ALLOWED) as session:
        call = {"name": NAME, "args": ARGS}
        before = time.perf_counter()
        for _ in range(CALLS):
            await broker.execute_tool_call(session.id, call)
        took = time.perf_counter() - before
        assert len(session.history()) == CALLS
    return took / CALLS * 1e6


async def handler_alone() -> float:
    """Microseconds of the handler."""
    before = time.perf_counter()
    for _ in range(CALLS):
        await add(**ARGS)
    return (time.perf_counter() - before) / CALLS * 1e6


async def chain(rounds: int, **options: Any) -> list[float]:
    """Microseconds that a call costs besides its handler, round by round."""
    async with governed(**options) as broker:
        await calls(broker)
        return [await calls(broker) - await handler_alone() for _ in range(rounds)]


def check_rules(number: int) -> Callable[[str], object]:
    facts = {"subject": "ann", "role": frozenset({"staff"})}
    access = AccessController(rules=mixed_rules(number))
    return lambda name: access.check(name, facts, ARGS)


def check_routes(number: int) -> Callable[[str], object]:
    return mixed_routes(number).match


def one_name() -> Iterator[str]:
    while True:
        yield "svc5:add"


def new_names() -> Iterator[str]:
    """Names that nobody has asked for; a rule and a route fit each."""
    return (f"svc5:tool-{number}" for number in count())


def growth(made: Callable[[int], Callable[[str], object]], names: Callable[[], Iterator[str]], rounds: int) -> Figure:
    """How many times as much a check costs among many as among few, pair by pair."""
    checks = made(FEW), made(MANY)
    given = names(), names()
    ratios: list[float] = []
    costs: list[float] = []
    for _ in range(rounds):
        few, many = (_cost(check, each) for check, each in zip(checks, given, strict=True))
        ratios.append(many / few)
        costs.append(many)
    what = "rules" if made is check_rules else "routes"
    which = "a new name" if names is new_names else "a name again"
    return Figure(
        name=f"one check of {which}, {MANY:,} {what} to {FEW}",
        values=ratios,
        unit="×",
        bar=3,
        note=f"{statistics.median(costs):.2f} µs",
    )


def _cost(check: Callable[[str], object], names: Iterator[str]) -> float:
    """Microseconds of one check."""
    asked = [next(names) for _ in range(CHECKS)]
    before = time.perf_counter()
    for name in asked:
        check(name)
    return (time.perf_counter() - before) / CHECKS * 1e6


async def measure(*, quick: bool) -> list[Figure]:
    rounds = 10 if quick else 40
    bare = await chain(rounds)
    whole = await chain(rounds, **whole_chain())
    return [
        Figure(name="a call with neither rules, limits nor middleware", values=bare, unit="µs"),
        Figure(name="a call through the whole chain, 1,000 rules", values=whole, unit="µs", bar=30),
        *(growth(made, names, rounds) for made in (check_rules, check_routes) for names in (one_name, new_names)),
    ]

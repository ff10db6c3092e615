"""A shop whose calls wait for a person, and what tests of approvals ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from enclave_broker import (
    AccessController,
    Approval,
    Broker,
    Principal,
    Rule,
    Session,
)
from tests.broker.sessions.support import twin_broker

ANN = Principal("ann", tenant="acme", roles=frozenset({"support"}))
BOSS = Principal("bea", tenant="acme", roles=frozenset({"supervisor"}))
ASK = Rule("refund", allow="ask", approvers={"role": "supervisor"}, expires_in=600, where="policy.yaml:7")
REFUND = "return await callTool('refund', {amount: 5})"
TWO = "return await Promise.all([1, 2].map((amount) => callTool('refund', {amount})))"
REFUSED = "return await callTool('refund', {amount: 5}).catch((error) => [error.code, error.message])"


@asynccontextmanager
async def shop(*rules: Rule, **options: Any) -> AsyncGenerator[tuple[Broker, list[int]]]:
    """A broker with a tool that is asked about by `rules`, and a ledger of its starts."""
    ledger: list[int] = []
    access = AccessController(default_policy="allow", rules=rules or [ASK])
    async with twin_broker(access=access, **options) as broker:

        @broker.tool("refund")
        async def refund(amount: int, note: str = "none") -> int:
            ledger.append(amount)
            return amount

        @broker.tool("ping", effect="read")
        async def ping() -> str:
            return "pong"

        @broker.tool("work", effect="read")
        async def work(seconds: float) -> None:
            await asyncio.sleep(seconds)

        yield broker, ledger


async def asked(broker: Broker, count: int = 1) -> Sequence[Approval]:
    """What is pending, as soon as there is so much of it."""
    found: Sequence[Approval] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            await asyncio.sleep(0.001)
            found = await broker.approvals.list()
    return found


async def begun(broker: Broker, code: str = REFUND, **options: Any) -> Session:
    """A session that runs the code; it is over with it."""
    session = await broker.create_session(**options)
    session.begin(code)
    return session


def facts(session: Session, *kinds: type[Any]) -> list[Any]:
    return [record.fact for record in session.log.records if isinstance(record.fact, kinds)]

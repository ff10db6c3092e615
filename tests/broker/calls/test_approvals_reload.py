"""Rules that change while a person is asked: those that hold when the answer comes decide."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enclave_broker import AccessController
from tests.broker.calls.approving import ANN, BOSS, REFUSED, asked, begun
from tests.broker.sessions.support import jumping, twin_broker


@jumping
async def test_rules_that_deny_meanwhile_deny_what_was_approved(tmp_path: Any) -> None:
    def policy(allow: str) -> str:
        return f"default_policy: allow\nrules:\n  - pattern: refund\n    allow: {allow}\n"

    file = tmp_path / "policy.yaml"
    file.write_text(policy("ask"), encoding="utf-8")
    loop = asyncio.get_running_loop()
    access = AccessController.from_file(file, reload=True, clock=loop.time)
    async with twin_broker(access=access) as broker:

        @broker.tool("refund")
        async def refund(amount: int) -> int:
            raise AssertionError

        session = await begun(broker, REFUSED)
        (approval,) = await asked(broker)
        file.write_text(policy("false # since noon"), encoding="utf-8")
        await asyncio.sleep(5)
        await broker.approvals.approve(approval.id, by=BOSS)
        assert (await session.wait()).value[0] == "ACCESS_DENIED"


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("allow: ask\n    approvers: {role: supervisor}", 5),
        ("allow: ask\n    approvers: {tenant: acme}", 5),
        ("allow: ask", 5),
        ("allow: true", 5),
        ("allow: ask\n    approvers: {role: cfo}", "ACCESS_DENIED"),
    ],
)
@jumping
async def test_who_has_approved_must_fit_the_rules_that_hold_by_then(tmp_path: Any, after: str, expected: Any) -> None:
    def policy(verdict: str) -> str:
        return f"default_policy: allow\nrules:\n  - pattern: refund\n    {verdict}\n"

    file = tmp_path / "policy.yaml"
    file.write_text(policy("allow: ask\n    approvers: {role: supervisor}  # the first"), encoding="utf-8")
    access = AccessController.from_file(file, reload=True, clock=asyncio.get_running_loop().time)
    async with twin_broker(access=access) as broker:
        ledger: list[int] = []

        @broker.tool("refund")
        async def refund(amount: int) -> int:
            ledger.append(amount)
            return amount

        session = await begun(broker, REFUSED, principal=ANN)
        (approval,) = await asked(broker)
        file.write_text(policy(after), encoding="utf-8")
        await asyncio.sleep(5)
        await broker.approvals.approve(approval.id, by=BOSS)
        value = (await session.wait()).value
        if expected == 5:
            assert (value, ledger) == (5, [5])
        else:
            assert (value[0], "have changed meanwhile" in value[1], ledger) == ("ACCESS_DENIED", True, [])

"""Section "Error codes": those by which the policy speaks, and the answers of /approvals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enclave_broker import AccessController, Env, RateLimit, RateLimiter, Rule
from tests.http.live import serving
from tests.protocol import shop
from tests.protocol.client import Enclave, refusal

RULES = [
    Rule("orders:list", allow=False),
    Rule("ping", allow="ask", expires_in=0.05),
    Rule("gate:*", allow="ask"),
    Rule("*", allow=True),
]
SCRIPTS = {
    "ACCESS_DENIED": "await tools.orders.list({})",
    "RATE_LIMITED": "await callTool('echo', {}); await callTool('echo', {})",
    "SECRET_ERROR": "await callTool('keyed')",
    "APPROVAL_EXPIRED": "await callTool('ping')",
}


@pytest.fixture(scope="module")
def governed() -> Iterator[Enclave]:
    broker = shop.make(
        access=AccessController(rules=RULES),
        rate_limiter=RateLimiter(per_session=RateLimit(1, 3600.0)),
        secrets={"key": Env("A_NAME_THAT_NOBODY_SETS")},
    )

    @broker.tool("keyed", secrets=("key",))
    async def keyed() -> None: ...

    with serving(broker) as live:
        yield Enclave(live.client)


@pytest.mark.parametrize("code", SCRIPTS)
def test_the_policy_ends_a_run_with_its_code(governed: Enclave, code: str) -> None:
    assert governed.run(SCRIPTS[code]).code == code


@pytest.mark.parametrize("code", SCRIPTS)
def test_a_script_can_catch_what_the_policy_says(governed: Enclave, code: str) -> None:
    run = governed.run(f"try {{ {SCRIPTS[code]} }} catch (error) {{ return [error.code, error.message] }}")
    assert run.result[0] == code
    assert run.result[1]


def test_a_decision_counts_once_and_a_denial_is_approval_denied(governed: Enclave) -> None:
    with governed.watching("await callTool('gate:wait', { key: 'k' })") as watch:
        governed.until(watch.id, lambda info: info["state"] == "waiting_for_tool")
        [pending] = governed.get(f"/approvals?session={watch.id}").json()["approvals"]
        path = f"/approvals/{pending['approvalId']}"
        denied = governed.request("POST", path, json={"decision": "deny", "reason": "no"})
        assert (denied.status_code, denied.json()["success"]) == (200, True)
        assert watch.end().code == "APPROVAL_DENIED"
    again = governed.request("POST", path, json={"decision": "approve"})
    assert refusal(again) == (409, "APPROVAL_DECIDED")
    assert refusal(governed.get("/approvals/a_none")) == (404, "NOT_FOUND")

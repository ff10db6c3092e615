"""How many calls may wait for a person: of a session, of a principal, of all."""

from __future__ import annotations

from enclave_broker import Principal
from tests.broker.calls.approving import ANN, BOSS, REFUND, asked, begun, shop
from tests.broker.sessions.support import jumping, until

REFUSED_BY_ALL = (
    "return await callTool('refund', {amount: 5}).catch(({code, message, details}) => ({code, message, details}))"
)


@jumping
async def test_beyond_the_caps_a_call_is_refused_and_the_script_may_catch_it() -> None:
    async with shop() as (broker, _):
        broker.approvals.max_pending_per_session = 2
        broker.approvals.max_pending = 3
        code = "return await Promise.allSettled([1, 2, 3].map((amount) => callTool('refund', {amount})))"
        first = await begun(broker, code)
        await asked(broker, 2)
        await until(lambda: first.history()[2].outcome == "denied")
        refused = first.history()[2]
        assert refused.error is not None
        assert (refused.error.code, refused.rule) == ("RATE_LIMITED", "limit: pending approvals")
        second = await begun(broker, code)
        rows = await asked(broker, 3)
        await until(lambda: sum(call.outcome == "denied" for call in second.history()) == 2)
        await broker.approvals.approve(*[row.id for row in rows], by=BOSS)
        for session, done in ((first, 2), (second, 1)):
            settled = (await session.wait()).value
            assert [each["status"] for each in settled] == ["fulfilled"] * done + ["rejected"] * (3 - done)
        assert (await broker.execute("return await callTool('ping', {})")).value == "pong"


@jumping
async def test_one_principal_has_a_share_of_what_may_be_pending_and_others_have_theirs() -> None:
    async with shop() as (broker, _):
        broker.approvals.max_pending = 8  # a quarter of it is two
        code = "return await Promise.allSettled([1, 2, 3].map((amount) => callTool('refund', {amount})))"
        first = await begun(broker, code, principal=ANN)
        await until(lambda: first.history() and first.history()[-1].outcome == "denied")
        refused = first.history()[2].error
        assert refused is not None
        assert (refused.code, "2 calls of 'ann'" in refused.message) == ("RATE_LIMITED", True)
        again = await begun(broker, REFUND, principal=ANN)  # in another session, too
        result = await again.wait()
        assert result.error is not None
        assert result.error.code == "RATE_LIMITED"
        for other in (Principal("bob", tenant="acme"), Principal("ann", tenant="other"), Principal("ann")):
            await begun(
                broker, "await Promise.all([1, 2].map((amount) => callTool('refund', {amount})))", principal=other
            )
        rows = await asked(broker, 8)
        full = (await broker.execute(REFUSED_BY_ALL, principal=BOSS)).value
        assert full["code"] == "RATE_LIMITED"
        assert "8" not in full["message"]
        assert [each["type"] for each in full["details"]] == ["retry_info"]
        await broker.approvals.approve(*[row.id for row in rows], by=BOSS)
        await first.wait()
        broker.approvals.max_pending_per_principal = 1
        last = await begun(broker, code, principal=ANN)
        await until(lambda: sum(call.outcome == "denied" for call in last.history()) == 2)
        await asked(broker)

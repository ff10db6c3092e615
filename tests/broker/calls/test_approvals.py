"""A person's word in mid-script: who is asked, who may answer, what it holds for, and that it counts once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

import msgspec
import pytest

from enclave_broker import (
    Approval,
    CallNext,
    ConfigurationError,
    EnclaveError,
    Principal,
    RateLimit,
    RateLimiter,
    Rule,
    ToolCall,
    ToolRouter,
)
from enclave_broker.broker.store.records import ApprovalAsked, ApprovalDecided, HandlerStarted
from enclave_broker.types.principal import ANONYMOUS
from tests.broker.calls.approving import ANN, ASK, BOSS, REFUND, REFUSED, TWO, asked, begun, facts, shop
from tests.broker.sessions.support import check_log, jumping, twin_broker, until

# -- asking ------------------------------------------------------------------------------------------------------------


@jumping
async def test_a_person_sees_what_is_asked_and_by_whom() -> None:
    async with shop() as (broker, ledger):
        session = await begun(broker, principal=ANN)
        (approval,) = await asked(broker)
        assert (approval.tool, approval.args) == ("refund", {"amount": 5, "note": "none"})
        assert (approval.session_id, approval.requested_by) == (session.id, ANN)
        assert approval.call_id in session.calls.running
        assert approval.rule == "access: refund (policy.yaml:7)"
        assert (approval.expires_at - approval.created_at).total_seconds() == 600
        assert approval.id.startswith("a_")
        approval.args["amount"] = 1_000_000  # a copy: nothing that anybody does to it counts
        await broker.approvals.approve(approval.id, by=BOSS)
        assert ((await session.wait()).value, ledger) == (5, [5])


@jumping
async def test_ten_asks_of_one_promise_all_are_ten_rows_and_one_step_decides_them() -> None:
    async with shop() as (broker, ledger):
        code = "return await Promise.all([...Array(10).keys()].map((amount) => callTool('refund', {amount})))"
        session = await begun(broker, code)
        rows = await asked(broker, 10)
        assert [row.args["amount"] for row in rows] == list(range(10))
        await broker.approvals.approve(*[row.id for row in rows], by=BOSS)
        assert await broker.approvals.list() == []
        result = await session.wait()
        assert (result.value, sorted(ledger)) == (list(range(10)), list(range(10)))
        check_log(session.log.records)


@jumping
async def test_nothing_is_decided_if_one_of_several_can_not_be() -> None:
    async with shop() as (broker, ledger):
        session = await begun(broker, TWO)
        first, second = await asked(broker, 2)
        with pytest.raises(EnclaveError) as caught:
            await broker.approvals.approve(first.id, "a_unknown", second.id, by=BOSS)
        assert caught.value.code == "NOT_FOUND"
        assert len(await broker.approvals.list()) == 2
        await broker.approvals.approve(first.id, first.id, second.id, by=BOSS)
        assert ((await session.wait()).value, sorted(ledger)) == ([1, 2], [1, 2])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("callTool('refund', {amount: 'five'})", "VALIDATION_ERROR"),
        ("callTool('refund', {amount: 5, extra: 1})", "VALIDATION_ERROR"),
        ("callTool('refunds', {amount: 5})", "UNKNOWN_TOOL"),
    ],
)
@jumping
async def test_nobody_is_asked_about_what_could_not_be_called(code: str, expected: str) -> None:
    async with shop() as (broker, _):
        result = await broker.execute(f"return await {code}.catch((error) => error.code)")
        assert result.value == expected
        assert result.calls[0].outcome in {"failed", "denied"}
        assert [stage.name for stage in result.calls[0].stages] == ["requested", "placed", "settled"]


@jumping
async def test_a_rule_over_arguments_asks_about_those_only() -> None:
    small = Rule("refund", allow=True, when={"amount": {"le": 100}})
    async with shop(small, ASK) as (broker, ledger):
        code = "const get = (amount) => callTool('refund', {amount}); return [await get(100), await get(101)]"
        session = await begun(broker, code)
        (approval,) = await asked(broker)
        assert (approval.args["amount"], ledger) == (101, [100])
        await broker.approvals.approve(approval.id, by=BOSS)
        assert (await session.wait()).value == [100, 101]


@jumping
async def test_unless_turns_asking_into_allowing() -> None:
    async with shop(Rule("refund", allow="ask", unless={"role": "supervisor"})) as (broker, ledger):
        assert (await broker.execute(REFUND, principal=BOSS)).value == 5
        assert ledger == [5]


@jumping
async def test_a_tool_and_a_route_may_want_approval_without_any_rule() -> None:
    router = ToolRouter()

    async def any_of(name: str, args: dict[str, Any]) -> str:
        return name

    router.register("db:*", any_of, requires_approval=True)
    async with twin_broker() as broker:

        @broker.tool(requires_approval=True)
        async def wipe() -> str:
            return "wiped"

        broker.include(router)
        session = await begun(broker, "return [await callTool('wipe', {}), await callTool('db:drop', {})]")
        for rule in ("route: wipe (requires_approval)", "route: db:* (requires_approval)"):
            (approval,) = await asked(broker)
            assert approval.rule == rule
            await broker.approvals.approve(approval.id, by=ANONYMOUS)
            await until(lambda id=approval.id: id not in [each.id for each in broker.approvals.open()])
        result = await session.wait()
        assert result.value == ["wiped", "db:drop"]
        assert [call.rule for call in result.calls] == [
            "route: wipe (requires_approval)",
            "route: db:* (requires_approval)",
        ]


@jumping
async def test_callbacks_hear_of_each_and_can_harm_nothing(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    async with shop() as (broker, _):

        @broker.on_approval
        async def tell(approval: Approval) -> None:
            heard.append(approval.id)
            raise RuntimeError("the chat is down")

        @broker.on_approval
        def decide(approval: Approval) -> None:
            raise SystemExit(3)

        @broker.on_approval
        async def approve(approval: Approval) -> None:
            await broker.approvals.approve(approval.id, by=BOSS)

        with caplog.at_level(logging.CRITICAL + 1, "enclave_broker.events"):
            result = await broker.execute(
                "return await Promise.all([1, 2].map((amount) => callTool('refund', {amount})))"
            )
        assert (result.value, len(set(heard))) == ([1, 2], 2)


# -- answers -----------------------------------------------------------------------------------------------------------


@jumping
async def test_a_denial_is_catchable_and_says_why() -> None:
    async with shop() as (broker, ledger):
        session = await begun(broker, REFUSED)
        (approval,) = await asked(broker)
        await broker.approvals.deny(approval.id, by=BOSS, reason="not twice a day")
        result = await session.wait()
        assert result.value == ["APPROVAL_DENIED", "tool 'refund': the call was not approved: not twice a day"]
        (call,) = result.calls
        assert (call.outcome, call.rule) == ("denied", "access: refund (policy.yaml:7)")
        assert [stage.name for stage in call.stages] == ["requested", "placed", "asked", "decided", "settled"]
        assert ledger == []


@jumping
async def test_a_question_that_nobody_answers_expires() -> None:
    async with shop() as (broker, ledger):
        session = await begun(broker, REFUSED, timeout=2)
        (approval,) = await asked(broker)
        before = asyncio.get_running_loop().time()
        result = await session.wait()
        assert 599 < asyncio.get_running_loop().time() - before < 601
        assert result.value[0] == "APPROVAL_EXPIRED"
        assert (result.calls[0].outcome, result.calls[0].rule) == ("denied", approval.rule)
        with pytest.raises(EnclaveError, match="has expired") as caught:
            await broker.approvals.approve(approval.id, by=BOSS)
        assert (caught.value.code, ledger) == ("APPROVAL_DECIDED", [])


@jumping
async def test_of_fifty_decisions_at_once_one_counts() -> None:
    async with shop() as (broker, ledger):
        session = await begun(broker, REFUSED)
        (approval,) = await asked(broker)
        both = broker.approvals.approve, broker.approvals.deny
        answers = await asyncio.gather(
            *(both[number % 2](approval.id, by=BOSS) for number in range(50)), return_exceptions=True
        )
        codes = [answer.code for answer in answers if isinstance(answer, EnclaveError)]
        assert codes == ["APPROVAL_DECIDED"] * 49
        result = await session.wait()
        assert (result.value, ledger) == (5, [5])
        assert len(facts(session, ApprovalDecided)) == 1


@jumping
async def test_a_decision_can_not_be_taken_back() -> None:
    async with shop() as (broker, _):
        session = await begun(broker, REFUSED)
        (approval,) = await asked(broker)
        await broker.approvals.deny(approval.id, by=BOSS)
        with pytest.raises(EnclaveError, match="was denied already") as caught:
            await broker.approvals.approve(approval.id, by=BOSS)
        assert caught.value.code == "APPROVAL_DECIDED"
        assert (await session.wait()).value[0] == "APPROVAL_DENIED"


@jumping
async def test_only_who_fits_the_approvers_may_decide() -> None:
    async with shop() as (broker, ledger):
        session = await begun(broker, principal=ANN)
        (approval,) = await asked(broker)
        for other in (ANN, ANONYMOUS, Principal("bea", tenant="acme"), Principal("x", claims={"role": "Supervisor"})):
            with pytest.raises(EnclaveError) as caught:
                await broker.approvals.approve(approval.id, by=other)
            assert caught.value.code == "FORBIDDEN"
        assert ledger == []
        await broker.approvals.approve(approval.id, by=BOSS)
        assert (await session.wait()).value == 5


@jumping
async def test_facts_of_the_host_count_for_who_decides() -> None:
    async def directory(principal: Principal) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"on_call": principal.subject == "carl"}

    rule = Rule("refund", allow="ask", approvers={"on_call": True})
    async with shop(rule, context=directory) as (broker, _):
        session = await begun(broker)
        (approval,) = await asked(broker)
        with pytest.raises(EnclaveError):
            await broker.approvals.approve(approval.id, by=BOSS)
        await broker.approvals.approve(approval.id, by=Principal("carl"))
        assert (await session.wait()).value == 5


@jumping
async def test_a_condition_that_fails_lets_nobody_decide(caplog: pytest.LogCaptureFixture) -> None:
    def broken(facts: Any) -> bool:
        raise LookupError("no directory")

    async with shop(Rule("refund", allow="ask", approvers=broken, expires_in=5)) as (broker, ledger):
        session = await begun(broker, REFUSED)
        (approval,) = await asked(broker)
        with pytest.raises(EnclaveError) as caught, caplog.at_level(logging.CRITICAL + 1, "enclave_broker.access"):
            await broker.approvals.approve(approval.id, by=BOSS)
        assert caught.value.code == "FORBIDDEN"
        assert ((await session.wait()).value[0], ledger) == ("APPROVAL_EXPIRED", [])


@jumping
async def test_a_principal_is_listed_what_it_may_decide() -> None:
    open_to_all = Rule("ping", allow="ask")
    async with shop(ASK, open_to_all) as (broker, _):
        code = "await Promise.all([callTool('refund', {amount: 1}), callTool('ping', {})])"
        session = await begun(broker, code, principal=ANN)
        await asked(broker, 2)

        async def may(principal: Principal) -> list[str]:
            return [each.tool for each in await broker.approvals.list(principal=principal)]

        assert await may(BOSS) == ["refund", "ping"]
        assert await may(Principal("carl", tenant="acme")) == ["ping"]
        assert await may(ANN) == []  # who has asked, with approvers or without
        assert await may(Principal("bea", tenant="other", roles=BOSS.roles)) == []
        assert await may(Principal("bea", roles=BOSS.roles)) == []
        assert len(await broker.approvals.list(session_id=session.id)) == 2
        assert await broker.approvals.list(session_id="s_other") == []
        await session.cancel()


@jumping
async def test_what_is_no_principal_and_no_reason_is_refused() -> None:
    async with shop() as (broker, _):
        session = await begun(broker)
        (approval,) = await asked(broker)
        for by, reason in (("bea", ""), (None, ""), (BOSS, 7), (BOSS, "x" * 1001)):
            with pytest.raises(ConfigurationError):
                await broker.approvals.deny(approval.id, by=by, reason=reason)  # type: ignore[arg-type]
        assert len(await broker.approvals.list()) == 1
        await session.cancel()


# -- what it holds for -------------------------------------------------------------------------------------------------


@jumping
async def test_an_approval_holds_for_these_arguments_only() -> None:
    async def more(call: ToolCall, call_next: CallNext) -> Any:
        return await call_next(call.replace(args={**call.args, "amount": call.args["amount"] + 1}))

    async with shop(middleware=[more]) as (broker, ledger):
        session = await begun(broker, REFUSED)
        (approval,) = await asked(broker)
        await broker.approvals.approve(approval.id, by=BOSS)
        code, message = (await session.wait()).value
        assert (code, "middleware has changed" in message, ledger) == ("ACCESS_DENIED", True, [])


@jumping
async def test_a_middleware_can_not_smuggle_in_what_would_have_been_asked_about() -> None:
    async def more(call: ToolCall, call_next: CallNext) -> Any:
        return await call_next(call.replace(args={"amount": 500}))

    small = Rule("refund", allow=True, when={"amount": {"le": 100}})
    async with shop(small, ASK, middleware=[more]) as (broker, ledger):
        result = await broker.execute(REFUSED)
        assert (result.value[0], ledger) == ("ACCESS_DENIED", [])


@jumping
async def test_a_middleware_that_changes_nothing_is_welcome() -> None:
    async def same(call: ToolCall, call_next: CallNext) -> Any:
        return await call_next(call.replace(args=dict(call.args)))

    async with shop(middleware=[same]) as (broker, ledger):
        session = await begun(broker)
        (approval,) = await asked(broker)
        await broker.approvals.approve(approval.id, by=BOSS)
        assert ((await session.wait()).value, ledger) == (5, [5])


@jumping
async def test_the_record_of_the_start_has_the_hash_that_was_approved() -> None:
    async with shop() as (broker, _):
        session = await begun(broker, principal=ANN)
        (approval,) = await asked(broker)
        await broker.approvals.approve(approval.id, by=BOSS)
        await session.wait()
        question, answer, start = facts(session, ApprovalAsked, ApprovalDecided, HandlerStarted)
        digest = hashlib.sha256(msgspec.json.encode({"amount": 5})).hexdigest()
        assert question.args_hash == start.args_hash == digest
        assert (answer.decision, answer.subject, answer.tenant) == ("approved", "bea", "acme")
        assert question.approval_id == answer.approval_id == approval.id
        assert start.rule == question.rule == approval.rule


@jumping
async def test_people_are_spared_what_has_no_room_anyway_and_a_denied_call_costs_nothing() -> None:
    async with shop(rate_limiter=RateLimiter(per_tool={"refund": RateLimit(1, 3600.0)})) as (broker, ledger):
        for word in ("deny", "approve"):
            session = await begun(broker, REFUSED)
            (approval,) = await asked(broker)
            await getattr(broker.approvals, word)(approval.id, by=BOSS)
            await session.wait()
        assert ledger == [5]
        result = await broker.execute(REFUSED)
        assert (result.value[0], result.calls[0].rule) == ("RATE_LIMITED", "limit: per_tool refund")


@jumping
async def test_the_limit_is_charged_after_the_approval() -> None:
    async with shop(rate_limiter=RateLimiter(per_tool={"refund": RateLimit(1, 3600.0)})) as (broker, ledger):
        sessions = [await begun(broker, REFUSED) for _ in range(2)]
        rows = await asked(broker, 2)  # there was room for each one when people were asked
        await broker.approvals.approve(*[row.id for row in rows], by=BOSS)
        values = [(await session.wait()).value for session in sessions]
        assert (values[0], values[1][0], ledger) == (5, "RATE_LIMITED", [5])

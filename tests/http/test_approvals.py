"""Approvals over HTTP: who sees and decides what, in which words, and what the clients make of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request

from enclave_broker import (
    AccessController,
    Approval,
    AsyncClient,
    Broker,
    Client,
    ClientError,
    PermissionDeniedError,
    Principal,
    Rule,
)
from tests.http.live import Live, events, memory_broker, refusal, serving

KEYS = {
    "ann": Principal("ann", tenant="acme"),
    "bob": Principal("bob", tenant="acme"),
    "bea": Principal("bea", tenant="acme", roles=frozenset({"supervisor"})),
    "eve": Principal("eve", tenant="other", roles=frozenset({"supervisor"})),
    "nat": Principal("nat"),
    "nell": Principal("nell"),
    "max": Principal("max", roles=frozenset({"supervisor"})),
    "ned": Principal("ned", tenant=""),
    "neil": Principal("neil", tenant=""),
    "mia": Principal("mia", tenant="", roles=frozenset({"supervisor"})),
}
REFUND = "return await callTool('refund', {amount: 5}).catch((error) => [error.code, error.message])"
PING = "return await callTool('ping', {})"
RULES = [
    Rule("refund", allow="ask", approvers={"role": "supervisor"}, expires_in=60, where="app.py:1"),
    Rule("ping", allow="ask"),
]


async def by_key(request: Request) -> Principal:
    return KEYS[request.headers["authorization"].removeprefix("Bearer ")]


def key(name: str) -> dict[str, str]:
    return {"Authorization": name}


def shop(**options: Any) -> Broker:
    broker = memory_broker(access=AccessController(rules=RULES), **options)

    @broker.tool("refund")
    async def refund(amount: int, note: str = "none") -> int:
        return amount

    @broker.tool("ping")
    async def ping() -> str:
        return "pong"

    return broker


@pytest.fixture
def live() -> Iterator[Live]:
    with serving(shop(), auth=by_key) as running:
        yield running


def listed(live: Live, who: str, query: str = "") -> list[dict[str, Any]]:
    answer = live.client.get(f"/approvals{query}", headers=key(who))
    assert answer.status_code == 200
    body = answer.json()
    assert body["total"] == len(body["approvals"])
    return body["approvals"]


def pending(live: Live, count: int = 1) -> list[str]:
    live.until(lambda: len(live.broker.approvals.open()) >= count)
    return [asked.id for asked in live.broker.approvals.open()]


def decide(live: Live, who: str, id: str, decision: str = "approve", **fields: Any) -> Any:
    return live.client.post(f"/approvals/{id}", json={"decision": decision, **fields}, headers=key(who))


def test_an_approval_on_the_wire(live: Live) -> None:
    with live.streaming(REFUND, headers=key("ann"), sessionId="s_1") as stream:
        call_id = stream.next("tool_call")["payload"]["callId"]
        (id,) = pending(live)
        (row,) = listed(live, "bea")
        assert row["expiresAt"] - row["createdAt"] == 60_000
        assert abs(row["createdAt"] / 1000 - live.session("s_1").sources.now()) < 60
        assert {name: value for name, value in row.items() if not name.endswith("At")} == {
            "approvalId": id,
            "sessionId": "s_1",
            "callId": call_id,
            "toolName": "refund",
            "args": {"amount": 5, "note": "none"},
            "requestedBy": {"subject": "ann", "tenant": "acme"},
            "rule": "access: refund (app.py:1)",
            "state": "pending",
        }
        assert live.client.get("/sessions/s_1", headers=key("ann")).json()["state"] == "waiting_for_tool"
        answer = decide(live, "bea", id, "deny", reason="no")
        assert (answer.status_code, answer.json()) == (200, {"success": True, "approvalId": id})
        final = stream.next("final")["payload"]
        assert final["result"] == ["APPROVAL_DENIED", "tool 'refund': the call was not approved: no"]
    after = live.client.get(f"/approvals/{id}", headers=key("bea")).json()
    assert after == row | {"state": "denied", "reason": "no", "decidedBy": {"subject": "bea", "tenant": "acme"}}
    assert listed(live, "bea") == []
    (call,) = live.client.get("/sessions/s_1/calls", headers=key("ann")).json()["calls"]
    assert (call["outcome"], call["rule"]) == ("denied", row["rule"])
    assert [stage["stage"] for stage in call["stages"]] == ["requested", "placed", "asked", "decided", "settled"]


def test_who_may_see_and_who_may_decide(live: Live) -> None:
    with live.streaming(REFUND, headers=key("ann")) as stream:
        (id,) = pending(live)
        for who in ("ann", "bob", "eve", "nat"):
            assert listed(live, who) == []
        unknown = live.client.get("/approvals/a_unknown", headers=key("bob"))
        assert refusal(unknown) == (404, "NOT_FOUND")
        for who in ("bob", "eve", "nat"):
            assert live.client.get(f"/approvals/{id}", headers=key(who)).content == unknown.content
            assert decide(live, who, id).content == unknown.content
        assert live.client.get(f"/approvals/{id}", headers=key("ann")).json()["state"] == "pending"
        assert refusal(decide(live, "ann", id)) == (403, "FORBIDDEN")
        assert decide(live, "bea", id).status_code == 200
        assert stream.next("final")["payload"]["result"] == 5


def test_without_approvers_anybody_else_of_the_tenant_may_decide(live: Live) -> None:
    with live.streaming(PING, headers=key("ann")) as stream:
        (id,) = pending(live)
        assert [who for who in KEYS if listed(live, who)] == ["bob", "bea"]
        assert refusal(decide(live, "ann", id)) == (403, "FORBIDDEN")
        assert decide(live, "bob", id).status_code == 200
        assert stream.next("final")["payload"]["result"] == "pong"


@pytest.mark.parametrize(("who", "others", "boss"), [("nat", ["nell", "ned"], "max"), ("ned", ["neil", "nat"], "mia")])
def test_without_a_tenant_nobody_decides_or_sees_what_others_ask_but_a_named_approver(
    live: Live, who: str, others: list[str], boss: str
) -> None:
    with live.streaming(PING, headers=key(who)) as ping, live.streaming(REFUND, headers=key(who)) as refund:
        of_ping, of_refund = pending(live, 2)
        for other in [who, *others]:
            assert listed(live, other) == []
        unknown = live.client.get("/approvals/a_unknown", headers=key(who))
        for other in [*others, boss]:
            assert live.client.get(f"/approvals/{of_ping}", headers=key(other)).content == unknown.content
            assert decide(live, other, of_ping).content == unknown.content
        assert live.client.get(f"/approvals/{of_ping}", headers=key(who)).json()["state"] == "pending"
        assert refusal(decide(live, who, of_ping)) == (403, "FORBIDDEN")
        live.call(lambda: live.broker.approvals.approve(of_ping, by=KEYS["nell"]))  # the host knows best
        assert ping.next("final")["payload"]["result"] == "pong"
        assert [row["approvalId"] for row in listed(live, boss)] == [of_refund]
        assert decide(live, boss, of_refund).status_code == 200
        assert refund.next("final")["payload"]["result"] == 5


def test_a_deleted_session_takes_what_was_asked_and_answered_with_it(live: Live) -> None:
    for id, decided in (("s_1", "approve"), ("s_2", "deny")):
        with live.streaming(PING, headers=key("ann"), sessionId=id) as stream:
            (approval,) = pending(live)
            assert decide(live, "bob", approval, decided).status_code == 200
            stream.next("final")
        assert live.client.get(f"/approvals/{approval}", headers=key("ann")).json()["args"] == {}
        assert live.client.delete(f"/sessions/{id}", headers=key("ann")).status_code == 200
        unknown = live.client.get("/approvals/a_unknown", headers=key("ann"))
        for who in ("ann", "bob"):
            assert live.client.get(f"/approvals/{approval}", headers=key(who)).content == unknown.content
            assert decide(live, who, approval).content == unknown.content


def test_where_nobody_is_asked_for_a_key_everybody_may_decide_but_what_names_approvers() -> None:
    with serving(shop()) as live, live.streaming(PING) as stream, live.streaming(REFUND) as other:
        ping, refund = pending(live, 2)
        assert [each["approvalId"] for each in live.client.get("/approvals").json()["approvals"]] == [ping]
        assert live.client.post(f"/approvals/{ping}", json={"decision": "approve"}).status_code == 200
        assert refusal(live.client.post(f"/approvals/{refund}", json={"decision": "approve"})) == (403, "FORBIDDEN")
        assert stream.next("final")["payload"]["result"] == "pong"
        assert live.client.post(f"/sessions/{other.id}/cancel").status_code == 200


def test_a_decision_counts_once_also_when_fifty_arrive_together(live: Live) -> None:
    async def race(id: str) -> list[str]:
        async with AsyncClient(live.url, api_key="bea") as client:
            ways = client.approve, client.deny
            answers = await asyncio.gather(*(ways[n % 2](id) for n in range(50)), return_exceptions=True)
        return [answer.code for answer in answers if isinstance(answer, ClientError)]

    with live.streaming(REFUND, headers=key("ann")) as stream:
        (id,) = pending(live)
        assert asyncio.run(race(id)) == ["APPROVAL_DECIDED"] * 49
        state = live.client.get(f"/approvals/{id}", headers=key("bea")).json()["state"]
        value = stream.next("final")["payload"]["result"]
        assert (state, value) in (
            ("approved", 5),
            ("denied", ["APPROVAL_DENIED", value[1] if state == "denied" else ""]),
        )
    assert refusal(decide(live, "bea", id)) == (409, "APPROVAL_DECIDED")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"{}", b'{"decision":"maybe"}', b'{"decision":true}', b'{"Decision":"approve"}'),
        b'{"decision":"deny","reason":7}',
        json.dumps({"decision": "deny", "reason": "x" * 1001}).encode(),
    ],
)
def test_a_body_that_is_no_decision_decides_nothing(live: Live, body: bytes) -> None:
    with live.streaming(REFUND, headers=key("ann")) as stream:
        (id,) = pending(live)
        headers = key("bea") | {"Content-Type": "application/json"}
        assert refusal(live.client.post(f"/approvals/{id}", content=body, headers=headers)) == (400, "INVALID_REQUEST")
        assert len(listed(live, "bea")) == 1
        assert live.client.post(f"/sessions/{stream.id}/cancel", headers=key("ann")).status_code == 200
    live.until(lambda: not live.broker.approvals.open())
    assert refusal(decide(live, "bea", id)) == (404, "NOT_FOUND")


def test_one_sessions_approvals_can_be_asked_for(live: Live) -> None:
    with (
        live.streaming(PING, headers=key("ann"), sessionId="s_1"),
        live.streaming(PING, headers=key("ann"), sessionId="s_2"),
    ):
        pending(live, 2)
        assert [row["sessionId"] for row in listed(live, "bob")] == ["s_1", "s_2"]
        assert [row["sessionId"] for row in listed(live, "bob", "?session=s_2")] == ["s_2"]
        assert listed(live, "bob", "?session=s_3") == []
        for id in ("s_1", "s_2"):
            live.client.post(f"/sessions/{id}/cancel", headers=key("ann"))


def test_a_list_with_too_many_bytes_of_arguments_is_cut_and_says_how_many_there_are(live: Live) -> None:
    calls = "[1, 2, 3, 4].map((amount) => callTool('refund', { amount, note: 'x'.repeat(3e6) }))"
    code = f"return await Promise.all({calls})"
    with live.streaming(code, headers=key("ann")) as stream:
        ids = pending(live, 4)
        body = live.client.get("/approvals", headers=key("bea")).json()
        assert ([row["approvalId"] for row in body["approvals"]], body["total"]) == (ids[:2], 4)
        for id in ids:
            assert decide(live, "bea", id).status_code == 200
        assert stream.next("final")["payload"]["result"] == [1, 2, 3, 4]


async def test_the_async_client_lists_approves_and_denies(live: Live) -> None:
    async with AsyncClient(live.url, api_key="ann") as ann, AsyncClient(live.url, api_key="bea") as bea:
        code = f"return await Promise.all([1, 2].map(async () => {{ {REFUND} }}))"
        run = asyncio.ensure_future(ann.execute(code))
        rows: list[Approval] = []
        async with asyncio.timeout(20):
            while len(rows) < 2:
                rows = await bea.approvals()
        assert [row.args["amount"] for row in rows] == [5, 5]
        assert rows[0].requested_by == Principal("ann", tenant="acme")
        assert await bea.approvals(rows[0].session_id) == rows
        assert await ann.approvals() == []
        with pytest.raises(PermissionDeniedError):
            await ann.approve(rows[0].id)
        await bea.deny(rows[0].id, reason="once is enough")
        await bea.approve(rows[1].id)
        result = await run
        assert result.value == [["APPROVAL_DENIED", "tool 'refund': the call was not approved: once is enough"], 5]
        assert [call.outcome for call in result.calls] == ["denied", "done"]


def test_the_client_without_await_does_the_same(live: Live) -> None:
    with live.streaming(PING, headers=key("ann")) as stream, Client(live.url, api_key="bob") as client:
        pending(live)
        (row,) = client.approvals()
        client.approve(row.id)
        assert stream.next("final")["payload"]["result"] == "pong"
        with pytest.raises(ClientError) as caught:
            client.deny(row.id, reason="too late")
        assert caught.value.code == "APPROVAL_DECIDED"
        with pytest.raises(ClientError) as caught:
            client.approve("a_/../sessions")
        assert caught.value.code == "NOT_FOUND"


def test_the_clock_of_a_run_over_http_stands_and_its_stream_goes_on(live: Live) -> None:
    limits = {"sessionTtlMs": 300, "heartbeatIntervalMs": 100}
    with live.streaming(PING, headers=key("ann"), limits=limits, sessionId="s_1") as stream:
        (id,) = pending(live)
        for _ in range(8):  # heartbeats: more time than the run has
            stream.next("heartbeat")
        assert decide(live, "bob", id).status_code == 200
        assert stream.next("final")["payload"]["result"] == "pong"
    history = events(live.client.get("/sessions/s_1/stream", headers=key("ann")))
    phases = [each["payload"]["phase"] for each in history if each["type"] == "tool_progress"]
    assert phases == ["connecting", "connecting", "sending", "processing"]

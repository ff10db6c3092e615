"""The endpoints of a session's calls, and of the tools there are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from enclave_broker import AccessController, Broker, Principal, Rule
from tests.http.live import Live, Stream, memory_broker, refusal, serving

ASK = "return await tools.browser.title({ tab: 1 })"


def asking(broker: Broker) -> Broker:
    broker.client_tool("browser:title", args=dict[str, int], timeout=60.0)
    return broker


def result(live: Live, id: str, **body: Any) -> Any:
    return live.client.post(f"/sessions/{id}/tool-result", json=body)


def call_id(stream: Stream) -> str:
    return stream.next("tool_call")["payload"]["callId"]


# -- POST /sessions/{id}/tool-result ---------------------------------------------------------------------------------


def test_post_tool_result_gives_the_script_what_the_client_has_found(shop: Broker) -> None:
    with serving(asking(shop)) as live, live.streaming(ASK) as stream:
        call = call_id(stream)
        response = result(live, stream.id, callId=call, ok=True, result={"title": "Home"})
        assert (response.status_code, response.json()) == (200, {"success": True, "callId": call})
        assert stream.next("final")["payload"]["result"] == {"title": "Home"}


def test_post_tool_result_gives_the_script_an_error_that_it_can_catch(shop: Broker) -> None:
    code = f"try {{ {ASK} }} catch (error) {{ return [error.code, error.message] }}"
    with serving(asking(shop)) as live, live.streaming(code) as stream:
        error = {"message": "the tab is closed", "code": "TAB_CLOSED"}
        assert result(live, stream.id, callId=call_id(stream), ok=False, error=error).status_code == 200
        assert stream.next("final")["payload"]["result"] == ["TAB_CLOSED", "the tab is closed"]


def test_the_first_tool_result_counts(shop: Broker) -> None:
    with serving(asking(shop)) as live, live.streaming(f"const a = await (async () => {{ {ASK} }})(); {ASK}") as stream:
        call = call_id(stream)
        assert result(live, stream.id, callId=call, ok=True, result=1).json()["success"] is True
        assert result(live, stream.id, callId=call, ok=True, result=2).json()["success"] is False
        result(live, stream.id, callId=call_id(stream), ok=True, result=3)
        assert stream.next("final")["payload"]["result"] == 3


def test_post_tool_result_for_a_call_that_nobody_made_is_unknown_call(shop: Broker) -> None:
    with serving(asking(shop)) as live, live.streaming(ASK) as stream:
        call_id(stream)
        assert refusal(result(live, stream.id, callId="c_none", ok=True)) == (404, "UNKNOWN_CALL")


def test_post_tool_result_for_a_tool_of_the_hosts_is_refused(live: Live, gate: asyncio.Event) -> None:
    with live.streaming("return await tools.wait({})") as stream:
        status, _ = refusal(result(live, stream.id, callId=call_id(stream), ok=True, result="forged"))
        assert status == 409
        live.do(gate.set)
        assert stream.next("final")["payload"]["result"] == "waited"


def test_post_tool_result_to_a_session_that_is_not_there_is_404(live: Live) -> None:
    assert refusal(result(live, "s_none", callId="c_1", ok=True)) == (404, "NOT_FOUND")


# -- GET /sessions/{id}/calls ----------------------------------------------------------------------------------------


def test_get_calls_has_every_call_with_its_outcome(live: Live) -> None:
    code = (
        "await tools.orders.get({ id: 1 }); await tools.orders.get({ id: 9 }).catch(() => 0); await tools.nothing({})"
    )
    live.run(code, sessionId="s_mine")
    got = live.client.get("/sessions/s_mine/calls").json()
    calls = got["calls"]
    assert got["total"] == 3
    assert [(call["toolName"], call["args"], call["outcome"]) for call in calls] == [
        ("orders:get", {"id": 1}, "done"),
        ("orders:get", {"id": 9}, "failed"),
        ("nothing", {}, "denied"),
    ]
    assert "error" not in calls[0]
    assert calls[1]["error"]["code"] == "NO_SUCH_ORDER"
    assert calls[0]["callId"].startswith("c_")
    assert type(calls[0]["startedAt"]) is int
    assert calls[0]["durationMs"] >= 0
    assert (calls[0]["argsBytes"], calls[0]["resultBytes"]) == (8, 19)
    assert calls[0]["byHost"] is False
    assert "startedAt" not in calls[2]


def test_get_calls_of_a_running_session_has_those_that_wait(live: Live) -> None:
    with live.streaming("return await tools.wait({})") as stream:
        call_id(stream)
        calls = live.client.get(f"/sessions/{stream.id}/calls").json()["calls"]
        assert [(call["outcome"], "durationMs" in call) for call in calls] == [("waiting", False)]


# -- GET /code/actions -----------------------------------------------------------------------------------------------


def test_get_code_actions_has_every_tool_and_its_service(live: Live) -> None:
    got = live.client.get("/code/actions").json()
    assert set(got) == {"actions", "services", "version"}
    assert [(action["name"], action["service"]) for action in got["actions"]] == [
        ("label", "default"),
        ("orders:get", "orders"),
        ("wait", "default"),
        ("whoami", "default"),
    ]
    order = got["actions"][1]
    assert order["description"] == "One order."
    assert order["inputSchema"]["properties"]["id"]["type"] == "integer"
    assert [(service["name"], service["actionCount"]) for service in got["services"]] == [("default", 3), ("orders", 1)]


def test_the_catalogs_version_changes_with_its_actions(shop: Broker) -> None:
    with serving(shop) as live:
        before = live.client.get("/code/actions").json()["version"]
        assert live.client.get("/code/actions").json()["version"] == before

        def late() -> int:
            return 1

        live.do(lambda: shop.tool("late", effect="read")(late))
        assert live.client.get("/code/actions").json()["version"] != before


def one() -> int:
    return 1


def test_get_code_actions_has_what_whoever_asks_may_call_by_its_name(shop: Broker) -> None:
    async def facts(principal: Principal) -> dict[str, bool]:
        await asyncio.sleep(0)
        return {"boss": principal.subject == "ann"}

    shop.access = AccessController(
        rules=[
            Rule("label", allow=False, unless={"boss": True}),
            Rule("wait", allow="ask"),
            Rule("orders:*", allow=True, when={"id": 1}),
            Rule("orders:*", allow=False),
            Rule("payroll", allow=True),
        ]
    )
    shop.context = facts
    shop.tool("payroll", effect="read", requires_auth=True)(one)

    async def who(request: Request) -> Principal:
        return Principal(request.headers["x-name"])

    def shown(live: Live, **headers: str) -> tuple[list[str], int]:
        got = live.client.get("/code/actions", headers=headers).json()
        return [action["name"] for action in got["actions"]], sum(each["actionCount"] for each in got["services"])

    with serving(shop, auth=who) as live:
        assert shown(live, **{"x-name": "ann"}) == (["label", "orders:get", "payroll", "wait"], 4)
        assert shown(live, **{"x-name": "bob"}) == (["orders:get", "payroll", "wait"], 3)
    with serving(shop) as live:
        assert shown(live) == (["orders:get", "wait"], 2)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_get_healthz_and_readyz_of_a_running_server_are_ok(live: Live, path: str) -> None:
    assert live.client.get(path).status_code == 200


def test_a_broker_without_tools_has_an_empty_catalog() -> None:
    with serving(memory_broker()) as live:
        got = live.client.get("/code/actions").json()
        assert (got["actions"], got["services"]) == ([], [])

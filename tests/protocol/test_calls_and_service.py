"""Section "Endpoints": a session's calls, the catalog of tools, OPTIONS, and what is for operators."""

from __future__ import annotations

import re

import pytest

from tests.protocol.client import Enclave, hold, refusal, unique
from tests.protocol.schema import Actions
from tests.protocol.streams import Json

ASK = "return await tools.browser.title({ tab: 1 })"
PATHS = {
    "/sessions": {"get", "post"},
    "/sessions/{id}": {"get", "delete"},
    "/sessions/{id}/stream": {"get"},
    "/sessions/{id}/cancel": {"post"},
    "/sessions/{id}/tool-result": {"post"},
    "/sessions/{id}/calls": {"get"},
    "/code/actions": {"get"},
    "/healthz": {"get"},
    "/readyz": {"get"},
}


# -- POST /sessions/{id}/tool-result ---------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [{"title": "Home"}, [1, None], "text", 0, False, None])
def test_post_tool_result_gives_the_script_the_clients_result(enclave: Enclave, result: object) -> None:
    with enclave.watching(ASK) as watch:
        body = {"callId": watch.next("tool_call")["callId"], "ok": True, "result": result}
        assert enclave.request("POST", f"/sessions/{watch.id}/tool-result", json=body).status_code == 200
        assert watch.end().result == result


def test_post_tool_result_without_result_is_undefined(enclave: Enclave) -> None:
    with enclave.watching("return (await tools.browser.title({ tab: 1 })) === undefined") as watch:
        body = {"callId": watch.next("tool_call")["callId"], "ok": True}
        assert enclave.request("POST", f"/sessions/{watch.id}/tool-result", json=body).status_code == 200
        assert watch.end().result is True


def test_post_tool_result_gives_the_script_the_clients_error(enclave: Enclave) -> None:
    code = f"try {{ {ASK} }} catch (error) {{ return [error.code, error.message] }}"
    with enclave.watching(code) as watch:
        error = {"code": "TAB_CLOSED", "message": "the tab is closed"}
        body = {"callId": watch.next("tool_call")["callId"], "ok": False, "error": error}
        assert enclave.request("POST", f"/sessions/{watch.id}/tool-result", json=body).status_code == 200
        assert watch.end().result == ["TAB_CLOSED", "the tab is closed"]


@pytest.mark.parametrize(
    "body", [{}, {"callId": "c_1"}, {"callId": 1, "ok": True}, {"callId": "c_1", "ok": "yes"}, {"ok": True}]
)
def test_post_tool_result_of_another_shape_is_refused(enclave: Enclave, body: Json) -> None:
    run = enclave.run("return 1")
    response = enclave.request("POST", f"/sessions/{run.id}/tool-result", json=body)
    assert refusal(response) == (400, "INVALID_REQUEST")


# -- GET /sessions/{id}/calls ----------------------------------------------------------------------------------------


def test_get_calls_is_the_history_of_tool_calls(enclave: Enclave) -> None:
    code = (
        "await tools.orders.get({ id: 1 }); await tools.orders.get({ id: 9 }).catch(() => 0); await tools.nothing({})"
    )
    run = enclave.run(code)
    calls = enclave.get(f"/sessions/{run.id}/calls").json()["calls"]
    assert [{name: call[name] for name in ("callId", "toolName", "args")} for call in calls] == run.of("tool_call")
    assert [call.get("error", {}).get("code") for call in calls] == [None, "NO_SUCH_ORDER", "UNKNOWN_TOOL"]


def test_get_calls_of_a_running_session_has_those_that_wait(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as watch:
        call = watch.next("tool_call")
        (waiting,) = enclave.get(f"/sessions/{watch.id}/calls").json()["calls"]
        assert waiting["callId"] == call["callId"]
        enclave.open(key)
        watch.end()


# -- GET /code/actions -----------------------------------------------------------------------------------------------


def test_get_code_actions_has_actions_services_and_a_version(enclave: Enclave) -> None:
    response = enclave.get("/code/actions")
    assert response.status_code == 200
    catalog = Actions.model_validate_json(response.content)
    actions = {action.name: action for action in catalog.actions}
    order = actions["orders:get"]
    assert (order.description, order.service) == ("One order.", "orders")
    (schema,) = [action["inputSchema"] for action in response.json()["actions"] if action["name"] == order.name]
    assert (schema["type"], schema["required"]) == ("object", ["id"])
    assert schema["properties"]["id"]["type"] == "integer"
    assert {"browser:title", "odd:na-me/x.y", "ping"} <= set(actions)
    assert enclave.get("/code/actions").json()["version"] == catalog.version


def test_every_action_belongs_to_a_service_that_is_listed(enclave: Enclave) -> None:
    catalog = enclave.get("/code/actions").json()
    names = {service["name"] for service in catalog["services"]}
    assert {action["service"] for action in catalog["actions"]} == names


# -- OPTIONS, and for operators --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PATHS, "/openapi.json", "/docs"])
def test_options_on_all_is_204(enclave: Enclave, path: str) -> None:
    response = enclave.request("OPTIONS", path.replace("{id}", "s_1"))
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_get_healthz_and_readyz_are_200(enclave: Enclave, path: str) -> None:
    assert enclave.get(path).status_code == 200


def test_get_openapi_json_describes_every_endpoint(enclave: Enclave) -> None:
    response = enclave.get("/openapi.json")
    described = response.json()
    assert response.headers["content-type"] == "application/json"
    assert described["openapi"].startswith("3.")
    paths = {re.sub("{.*}", "{id}", path): set(methods) for path, methods in described["paths"].items()}
    for path, methods in PATHS.items():
        assert methods <= paths[path], path


def test_get_docs_is_a_page(enclave: Enclave) -> None:
    response = enclave.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")

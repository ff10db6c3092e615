"""Section "Endpoints": POST /sessions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.live import serving
from tests.protocol import shop
from tests.protocol.client import Enclave, hold, refusal, refused_field, unique, whole
from tests.protocol.schema import OneObject
from tests.protocol.streams import sse_events_of

AXIOS = "application/json, text/plain, */*"


# -- headers and body ------------------------------------------------------------------------------------------------


def test_post_sessions_answers_200_with_an_ndjson_stream_and_its_headers(enclave: Enclave) -> None:
    response = enclave.post("return 1")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["cache-control"] == "no-cache"
    assert whole(response).id == response.headers["x-session-id"]


def test_post_sessions_sends_events_when_they_happen(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as watch:
        assert watch.next("stdout")["chunk"] == "begun\n"
        enclave.open(key)
        assert watch.end().result == "waited"


def test_post_sessions_needs_only_code(enclave: Enclave) -> None:
    assert whole(enclave.request("POST", "/sessions", json={"code": "return 7"})).result == 7


def test_post_sessions_without_code_is_refused_by_name(enclave: Enclave) -> None:
    assert refused_field(enclave.request("POST", "/sessions", json={})) == "code"


def test_post_sessions_takes_what_an_existing_client_sends(enclave: Enclave) -> None:
    id = unique()
    run = enclave.run(
        "console.log('x'); return await callTool('orders:get', { id: 2 })",
        sessionId=id,
        config={"maxExecutionMs": 30_000, "maxToolCalls": 10, "heartbeatIntervalMs": 10_000},
        limits={"sessionTtlMs": 30_000, "toolTimeoutMs": 5_000, "cancelOnFirstError": False, "deadlineMs": 0},
        filter={"mode": "exclude", "rules": [{"types": {"types": ["stdout"]}}]},
        encryption={"mode": "disabled"},
        protocolVersion=2,
        headers={"Accept": AXIOS},
    )
    assert run.id == id
    assert run.result == {"id": 2, "total": 20}
    assert "stdout" not in run.types


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"code": 1}, "code"),
        ({"sessionId": 1}, "sessionId"),
        ({"config": "fast"}, "config"),
        ({"limits": []}, "limits"),
        ({"encryption": "none"}, "encryption"),
        ({"protocolVersion": "two"}, "protocolVersion"),
        ({"language": 1}, "language"),
        ({"allowedTools": "orders:*"}, "allowedTools"),
        ({"metadata": ["a"]}, "metadata"),
        ({"detach": "yes"}, "detach"),
        ({"stream": "no"}, "stream"),
    ],
)
def test_post_sessions_refuses_a_field_of_another_type_by_name(
    enclave: Enclave, fields: dict[str, Any], named: str
) -> None:
    body = {"code": "return 1", **fields}
    assert refused_field(enclave.request("POST", "/sessions", json=body)).split(".")[0] == named


# -- additions -------------------------------------------------------------------------------------------------------


def test_post_sessions_takes_a_language(enclave: Enclave) -> None:
    assert enclave.run("return 1", language="javascript").result == 1
    assert refused_field(enclave.post("return 1", language="cobol")) == "language"


@pytest.mark.parametrize("names", [["orders:get"], ["orders:*"], ["orders:get", "ping"]])
def test_post_sessions_narrows_the_tools_to_allowed_tools(enclave: Enclave, names: list[str]) -> None:
    code = "await tools.orders.get({ id: 1 }); return await tools.my.name({}).catch((error) => error.code)"
    assert enclave.run(code, allowedTools=names).result == "TOOL_NOT_ALLOWED"


def test_post_sessions_with_an_empty_list_allows_no_tool(enclave: Enclave) -> None:
    assert enclave.run("await callTool('ping', {})", allowedTools=[]).code == "TOOL_NOT_ALLOWED"


def test_allowed_tools_only_narrows(enclave: Enclave) -> None:
    assert enclave.run("await tools.no.such({})", allowedTools=["*", "no:such"]).code == "UNKNOWN_TOOL"


def test_metadata_is_a_label(enclave: Enclave) -> None:
    assert enclave.run("return await tools.my.label({})", metadata={"ticket": "T-7"}).result == "T-7"


def test_metadata_is_never_policy(enclave: Enclave) -> None:
    claims = {"subject": "ann", "role": "admin", "tenant": "t", "allowedTools": ["*"]}
    run = enclave.run("return await tools.my.name({})", metadata=claims)
    assert run.result == "anonymous"
    assert enclave.run("await callTool('ping')", metadata=claims, allowedTools=[]).code == "TOOL_NOT_ALLOWED"


def test_a_detached_run_goes_on_when_nobody_watches(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key), detach=True) as watch:
        watch.next("tool_call")
    enclave.open(key)
    assert enclave.replay(watch.id).result == "waited"


def test_a_detached_run_is_streamed_to_who_watches(enclave: Enclave) -> None:
    assert enclave.run("return 1", detach=True).result == 1


# -- SSE and one object ----------------------------------------------------------------------------------------------


def test_an_accept_of_event_stream_gets_sse_with_seq_as_id(enclave: Enclave) -> None:
    response = enclave.post("console.log('a\\nb'); return 2", headers={"Accept": "text/event-stream"})
    events = sse_events_of(response)
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-session-id"] == events[0]["sessionId"]
    assert events == enclave.replay(events[0]["sessionId"]).events


@pytest.mark.parametrize(
    ("accept", "fields"),
    [
        ("application/json", {}),
        ("application/json, text/plain", {}),
        ("application/json; charset=utf-8", {}),
        ("Application/JSON", {}),
        ("*/*", {"stream": False}),
        (AXIOS, {"stream": False}),
        ("application/x-ndjson", {"stream": False}),
    ],
)
def test_one_object_comes_after_the_end_when_it_is_asked_for(
    enclave: Enclave, accept: str, fields: dict[str, Any]
) -> None:
    response = enclave.post("console.log(1); return { n: 1 }", headers={"Accept": accept}, **fields)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert OneObject.model_validate_json(response.content).result == {"n": 1}
    assert response.json()["sessionId"] == response.headers["x-session-id"]


def test_one_object_of_a_run_that_failed_has_its_error(enclave: Enclave) -> None:
    response = enclave.post("throw new Error('no')", stream=False)
    assert response.status_code == 200
    body = OneObject.model_validate_json(response.content)
    assert (body.ok, body.error.code, body.error.message) == (False, "EXECUTION_ERROR", "no")


@pytest.mark.parametrize(
    "accept",
    [AXIOS, "application/json, application/x-ndjson", "application/json, */*", "application/x-ndjson", "*/*", ""],
)
def test_an_accept_of_ndjson_or_of_everything_streams(enclave: Enclave, accept: str) -> None:
    assert whole(enclave.post("return 1", headers={"Accept": accept})).result == 1


def test_a_client_without_accept_gets_a_stream(enclave: Enclave) -> None:
    request = enclave.http.build_request("POST", "/sessions", json={"code": "return 1"})
    del request.headers["accept"]
    assert whole(enclave.http.send(request)).result == 1


# -- again -----------------------------------------------------------------------------------------------------------


def test_the_same_id_body_and_principal_again_is_the_same_sessions_stream(enclave: Enclave) -> None:
    key, id = unique("gate"), unique()
    with enclave.watching(hold(key), sessionId=id) as first, enclave.watching(hold(key), sessionId=id) as second:
        first.next("tool_call")
        second.next("tool_call")
        enclave.open(key)
        assert first.end().events == second.end().events
    assert enclave.run(hold(key), sessionId=id).events == first.events


def test_the_same_id_with_another_body_is_session_exists(enclave: Enclave) -> None:
    id = unique()
    first = enclave.run("return 1", sessionId=id)
    assert refusal(enclave.post("return 2", sessionId=id)) == (409, "SESSION_EXISTS")
    assert refusal(enclave.post("return 1", sessionId=id, metadata={"a": 1})) == (409, "SESSION_EXISTS")
    assert enclave.replay(id).events == first.events


def test_the_same_id_and_body_of_another_principal_is_a_session_of_its_own(ann: Enclave, bob: Enclave) -> None:
    id = unique()
    assert ann.run("return await tools.my.name({})", sessionId=id).result == "ann"
    assert bob.run("return await tools.my.name({})", sessionId=id).result == "bob"
    assert ann.replay(id).result == "ann"


def test_the_same_id_again_is_not_taken_for_a_second_place() -> None:
    with serving(shop.make()) as live:
        enclave, key, id = Enclave(live.client), unique("gate"), unique()
        with enclave.watching(hold(key), sessionId=id) as watch:
            watch.next("tool_call")
            with enclave.watching(hold(key), sessionId=id) as again:
                again.next("tool_call")
                assert enclave.get("/sessions").json()["total"] == 1
            enclave.open(key)
            watch.end()

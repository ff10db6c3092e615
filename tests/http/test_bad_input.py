"""Bodies, query strings and ids that are wrong: each gets an answer of the protocol's, and harms nothing."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker import Broker, SessionLimits, SessionManager
from tests.http.live import Live, events, final, memory_broker, refusal, serving

JSON = {"Content-Type": "application/json"}


def post(live: Live, body: bytes) -> httpx.Response:
    return live.client.post("/sessions", content=body, headers=JSON)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"code":"return 1"',
        b'{"code":"return 1"}}',
        b"null",
        b"[]",
        b'"return 1"',
        b"\xff\xfe{}",
        b'{"code":"\xff"}',
        b'{"code":NaN}',
        b'{"code":"a","metadata":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
        b'{"code":"a","limits":{"maxToolCalls":' + b"9" * 5_000 + b"}}",
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_object_is_refused(shared: Live, body: bytes) -> None:
    assert refusal(post(shared, body)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"code": None},
        {"code": 1},
        {"code": ["return 1"]},
        {"code": "", "sessionId": ""},
        {"code": "", "sessionId": "s_"},
        {"code": "", "sessionId": "mine"},
        {"code": "", "sessionId": "s_" + "x" * 200},
        {"code": "", "sessionId": "s_a/b"},
        {"code": "", "sessionId": "s_\n"},
        {"code": "", "sessionId": "s_é"},
        {"code": "", "sessionId": 7},
        {"code": "", "config": []},
        {"code": "", "config": {"maxExecutionMs": "1"}},
        {"code": "", "config": {"maxExecutionMs": 0}},
        {"code": "", "limits": {"maxToolCalls": True}},
        {"code": "", "limits": {"maxToolCalls": -1}},
        {"code": "", "limits": {"maxToolCalls": 1.5}},
        {"code": "", "limits": {"maxEverything": 1}},
        {"code": "", "language": 1},
        {"code": "", "language": "\ud800"},
        {"code": "", "allowedTools": "orders:*"},
        {"code": "", "allowedTools": [1]},
        {"code": "", "allowedTools": ["[a"]},
        {"code": "", "allowedTools": ["a"] * 5_000},
        {"code": "", "allowedTools": ["{a,b}{c,d}{e,f}{g,h}{i,j}{k,l}{m,n}{o,p}{q,r}*x"] * 1_000},
        {"code": "", "allowedTools": [f"*{at}?" for at in range(1_000)]},
        {"code": "", "allowedTools": ["x" * 1_000] * 1_000},
        {"code": "", "allowed_tools": []},
        {"code": "", "metadata": []},
        {"code": "", "metadata": {"a": "x" * 50_000}},
        {"code": "", "detach": "yes"},
        {"code": "", "stream": "no"},
        {"code": "", "protocolVersion": 3},
        {"code": "", "encryption": {"mode": "required"}},
        {"code": "", "encryption": "required"},
        {"code": "", "filter": "stdout"},
    ],
)
def test_a_field_of_a_wrong_type_or_value_is_refused_by_name(shared: Live, fields: dict[str, Any]) -> None:
    response = post(shared, json.dumps(fields).encode())
    assert refusal(response) == (400, "INVALID_REQUEST")
    field = next((name for name in reversed(fields)), "code")
    assert field in response.json()["message"]
    assert response.json()["details"][0]["type"] == "validation_info"


WRONG_FILTERS: list[dict[str, Any]] = [
    {},
    {"mode": "include"},
    {"mode": "include", "rules": {}},
    {"mode": "include", "rules": [{"content": {"patterns": [{"type": "regex", "pattern": "("}]}}]},
    {"mode": "include", "rules": [{"content": {"patterns": [{"type": "regex", "pattern": r"(a)\1"}]}}]},
    {"mode": "include", "rules": [{"content": {"patterns": [{"type": "regex", "pattern": "(x{900}){900}"}]}}]},
    {"mode": "include", "rules": [{"content": {"patterns": [{"type": "regex", "pattern": "a" * 5_000}]}}]},
    {"mode": "include", "rules": [{}] * 1_000},
]


@pytest.mark.parametrize("filter", WRONG_FILTERS)
def test_a_filter_that_is_none_is_refused(shared: Live, filter: dict[str, Any]) -> None:
    assert refusal(shared.post("return 1", filter=filter)) == (400, "INVALID_FILTER")
    response = shared.client.get("/sessions/s_1/stream", params={"filter": json.dumps(filter)})
    assert refusal(response) in {(400, "INVALID_FILTER"), (404, "NOT_FOUND")}


def test_an_evil_regular_expression_holds_nobody_up(live: Live) -> None:
    evil = {"type": "regex", "pattern": "^(a+)+$", "field": "payload.chunk"}
    filter = {"mode": "include", "rules": [{"content": {"patterns": [evil]}}]}
    got = live.run("console.log('a'.repeat(100000) + '!'); console.log('done')", filter=filter)
    assert [event["type"] for event in got] == ["session_init", "final"]


@pytest.mark.parametrize("query", ["state=", "state=on_fire", "limit=0", "limit=-1", "limit=x", "limit=1e9", "limit=٣"])
def test_a_query_string_that_is_wrong_is_refused(shared: Live, query: str) -> None:
    assert refusal(shared.client.get(f"/sessions?{query}")) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "query", ["?", "?&&&==", "?%", "?%ff=%fe", "?fromSeq=%00", "?from=1&from=2", "?" + "a&" * 5_000]
)
def test_an_odd_query_string_does_no_harm(shared: Live, query: str) -> None:
    assert shared.client.get(f"/sessions{query}").status_code == 200
    assert refusal(shared.client.get(f"/sessions/s_none/stream{query}")) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "id",
    [
        "%00",
        "%0a",
        "%2e%2e",
        "..",
        "s_%ff",
        "s_" + "x" * 20_000,
        "%F0%9F%92%A9",
        "s_1;a=b",
        "*",
        "s_'\"<>",
    ],
)
def test_an_id_that_is_nobodys_is_not_found(shared: Live, id: str) -> None:
    for method, rest in [("GET", ""), ("DELETE", ""), ("GET", "/stream"), ("POST", "/cancel"), ("GET", "/calls")]:
        assert refusal(shared.client.request(method, f"/sessions/{id}{rest}")) == (404, "NOT_FOUND")


def test_a_path_with_an_empty_id_is_not_found(shared: Live) -> None:
    assert refusal(shared.client.get("/sessions//stream")) == (404, "NOT_FOUND")
    assert refusal(shared.client.get("/sessions/")) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"callId":"c_1"}',
        b'{"callId":1,"ok":true}',
        b'{"callId":"","ok":true}',
        b'{"callId":"c_1","ok":"yes"}',
        b'{"callId":"c_1","ok":true,"error":{"message":"x"}}',
        b'{"callId":"c_1","ok":false}',
        b'{"callId":"c_1","ok":false,"error":{}}',
        b'{"callId":"c_1","ok":false,"error":{"message":1}}',
    ],
)
def test_a_tool_result_that_is_none_is_refused(live: Live, body: bytes) -> None:
    live.run("return 1", sessionId="s_1")
    response = live.client.post("/sessions/s_1/tool-result", content=body, headers=JSON)
    assert refusal(response) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"reason":1}', b'{"reason":"' + b"x" * 2_000 + b'"}', b"\xff"])
def test_a_cancel_whose_body_is_wrong_changes_nothing(live: Live, gate: asyncio.Event, body: bytes) -> None:
    with live.streaming("return await tools.wait({})") as stream:
        stream.next("tool_call")
        response = live.client.post(f"/sessions/{stream.id}/cancel", content=body)
        assert refusal(response) == (400, "INVALID_REQUEST")
        live.do(gate.set)
        assert stream.next("final")["payload"]["ok"] is True


def test_code_that_is_too_large_ends_as_the_protocol_says() -> None:
    with serving(memory_broker(limits=SessionLimits(max_code_bytes=1_000))) as live:
        assert final(live.post("//" + "x" * 2_000))["error"]["code"] == "CODE_TOO_LARGE"


def test_halves_of_surrogate_pairs_do_no_harm(live: Live) -> None:
    response = post(live, rb'{"code":"console.log(\"\\ud800\"); return \"\ud800\""}')
    assert final(response)["ok"] is True


def test_two_posts_of_one_id_at_once_are_one_session(live: Live, gate: asyncio.Event) -> None:
    def begin(_: int) -> list[dict[str, Any]]:
        return live.run("return await tools.wait({})", sessionId="s_mine")

    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(begin, range(8))
        live.until(lambda: live.broker.sessions.get("s_mine"))
        live.do(gate.set)
        first, *others = answers
    assert all(other == first for other in others)
    assert sum(event["type"] == "tool_call" for event in first) == 1


def test_two_different_posts_of_one_id_at_once_are_one_session_and_refusals(live: Live) -> None:
    def begin(number: int) -> httpx.Response:
        return live.post(f"return {number}", sessionId="s_mine")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(begin, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


def test_what_does_not_begin_leaves_no_session_behind(live: Live) -> None:
    live.post("return 1", language="cobol", sessionId="s_mine")
    live.post("return 1", allowedTools=["[a"], sessionId="s_mine")
    assert live.client.get("/sessions").json()["total"] == 0
    assert final(live.post("return 1", sessionId="s_mine"))["ok"] is True


def test_a_server_that_is_full_says_when_to_come_again(shop: Broker, gate: asyncio.Event) -> None:
    shop.sessions = SessionManager(max_concurrent_sessions=1)
    with serving(shop) as live, live.streaming("return await tools.wait({})") as stream:
        stream.next("tool_call")
        response = live.post("return 1")
        assert refusal(response) == (503, "OVERLOADED")
        assert int(response.headers["retry-after"]) >= 1
        live.do(gate.set)
        stream.rest()
        assert final(live.post("return 1"))["ok"] is True


def test_a_failure_that_nobody_foresaw_is_answered_without_detail(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(live.broker.sessions, "list_for", fail)
    response = live.client.get("/sessions")
    assert refusal(response) == (500, "INTERNAL_ERROR")
    assert set(response.json()) == {"code", "message"}
    assert "hunter2" not in response.text
    error_id = response.json()["message"].rpartition(" ")[2].rstrip(")")
    assert error_id in caplog.text
    assert "hunter2" in caplog.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["config", "limits", "filter", "encryption", "protocolVersion", "language", "allowedTools", "metadata"]


@given(
    fields=st.dictionaries(st.sampled_from([*FIELDS, "sessionId", "detach", "stream", "x"]), json_values, max_size=4)
)
def test_any_fields_get_an_answer(shared: Live, fields: dict[str, Any]) -> None:
    response = post(shared, json.dumps(fields | {"code": "return 1"}).encode())
    if response.status_code == 200:
        shared.client.delete(f"/sessions/{response.headers['x-session-id']}")
    else:
        assert refusal(response) in {(400, "INVALID_REQUEST"), (400, "INVALID_FILTER")}


@given(body=st.binary(max_size=200))
def test_any_bytes_get_an_answer(shared: Live, body: bytes) -> None:
    assert refusal(post(shared, body)) == (400, "INVALID_REQUEST")
    assert refusal(shared.client.post("/sessions/s_1/cancel", content=body)) == (404, "NOT_FOUND")


def test_nothing_is_left_of_what_was_refused(shared: Live) -> None:
    assert events(shared.post("return 1"))[-1]["payload"]["ok"] is True

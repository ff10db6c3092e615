"""Every line of the protocol's table of endpoints, as far as it is about sessions."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from enclave_broker import SessionLimits
from tests.http.live import Live, events, final, memory_broker, refusal, serving

GONE = "s_there-is-none"
WAIT = "console.log('begun'); return await tools.wait({})"


# -- POST /sessions --------------------------------------------------------------------------------------------------


def test_post_sessions_streams_the_run_as_ndjson_with_its_headers(live: Live) -> None:
    response = live.post("console.log('hi'); return 1 + 1")
    got = events(response)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["cache-control"] == "no-cache"
    assert re.fullmatch("s_[0-9a-f-]{36}", response.headers["x-session-id"])
    assert [event["type"] for event in got] == ["session_init", "stdout", "final"]
    assert [event["seq"] for event in got] == [1, 2, 3]
    assert {event["sessionId"] for event in got} == {response.headers["x-session-id"]}
    assert {event["protocolVersion"] for event in got} == {2}
    assert got[0]["payload"]["cancelUrl"] == f"/sessions/{response.headers['x-session-id']}/cancel"
    assert got[-1]["payload"]["ok"] is True
    assert got[-1]["payload"]["result"] == 2


def test_post_sessions_sends_events_while_the_script_runs(live: Live, gate: asyncio.Event) -> None:
    with live.streaming(WAIT) as stream:
        assert stream.next("stdout")["payload"]["chunk"] == "begun\n"
        assert stream.next("tool_call")["payload"]["toolName"] == "wait"
        live.do(gate.set)
        assert stream.next("final")["payload"]["result"] == "waited"
        assert stream.rest() == []


def test_post_sessions_takes_what_the_existing_client_sends(live: Live) -> None:
    config = {"maxExecutionMs": 30_000, "maxToolCalls": 1, "heartbeatIntervalMs": 10_000}
    got = live.run(
        "await tools.orders.get({ id: 1 }); await tools.orders.get({ id: 2 })", sessionId="s_mine", config=config
    )
    assert got[0]["sessionId"] == "s_mine"
    assert got[-1]["payload"]["error"]["code"] == "MAX_TOOL_CALLS"


def test_post_sessions_lowers_a_limit_to_the_operators() -> None:
    with serving(memory_broker(limits=SessionLimits(max_stdout_bytes=10))) as live:
        last = final(live.post("console.log('x'.repeat(100))", limits={"maxStdoutBytes": 1_000_000}))
        assert last["error"]["code"] == "STDOUT_LIMIT"


def test_post_sessions_narrows_the_tools_to_allowed_tools(live: Live) -> None:
    code = "await tools.orders.get({ id: 1 }); return await tools.whoami({})"
    assert final(live.post(code, allowedTools=["orders:*"]))["error"]["code"] == "TOOL_NOT_ALLOWED"
    assert final(live.post(code, allowedTools=["orders:*", "whoami"]))["ok"] is True


def test_post_sessions_hands_metadata_to_tools_as_labels(live: Live) -> None:
    got = final(live.post("return await tools.label({})", metadata={"ticket": "T-7"}))
    assert got["result"] == "T-7"


def test_post_sessions_takes_a_language_that_is_here(live: Live) -> None:
    assert final(live.post("return 1", language="javascript"))["result"] == 1
    assert refusal(live.post("return 1", language="cobol")) == (400, "INVALID_REQUEST")


def test_post_sessions_sends_only_what_its_filter_lets_pass(live: Live) -> None:
    filter = {"mode": "include", "rules": [{"types": {"types": ["stdout"]}}]}
    got = live.run("console.log(1); console.warn(2); console.log(3)", filter=filter)
    assert [(event["seq"], event["type"]) for event in got] == [
        (1, "session_init"),
        (2, "stdout"),
        (4, "stdout"),
        (5, "final"),
    ]


def test_post_sessions_that_accepts_an_event_stream_gets_one_with_ids(live: Live) -> None:
    response = live.post("return 1", headers={"Accept": "text/event-stream"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    frames = response.text.split("\n\n")
    assert frames.pop() == ""
    assert [re.fullmatch(r'id: (\d+)\ndata: \{.*"type":"(\w+)".*\}', frame) is not None for frame in frames] == [
        True,
        True,
    ]
    assert frames[0].startswith("id: 1\n")


@pytest.mark.parametrize(
    ("accept", "fields"),
    [
        (None, {"stream": False}),
        ("application/x-ndjson", {"stream": False}),
        ("application/json", {}),
        ("application/json;q=0.9, text/event-stream", {}),
        ("text/html, APPLICATION/JSON", {}),
        ("application/json, */*;q=0", {}),
    ],
)
def test_post_sessions_answers_with_one_object_when_asked_to(
    live: Live, accept: str | None, fields: dict[str, Any]
) -> None:
    response = live.post("console.log('x'); return { n: 1 }", headers={"Accept": accept or "*/*"}, **fields)
    body = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-session-id"] == body["sessionId"]
    assert body.pop("sessionId").startswith("s_")
    assert body.pop("stats")["stdoutBytes"] == 2
    assert body == {"ok": True, "result": {"n": 1}}


@pytest.mark.parametrize(
    ("accept", "fields"),
    [
        ("application/json, text/plain, */*", {}),  # axios
        ("application/json, application/x-ndjson", {}),
        ("*/*", {}),
        ("", {}),
        ("application/json", {"stream": True}),
        ("application/json;q=0", {}),
    ],
)
def test_post_sessions_streams_unless_asked_for_one_object(live: Live, accept: str, fields: dict[str, Any]) -> None:
    response = live.post("return 1", headers={"Accept": accept}, **fields)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert events(response)[-1]["type"] == "final"


def test_one_object_comes_with_200_when_the_script_fails(live: Live) -> None:
    response = live.post("throw new Error('no')", stream=False)
    assert response.status_code == 200
    assert response.json()["ok"] is False
    assert response.json()["error"]["message"] == "no"


def test_one_object_of_undefined_has_no_result(live: Live) -> None:
    assert "result" not in live.post("console.log(1)", stream=False).json()


def test_the_same_id_and_body_again_is_the_same_session(live: Live, gate: asyncio.Event) -> None:
    with live.streaming(WAIT, sessionId="s_mine") as first:
        first.next("tool_call")
        with live.streaming(WAIT, sessionId="s_mine") as second:
            assert second.next()["seq"] == 1
            live.do(gate.set)
            assert second.next("final") == first.next("final")
    again = live.post(WAIT, sessionId="s_mine")
    assert [event["seq"] for event in events(again)] == list(range(1, len(events(again)) + 1))
    assert sum(event["type"] == "tool_call" for event in events(again)) == 1


def test_the_same_id_with_another_body_is_refused(live: Live) -> None:
    live.run("return 1", sessionId="s_mine")
    assert refusal(live.post("return 2", sessionId="s_mine")) == (409, "SESSION_EXISTS")
    assert refusal(live.post("return 1", sessionId="s_mine", stream=True)) == (409, "SESSION_EXISTS")


def test_a_run_goes_on_when_its_client_leaves(live: Live, gate: asyncio.Event) -> None:
    with live.streaming(WAIT) as stream:
        id, last = stream.id, stream.next("tool_call")["seq"]
    live.do(gate.set)
    with live.following(id, f"?fromSeq={last + 1}") as stream:
        rest = stream.rest()
    assert [event["seq"] for event in rest] == list(range(last + 1, last + 1 + len(rest)))
    assert rest[-1]["payload"]["result"] == "waited"


# -- GET /sessions ---------------------------------------------------------------------------------------------------


def test_get_sessions_lists_them_oldest_first_with_their_number(live: Live) -> None:
    for id in ("s_a", "s_b", "s_c"):
        live.run("return 1", sessionId=id)
    got = live.client.get("/sessions").json()
    assert [session["sessionId"] for session in got["sessions"]] == ["s_a", "s_b", "s_c"]
    assert got["total"] == 3


def test_get_sessions_filters_by_state(live: Live) -> None:
    live.run("return 1", sessionId="s_good")
    live.run("throw 1", sessionId="s_bad")
    got = live.client.get("/sessions?state=failed").json()
    assert [session["sessionId"] for session in got["sessions"]] == ["s_bad"]
    assert got["total"] == 1


def test_get_sessions_comes_in_pages(live: Live) -> None:
    for number in range(5):
        live.run("return 1", sessionId=f"s_{number}")
    pages: list[list[str]] = []
    after = ""
    while len(pages) < 4:
        got = live.client.get(f"/sessions?limit=2{after}").json()
        assert got["total"] == 5
        pages.append([session["sessionId"] for session in got["sessions"]])
        after = f"&after={pages[-1][-1]}" if pages[-1] else after
    assert pages == [["s_0", "s_1"], ["s_2", "s_3"], ["s_4"], []]


# -- GET /sessions/{id} ----------------------------------------------------------------------------------------------


def test_get_session_tells_its_state_and_times(live: Live, gate: asyncio.Event) -> None:
    with live.streaming(WAIT, sessionId="s_mine") as stream:
        stream.next("tool_call")
        live.until(lambda: live.session("s_mine").state == "waiting_for_tool")
        got = live.client.get("/sessions/s_mine").json()
        assert set(got) == {"sessionId", "state", "createdAt", "expiresAt", "stats"}
        assert set(got["stats"]) == {"duration", "toolCallCount"}
        assert (got["sessionId"], got["state"]) == ("s_mine", "waiting_for_tool")
        assert got["stats"]["toolCallCount"] == 1
        numbers = [got["createdAt"], got["expiresAt"], got["stats"]["duration"]]
        assert all(type(number) is int for number in numbers)
        assert got["createdAt"] < got["expiresAt"]
        live.do(gate.set)
        stream.rest()
    over = live.client.get("/sessions/s_mine").json()
    assert over["state"] == "completed"
    assert live.client.get("/sessions/s_mine").json()["stats"] == over["stats"]


def test_get_session_of_one_that_is_not_there_is_404(live: Live) -> None:
    assert refusal(live.client.get(f"/sessions/{GONE}")) == (404, "NOT_FOUND")


# -- GET /sessions/{id}/stream ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["from", "fromSeq"])
def test_get_stream_replays_from_the_wanted_event(live: Live, name: str) -> None:
    whole = live.run("console.log(1); console.log(2)", sessionId="s_mine")
    response = live.client.get(f"/sessions/s_mine/stream?{name}=3")
    assert events(response) == whole[2:]
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-session-id"] == "s_mine"


@pytest.mark.parametrize(
    "query", ["", "?fromSeq=", "?fromSeq=x", "?from=-1", "?fromSeq=NaN", "?from=0", "?fromSeq=1.9"]
)
def test_get_stream_replays_all_for_an_odd_number(live: Live, query: str) -> None:
    whole = live.run("console.log(1)", sessionId="s_mine")
    assert events(live.client.get(f"/sessions/s_mine/stream{query}")) == whole


@pytest.mark.parametrize("number", ["99", "9" * 30, "9" * 5_000])
def test_get_stream_from_past_the_end_is_empty(live: Live, number: str) -> None:
    live.run("return 1", sessionId="s_mine")
    assert events(live.client.get(f"/sessions/s_mine/stream?fromSeq={number}")) == []


def test_get_stream_goes_on_live_to_the_final(live: Live, gate: asyncio.Event) -> None:
    with live.streaming(WAIT) as first:
        first.next("tool_call")
        with live.following(first.id) as second:
            assert second.next()["type"] == "session_init"
            live.do(gate.set)
            assert second.rest()[-1]["type"] == "final"


def test_get_stream_takes_a_filter_as_json(live: Live) -> None:
    live.run("console.log(1); console.warn(2)", sessionId="s_mine")
    filter = '{"mode":"exclude","rules":[{"types":{"types":["log"]}}]}'
    got = events(live.client.get("/sessions/s_mine/stream", params={"filter": filter}))
    assert [event["seq"] for event in got] == [1, 2, 4]


@pytest.mark.parametrize(
    "filter", ["{", "[]", '{"mode":"x","rules":[]}', '"a"', '{"mode":"include","rules":[{"x":1}]}']
)
def test_get_stream_refuses_a_filter_that_is_none(live: Live, filter: str) -> None:
    live.run("return 1", sessionId="s_mine")
    response = live.client.get("/sessions/s_mine/stream", params={"filter": filter})
    assert refusal(response) == (400, "INVALID_FILTER")


def test_get_stream_as_an_event_stream_goes_on_after_last_event_id(live: Live) -> None:
    live.run("console.log(1)", sessionId="s_mine")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    response = live.client.get("/sessions/s_mine/stream", headers=headers)
    assert re.findall(r"^id: (\d+)$", response.text, re.MULTILINE) == ["2", "3"]


def test_an_event_source_that_has_seen_all_is_told_not_to_ask_again(live: Live) -> None:
    live.run("return 1", sessionId="s_mine")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "2"}
    assert live.client.get("/sessions/s_mine/stream", headers=headers).status_code == 204


def test_get_stream_of_a_session_that_is_not_there_is_404(live: Live) -> None:
    assert refusal(live.client.get(f"/sessions/{GONE}/stream")) == (404, "NOT_FOUND")


def test_head_of_a_stream_is_answered_at_once(live: Live) -> None:
    with live.streaming(WAIT) as stream:
        response = live.client.head(f"/sessions/{stream.id}/stream")
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"] == "application/x-ndjson"


# -- POST /sessions/{id}/cancel --------------------------------------------------------------------------------------


def test_post_cancel_ends_the_run_with_the_reason_as_the_existing_client_sends_it(live: Live) -> None:
    with live.streaming(WAIT) as stream:
        stream.next("tool_call")
        headers = {"Content-Type": "text/plain;charset=UTF-8"}
        response = live.client.post(f"/sessions/{stream.id}/cancel", content='{"reason":"enough"}', headers=headers)
        assert (response.status_code, response.json()) == (200, {"success": True})
        error = stream.next("final")["payload"]["error"]
    assert error["code"] == "SESSION_CANCELLED"
    assert "enough" in error["message"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"reason":null}'])
def test_post_cancel_needs_no_reason_and_no_content_type(live: Live, body: bytes) -> None:
    with live.streaming(WAIT) as stream:
        stream.next("tool_call")
        assert live.client.post(f"/sessions/{stream.id}/cancel", content=body).json() == {"success": True}
        assert stream.next("final")["payload"]["error"]["code"] == "SESSION_CANCELLED"


def test_post_cancel_of_a_session_that_is_over_changes_nothing(live: Live) -> None:
    whole = live.run("return 1", sessionId="s_mine")
    assert live.client.post("/sessions/s_mine/cancel").json() == {"success": True}
    assert events(live.client.get("/sessions/s_mine/stream")) == whole


def test_post_cancel_of_a_session_that_is_not_there_is_404(live: Live) -> None:
    assert refusal(live.client.post(f"/sessions/{GONE}/cancel")) == (404, "NOT_FOUND")


# -- DELETE /sessions/{id} -------------------------------------------------------------------------------------------


def test_delete_session_cancels_what_runs_and_forgets_it(live: Live) -> None:
    with live.streaming(WAIT) as stream:
        stream.next("tool_call")
        response = live.client.delete(f"/sessions/{stream.id}")
        assert (response.status_code, response.json()) == (200, {"success": True, "sessionId": stream.id})
        assert stream.next("final")["payload"]["error"]["code"] == "SESSION_CANCELLED"
        assert stream.rest() == []
        assert refusal(live.client.get(f"/sessions/{stream.id}")) == (404, "NOT_FOUND")


def test_delete_session_twice_is_404(live: Live) -> None:
    live.run("return 1", sessionId="s_mine")
    assert live.client.delete("/sessions/s_mine").status_code == 200
    assert refusal(live.client.delete("/sessions/s_mine")) == (404, "NOT_FOUND")


def test_an_id_is_free_again_after_delete(live: Live) -> None:
    live.run("return 1", sessionId="s_mine")
    live.client.delete("/sessions/s_mine")
    assert final(live.post("return 2", sessionId="s_mine"))["result"] == 2

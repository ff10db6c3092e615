"""Section "Endpoints": what is asked about sessions, their streams and their ends."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from enclave_broker import Principal
from tests.http.live import Live
from tests.protocol.client import Enclave, hold, refusal, unique
from tests.protocol.schema import Sessions
from tests.protocol.streams import Json, sse_events_of

# -- GET /sessions ---------------------------------------------------------------------------------------------------


def listed(enclave: Enclave, query: str = "") -> Json:
    response = enclave.get(f"/sessions{query}")
    assert response.status_code == 200
    Sessions.model_validate_json(response.content)
    return response.json()


def test_get_sessions_has_infos_and_their_total(bob: Enclave) -> None:
    runs = [bob.run(code) for code in ("return 1", "throw 1")]
    got = listed(bob)
    assert got["sessions"][-2:] == [bob.info(run.id) for run in runs]
    assert got["total"] == len(got["sessions"])


def test_get_sessions_is_filtered_by_state(ann: Enclave) -> None:
    done, failed = ann.run("return 1").id, ann.run("throw 1").id
    got = listed(ann, "?state=failed&limit=1000")
    ids = [info["sessionId"] for info in got["sessions"]]
    assert failed in ids
    assert done not in ids
    assert {info["state"] for info in got["sessions"]} == {"failed"}
    assert got["total"] == len(ids)


def test_get_sessions_comes_in_pages(ann: Enclave) -> None:
    before = ann.run("return 1").id
    ids = [ann.run("return 1").id for _ in range(3)]
    pages = [
        [info["sessionId"] for info in listed(ann, f"?limit=2&after={after}")["sessions"]] for after in (before, ids[1])
    ]
    assert pages == [ids[:2], ids[2:]]


# -- GET /sessions/{id} ----------------------------------------------------------------------------------------------


def test_get_session_has_exactly_the_info_with_integer_times(enclave: Enclave) -> None:
    info = enclave.info(enclave.run("await tools.orders.get({ id: 1 })").id)  # schema.Info: these fields and no other
    assert info["stats"]["toolCallCount"] == 1
    assert 1_600_000_000_000 < info["createdAt"] < info["expiresAt"] < 10_000_000_000_000


def test_get_session_says_starting_before_there_is_code(town: Live, ann: Enclave) -> None:
    async def make() -> str:
        return (await town.broker.create_session(principal=Principal("ann"))).id

    assert ann.info(town.call(make))["state"] == "starting"


def test_get_session_says_running(enclave: Enclave) -> None:
    with enclave.watching("for (;;);") as watch:
        enclave.until(watch.id, lambda info: info["state"] == "running")
        enclave.cancel(watch.id)
        watch.end()


def test_get_session_says_waiting_for_tool(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as watch:
        watch.next("tool_call")
        enclave.until(watch.id, lambda info: info["state"] == "waiting_for_tool")
        enclave.open(key)
        watch.end()


def test_get_session_says_cancelled(enclave: Enclave) -> None:
    with enclave.watching(hold(unique("gate"))) as watch:
        watch.next("tool_call")
        enclave.cancel(watch.id)
        watch.end()
    assert enclave.info(watch.id)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("code", "state"), [("return 1", "completed"), ("throw 1", "failed"), ("return 1 +", "failed")]
)
def test_get_session_says_how_it_ended(enclave: Enclave, code: str, state: str) -> None:
    assert enclave.info(enclave.run(code).id)["state"] == state


def test_duration_grows_and_stops_at_the_end(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as watch:
        first = enclave.info(watch.id)["stats"]["duration"]
        enclave.until(watch.id, lambda info: info["stats"]["duration"] > first + 20)
        enclave.open(key)
        watch.end()
    over = enclave.info(watch.id)
    enclave.run("await sleep(30)")
    assert enclave.info(watch.id) == over


def test_get_session_of_none_is_404_not_found(enclave: Enclave) -> None:
    assert refusal(enclave.get("/sessions/s_none")) == (404, "NOT_FOUND")


# -- GET /sessions/{id}/stream ---------------------------------------------------------------------------------------

SAYS = "for (let i = 1; i <= 4; i++) console.log(i)"


@pytest.mark.parametrize("name", ["fromSeq", "from"])
@pytest.mark.parametrize("number", [1, 2, 4, 6])
def test_get_stream_replays_from_from_seq_inclusive_and_from_means_the_same(
    enclave: Enclave, name: str, number: int
) -> None:
    run = enclave.run(SAYS)
    assert enclave.replay(run.id, f"?{name}={number}", first=number).events == run.events[number - 1 :]


@pytest.mark.parametrize("odd", ["", "0", "-1", "x", "1.5", "NaN", "null", "undefined", "%00"])
@pytest.mark.parametrize("name", ["fromSeq", "from"])
def test_an_odd_from_seq_counts_as_0(enclave: Enclave, name: str, odd: str) -> None:
    run = enclave.run("console.log(1)")
    assert enclave.replay(run.id, f"?{name}={odd}").events == run.events


def test_get_stream_without_from_seq_replays_all(enclave: Enclave) -> None:
    run = enclave.run("console.log(1)")
    assert enclave.replay(run.id).events == run.events


def test_get_stream_goes_on_live_to_the_final(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as first:
        first.next("tool_call")
        with enclave.following(first.id, "?from=2", first=2) as second:
            assert second.next()["chunk"] == "begun\n"
            enclave.open(key)
            assert second.end().events == first.end().events[1:]


def test_a_client_that_lost_its_connection_asks_for_its_last_seq_plus_1(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as watch:
        watch.next("tool_call")
    last = watch.events[-1]["seq"]
    with enclave.following(watch.id, f"?from={last + 1}", first=last + 1) as again:
        enclave.open(key)
        rest = again.end()
    assert watch.events + rest.events == enclave.replay(watch.id).events


def test_get_stream_takes_a_filter_as_url_encoded_json(enclave: Enclave) -> None:
    run = enclave.run("console.log(1); console.warn(2); console.log(3)")
    filter = json.dumps({"mode": "exclude", "rules": [{"types": {"types": ["log"]}}]})
    response = enclave.get(f"/sessions/{run.id}/stream", params={"filter": filter, "from": 2})
    got = [json.loads(line) for line in response.content.split(b"\n")[:-1]]
    assert got == [event for event in run.events[1:] if event["type"] != "log"]


def test_get_stream_of_none_is_404_not_found(enclave: Enclave) -> None:
    assert refusal(enclave.get("/sessions/s_none/stream")) == (404, "NOT_FOUND")


def test_get_stream_as_sse_has_seq_as_id_and_goes_on_after_last_event_id(enclave: Enclave) -> None:
    run = enclave.run(SAYS)
    sse = {"Accept": "text/event-stream"}
    assert sse_events_of(enclave.get(f"/sessions/{run.id}/stream", headers=sse)) == run.events
    after = enclave.get(f"/sessions/{run.id}/stream", headers={**sse, "Last-Event-ID": "3"})
    assert sse_events_of(after) == run.events[3:]


def test_get_stream_as_sse_honours_from_and_filter(enclave: Enclave) -> None:
    run = enclave.run(SAYS)
    filter = json.dumps({"mode": "include", "rules": [{"types": {"types": ["stdout"]}}]})
    params: dict[str, Any] = {"from": 4, "filter": filter}
    response = enclave.get(f"/sessions/{run.id}/stream", headers={"Accept": "text/event-stream"}, params=params)
    assert sse_events_of(response) == run.events[3:]


def test_a_live_sse_stream_is_sent_event_by_event_to_the_final(enclave: Enclave) -> None:
    key = unique("gate")
    body = {"code": hold(key)}
    with enclave.http.stream("POST", "/sessions", json=body, headers={"Accept": "text/event-stream"}) as response:
        got = b""
        chunks = response.iter_bytes()
        while b'"processing"' not in got:
            got += next(chunks)
        enclave.open(key)
        got += b"".join(chunks)
    assert re.findall(rb"^id: (\d+)$", got, re.MULTILINE)[-1] == b"%d" % got.count(b"\n\n")
    assert b'"type":"final"' in got


# -- POST /sessions/{id}/cancel --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"reason":"enough"}', "text/plain;charset=UTF-8"),
        ('{"reason":"enough"}', "application/json"),
        ("{}", "text/plain;charset=UTF-8"),
        ("", "text/plain;charset=UTF-8"),
        ("", None),
    ],
)
def test_post_cancel_takes_a_reason_as_text_plain_and_answers_success(
    enclave: Enclave, body: str, kind: str | None
) -> None:
    with enclave.watching(hold(unique("gate"))) as watch:
        watch.next("tool_call")
        headers = {"Content-Type": kind} if kind else {}
        response = enclave.request("POST", f"/sessions/{watch.id}/cancel", content=body, headers=headers)
        assert (response.status_code, response.json()) == (200, {"success": True})
        error = watch.end().error
    assert error["code"] == "SESSION_CANCELLED"
    assert ("enough" in error["message"]) == ("enough" in body)


def test_post_cancel_of_a_run_that_is_over_changes_nothing(enclave: Enclave) -> None:
    run = enclave.run("return 1")
    assert enclave.cancel(run.id).json() == {"success": True}
    assert enclave.replay(run.id).events == run.events
    assert enclave.info(run.id)["state"] == "completed"


def test_post_cancel_of_none_is_404_not_found(enclave: Enclave) -> None:
    assert refusal(enclave.cancel("s_none")) == (404, "NOT_FOUND")


# -- DELETE /sessions/{id} -------------------------------------------------------------------------------------------


def test_delete_cancels_what_runs_then_forgets_it(enclave: Enclave) -> None:
    with enclave.watching(hold(unique("gate"))) as watch:
        watch.next("tool_call")
        response = enclave.request("DELETE", f"/sessions/{watch.id}")
        assert (response.status_code, response.json()) == (200, {"success": True, "sessionId": watch.id})
        assert watch.end().code == "SESSION_CANCELLED"
    for path in ("", "/stream", "/calls"):
        assert refusal(enclave.get(f"/sessions/{watch.id}{path}")) == (404, "NOT_FOUND")


def test_delete_forgets_what_is_over(enclave: Enclave) -> None:
    run = enclave.run("return 1")
    response = enclave.request("DELETE", f"/sessions/{run.id}")
    assert (response.status_code, response.json()) == (200, {"success": True, "sessionId": run.id})
    assert refusal(enclave.get(f"/sessions/{run.id}")) == (404, "NOT_FOUND")


def test_delete_of_none_is_404_not_found(enclave: Enclave) -> None:
    run = enclave.run("return 1")
    assert enclave.request("DELETE", f"/sessions/{run.id}").status_code == 200
    assert refusal(enclave.request("DELETE", f"/sessions/{run.id}")) == (404, "NOT_FOUND")
    assert refusal(enclave.request("DELETE", "/sessions/s_none")) == (404, "NOT_FOUND")

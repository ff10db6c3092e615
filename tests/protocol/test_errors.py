"""Section "Endpoints", its errors: always JSON with code and message, each status provoked."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from enclave_broker import Principal, Session, SessionManager
from tests.http.live import Live, serving
from tests.protocol import shop
from tests.protocol.client import Enclave, hold, refusal, refused_field, unique
from tests.protocol.codes import HTTP_CODES, HTTP_LATER
from tests.protocol.schema import Refusal

JSON = {"Content-Type": "application/json"}
PROVOKED = {
    *("INVALID_REQUEST", "INVALID_FILTER", "UNAUTHENTICATED", "FORBIDDEN", "NOT_FOUND", "SESSION_EXISTS"),
    *("PAYLOAD_TOO_LARGE", "UNKNOWN_CALL", "RATE_LIMITED", "OVERLOADED", "SHUTTING_DOWN", "NOT_RUNNING"),
    "INTERNAL_ERROR",
}
ROUTES = [
    ("GET", "/sessions/ID"),
    ("GET", "/sessions/ID/stream"),
    ("POST", "/sessions/ID/cancel"),
    ("POST", "/sessions/ID/tool-result"),
    ("GET", "/sessions/ID/calls"),
    ("DELETE", "/sessions/ID"),
]


def test_every_code_is_provoked_here_or_comes_later() -> None:
    assert HTTP_CODES - HTTP_LATER.keys() - {"APPROVAL_DECIDED"} == PROVOKED  # it is test_governed_codes.py's


def asking(enclave: Enclave, method: str, path: str) -> httpx.Response:
    body = {"callId": "c_1", "ok": True} if path.endswith("tool-result") else None
    return enclave.request(method, path, json=body)


# -- 4xx -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"return 1"', b"\xff", b'{"code":NaN}'])
def test_a_body_that_is_no_object_is_400_invalid_request(enclave: Enclave, body: bytes) -> None:
    response = enclave.request("POST", "/sessions", content=body, headers=JSON)
    assert refusal(response) == (400, "INVALID_REQUEST")


def test_400_says_in_its_details_which_field_and_why(enclave: Enclave) -> None:
    response = enclave.post("return 1", sessionId="mine")
    assert refused_field(response) == "sessionId"
    (detail,) = response.json()["details"]
    assert set(detail) == {"type", "field", "reason"}


@pytest.mark.parametrize("filter", ["{", "[]", "1", '{"mode":"some"}', '{"mode":"include","rules":[{"types":1}]}'])
def test_a_filter_in_the_query_that_is_none_is_400_invalid_filter(enclave: Enclave, filter: str) -> None:
    run = enclave.run("return 1")
    response = enclave.get(f"/sessions/{run.id}/stream", params={"filter": filter})
    assert refusal(response) == (400, "INVALID_FILTER")


@pytest.mark.parametrize("headers", [{}, {"X-User": "nobody"}])
def test_who_is_not_known_is_401_unauthenticated(town: Live, headers: dict[str, str]) -> None:
    stranger = Enclave(town.client, headers)
    assert refusal(stranger.post("return 1")) == (401, "UNAUTHENTICATED")
    for method, path in [("GET", "/sessions"), ("GET", "/code/actions"), *ROUTES]:
        assert refusal(asking(stranger, method, path)) == (401, "UNAUTHENTICATED")


def test_who_may_not_is_403_forbidden(town: Live) -> None:
    assert refusal(Enclave(town.client, {"X-User": "banned"}).post("return 1")) == (403, "FORBIDDEN")


def test_a_page_of_another_origin_is_403_forbidden(enclave: Enclave) -> None:
    response = enclave.post("return 1", headers={"Origin": "https://evil.example"})
    assert refusal(response) == (403, "FORBIDDEN")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_session_that_is_not_there_is_404_not_found(enclave: Enclave, method: str, path: str) -> None:
    assert refusal(asking(enclave, method, path.replace("ID", "s_none"))) == (404, "NOT_FOUND")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_somebody_elses_session_is_404_with_the_same_words(ann: Enclave, bob: Enclave, method: str, path: str) -> None:
    run = ann.run("return 1")
    foreign = asking(bob, method, path.replace("ID", run.id))
    unknown = asking(bob, method, path.replace("ID", "s_" + "0" * (len(run.id) - 2)))
    assert refusal(foreign) == (404, "NOT_FOUND")
    assert foreign.content == unknown.content
    assert ann.info(run.id)["state"] == "completed"


def test_somebody_elses_session_is_in_no_list(ann: Enclave, bob: Enclave) -> None:
    run = ann.run("return 1")
    assert run.id not in bob.get("/sessions?limit=1000").text


@pytest.mark.parametrize("path", ["/", "/nothing", "/sessions/s_1/nothing", "/code"])
def test_a_path_that_is_not_there_is_404_not_found(enclave: Enclave, path: str) -> None:
    assert refusal(enclave.get(path)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/sessions"), ("DELETE", "/sessions"), ("POST", "/sessions/s_1"), ("GET", "/sessions/s_1/cancel")],
)
def test_another_method_is_405(enclave: Enclave, method: str, path: str) -> None:
    assert refusal(enclave.request(method, path))[0] == 405


def test_an_id_that_is_taken_is_409_session_exists(enclave: Enclave) -> None:
    id = unique()
    enclave.run("return 1", sessionId=id)
    assert refusal(enclave.post("return 2", sessionId=id)) == (409, "SESSION_EXISTS")


def test_a_body_that_is_too_large_is_413_payload_too_large(enclave: Enclave) -> None:
    assert refusal(enclave.post("return 1", metadata={"a": "x" * 5_000_000})) == (413, "PAYLOAD_TOO_LARGE")


def test_a_body_that_is_not_json_is_415(enclave: Enclave) -> None:
    headers = {"Content-Type": "text/plain"}
    response = enclave.request("POST", "/sessions", content=b'{"code":"return 1"}', headers=headers)
    assert refusal(response)[0] == 415


def test_a_result_for_a_call_that_nobody_made_is_404_unknown_call(enclave: Enclave) -> None:
    run = enclave.run("return 1")
    assert refusal(asking(enclave, "POST", f"/sessions/{run.id}/tool-result")) == (404, "UNKNOWN_CALL")


def test_a_result_for_a_tool_that_the_host_executes_is_409(enclave: Enclave) -> None:
    key = unique("gate")
    with enclave.watching(hold(key)) as watch:
        body = {"callId": watch.next("tool_call")["callId"], "ok": True, "result": "forged"}
        assert refusal(enclave.request("POST", f"/sessions/{watch.id}/tool-result", json=body))[0] == 409
        enclave.open(key)
        assert watch.end().result == "waited"


def test_who_asks_too_often_is_429_rate_limited_with_retry_after(town: Live) -> None:
    response = Enclave(town.client, {"X-User": "many"}).post("return 1")
    assert refusal(response) == (429, "RATE_LIMITED")
    assert int(response.headers["retry-after"]) >= 1


# -- 5xx -------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_full_is_503_overloaded_with_retry_after() -> None:
    with serving(shop.make(sessions=SessionManager(max_concurrent_sessions=1))) as live:
        enclave, key = Enclave(live.client), unique("gate")
        with enclave.watching(hold(key)) as watch:
            watch.next("tool_call")
            response = enclave.post("return 1")
            assert refusal(response) == (503, "OVERLOADED")
            assert int(response.headers["retry-after"]) >= 1
            live.do(live.broker.shut_down)
            watch.end()


def test_a_server_that_ends_is_503_shutting_down() -> None:
    with serving(shop.make()) as live:
        live.do(live.broker.shut_down)
        assert refusal(Enclave(live.client).post("return 1")) == (503, "SHUTTING_DOWN")


def test_an_application_whose_broker_does_not_run_is_503_not_running() -> None:
    broker = shop.make()
    app = Starlette(routes=[Mount("/enclave", broker.http_app())])
    with serving(broker, app=app) as live:
        assert refusal(live.client.post("/enclave/sessions", json={"code": "return 1"})) == (503, "NOT_RUNNING")


class Broken(SessionManager):
    def list_for(self, principal: Principal, *, state: str | None = None) -> Sequence[Session]:
        raise RuntimeError("the password is hunter2")


def test_a_failure_that_nobody_foresaw_is_500_internal_error_without_detail() -> None:
    with serving(shop.make(sessions=Broken())) as live:
        response = Enclave(live.client).get("/sessions")
        assert refusal(response) == (500, "INTERNAL_ERROR")
        assert set(response.json()) == {"code", "message"}
        assert "hunter2" not in response.text


# -- of all ----------------------------------------------------------------------------------------------------------


def test_an_error_is_json_whatever_was_accepted(enclave: Enclave) -> None:
    for accept in ("text/event-stream", "application/x-ndjson", "text/html", "*/*"):
        response = enclave.post("return 1", sessionId="mine", headers={"Accept": accept})
        assert response.headers["content-type"] == "application/json"
        assert Refusal.model_validate_json(response.content).code == "INVALID_REQUEST"
        response = enclave.get("/sessions/s_none/stream", headers={"Accept": accept})
        assert refusal(response) == (404, "NOT_FOUND")

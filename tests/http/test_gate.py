"""By which name, from which page, with how much: what is decided before any endpoint."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from enclave_broker import ConfigurationError
from enclave_broker.broker.http.app import http_app
from tests.http.live import Live, final, memory_broker, read_all, refusal, request_bytes, serving

PAGE = "https://app.example.com"
METHODS = "GET, POST, DELETE, OPTIONS"


def send(live: Live, request: bytes) -> tuple[int, bytes]:
    """Status and whole answer of bytes that no client library would send."""
    with live.socket() as connection:
        connection.sendall(request)
        answer = read_all(connection)
    return int(answer.split(b" ", 2)[1]), answer


def get(live: Live, *headers: str, target: str = "/readyz", host: str = "localhost") -> int:
    return send(live, request_bytes("GET", target, b"", "Connection: close", *headers, host=host))[0]


# -- Host ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:1"])
def test_the_server_answers_to_its_own_names(shared: Live, host: str) -> None:
    assert get(shared, host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.localhost", "localhost:8000:1", "localhost:x", "a@localhost", ""],
)
def test_a_name_that_is_not_the_servers_is_refused(shared: Live, host: str) -> None:
    assert get(shared, host=host) == 403


def test_a_second_host_is_refused(shared: Live) -> None:
    assert get(shared, "Host: evil.example") == 400
    assert get(shared, "Host: localhost") == 400


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("*.example.com", "a.b.example.com", 200),
        ("*.example.com", "example.com", 403),
        ("*.example.com", "evilexample.com", 403),
        ("[::1]", "[::1]:8000", 200),
        ("[::1]", "[::1", 403),
        ("API.example.com", "api.Example.com", 200),
        ("*", "anything", 200),
    ],
)
def test_allowed_hosts_say_by_which_names_it_is_called(allowed: str, host: str, status: int) -> None:
    with serving(memory_broker(), allowed_hosts=[allowed]) as live:
        assert get(live, host=host) == status


@pytest.mark.parametrize(
    "options",
    [
        {"allowed_hosts": ["localhost:8000"]},
        {"allowed_hosts": ["http://localhost"]},
        {"allowed_hosts": "localhost"},
        {"allowed_hosts": [""]},
        {"allowed_origins": ["example.com"]},
        {"allowed_origins": ["https://example.com/"]},
        {"allowed_origins": "*"},
        {"mcp": True},
    ],
)
def test_a_wrong_option_is_refused_when_the_application_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        http_app(memory_broker(), **options)


# -- Origin and CORS -------------------------------------------------------------------------------------------------


def change(live: Live, origin: str) -> httpx.Response:
    return live.post("return 1", headers={"Origin": origin})


def test_a_foreign_page_can_change_nothing(live: Live) -> None:
    assert refusal(change(live, "https://evil.example")) == (403, "FORBIDDEN")
    assert refusal(change(live, "null")) == (403, "FORBIDDEN")
    assert refusal(change(live, "http://127.0.0.1:1")) == (403, "FORBIDDEN")
    headers = {"Origin": "https://evil.example"}
    assert refusal(live.client.post("/sessions/s_1/cancel", headers=headers)) == (403, "FORBIDDEN")
    assert refusal(live.client.delete("/sessions/s_1", headers=headers)) == (403, "FORBIDDEN")
    assert live.client.get("/sessions").json()["total"] == 0


def test_a_page_of_the_servers_own_may(live: Live) -> None:
    assert final(change(live, live.url))["ok"] is True


def test_no_cors_header_is_sent_unless_origins_are_allowed(shared: Live) -> None:
    response = shared.client.get("/sessions", headers={"Origin": PAGE})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_allowed_page_may_change_things_and_read_every_answer() -> None:
    with serving(memory_broker(), allowed_origins=[PAGE]) as live:
        for response in (change(live, PAGE), live.client.get("/sessions/s_1", headers={"Origin": PAGE})):
            assert response.headers["access-control-allow-origin"] == PAGE
            assert response.headers["access-control-expose-headers"] == "X-Session-ID"
            assert response.headers["vary"] == "Origin"
        assert refusal(change(live, "https://other.example")) == (403, "FORBIDDEN")


def test_every_page_may_when_all_origins_are_allowed() -> None:
    with serving(memory_broker(), allowed_origins=["*"]) as live:
        assert change(live, "https://any.example").headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/sessions", "/sessions/s_1", "/sessions/s_1/stream", "/code/actions", "/healthz"])
def test_options_of_every_path_is_204_with_cors(path: str) -> None:
    async def nobody(request: Any) -> Any:
        raise AssertionError("a preflight has no credentials")

    with serving(memory_broker(), allowed_origins=[PAGE], auth=nobody) as live:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
        response = live.client.options(path, headers=asked)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-allow-methods"] == METHODS
        allowed = response.headers["access-control-allow-headers"]
        assert allowed == "Content-Type, Accept, Authorization, Last-Event-ID"
        assert response.headers["access-control-max-age"] == "86400"
        foreign = live.client.options(path, headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 204
        assert "access-control-allow-origin" not in foreign.headers


def test_a_refusal_can_be_read_by_an_allowed_page() -> None:
    async def nobody(request: Any) -> Any:
        raise ValueError

    with serving(memory_broker(), allowed_origins=[PAGE], auth=nobody) as live:
        response = change(live, PAGE)
        assert refusal(response) == (401, "UNAUTHENTICATED")
        assert response.headers["access-control-allow-origin"] == PAGE


# -- sizes and contradictions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 1", "Content-Length: 2"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: -1"],
        ["Content-Length: 1e3"],
        ["Content-Length: " + "9" * 40],
        ["Transfer-Encoding: chunked, identity"],
        ["Origin: http://localhost", "Origin: https://evil.example"],
        ["Content-Type: application/json", "Content-Type: text/plain"],
        ["Authorization: Bearer a", "Authorization: Bearer b"],
        ["Bad Header: 1"],
        ["X: a\x00b"],
    ],
)
def test_headers_that_contradict_themselves_are_refused(shared: Live, headers: list[str]) -> None:
    status, answer = send(shared, request_bytes("POST", "/sessions", b"", "Connection: close", *headers))
    assert status == 400
    assert b'"code":"INVALID_REQUEST"' in answer


def test_a_head_that_is_too_large_is_refused(shared: Live) -> None:
    assert get(shared, f"X-Much: {'x' * 40_000}") == 431
    assert get(shared, *[f"X-{number}: {'x' * 100}" for number in range(400)]) == 431
    assert get(shared, target=f"/readyz?{'x' * 40_000}") == 431
    assert get(shared, f"X-Much: {'x' * 20_000}") == 200


def test_a_head_without_end_is_refused_before_it_has_come(shared: Live) -> None:
    with shared.socket() as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nX: ")
        for _ in range(40):
            try:
                connection.sendall(b"x" * 10_000)
            except (BrokenPipeError, ConnectionResetError):
                break
        try:
            answer = read_all(connection)
        except ConnectionResetError:
            return  # it was cut off while this side was still sending
    assert b" 431 " in answer


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON ; charset=UTF-8", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
def test_a_body_has_to_say_that_it_is_json(shared: Live, kind: str, status: int) -> None:
    response = shared.client.post("/sessions", content=b'{"code":"return 1"}', headers={"Content-Type": kind})
    assert response.status_code == status
    if status == 415:
        assert refusal(response) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_body_that_says_it_is_too_large_is_refused_unread(shared: Live) -> None:
    request = request_bytes("POST", "/sessions", b"", "Content-Length: 999999999", "Content-Type: application/json")
    status, answer = send(shared, request)
    assert status == 413
    assert b'"code":"PAYLOAD_TOO_LARGE"' in answer
    assert b"connection: close" in answer.lower()


def test_a_body_that_grows_too_large_is_refused(shared: Live) -> None:
    def pieces() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    response = shared.client.post("/sessions", content=pieces(), headers={"Content-Type": "application/json"})
    assert refusal(response) == (413, "PAYLOAD_TOO_LARGE")


PATHS = [
    "/",
    "/sessions",
    "/sessions/",
    "/sessions/s_1",
    "/sessions/s_1/stream",
    "/sessions/s_1/cancel",
    "/sessions/s_1/tool-result",
    "/sessions/s_1/calls",
    "/sessions/s_1/nothing",
    "/code/actions",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/nothing",
]
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY"]
CHANGING = ["POST", "PUT", "PATCH", "DELETE", "CONNECT"]
REFUSALS = {
    (400, "INVALID_REQUEST"),
    (404, "NOT_FOUND"),
    (405, "METHOD_NOT_ALLOWED"),
    (415, "UNSUPPORTED_MEDIA_TYPE"),
}


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("body", [None, b"", b"{}", b"no JSON"])
def test_every_route_answers_every_method_without_failing(live: Live, body: bytes | None, *, is_there: bool) -> None:
    headers = {} if body is None else {"Content-Type": "application/json"}
    for path in PATHS:
        for method in SAFE + CHANGING:
            if is_there:
                live.post("return 1", sessionId="s_1", stream=False)
            response = live.client.request(method, path, content=body, headers=headers)
            assert response.status_code < 500, (method, path)
            if response.status_code == 405:
                assert "OPTIONS" in response.headers["allow"]
            if response.status_code >= 400 and method != "HEAD":
                assert refusal(response) in REFUSALS, (method, path)

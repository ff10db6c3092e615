"""Section "Endpoints": CORS, for no origin by default and for those that are configured."""

from __future__ import annotations

import httpx
import pytest

from tests.protocol.client import Enclave, refusal
from tests.protocol.conftest import PAGE

PATHS = [
    *("/sessions", "/sessions/s_1", "/sessions/s_1/stream", "/sessions/s_1/cancel", "/sessions/s_1/tool-result"),
    *("/sessions/s_1/calls", "/code/actions", "/healthz", "/readyz", "/openapi.json", "/docs"),
]


def words(response: httpx.Response, header: str) -> set[str]:
    return {word.strip() for word in response.headers[header].split(",")}


def preflight(enclave: Enclave, path: str, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,authorization",
    }
    return enclave.request("OPTIONS", path, headers=headers)


@pytest.mark.parametrize("path", PATHS)
def test_options_is_204_with_what_an_allowed_page_may_do(strict: Enclave, path: str) -> None:
    response = preflight(strict, path, PAGE)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == PAGE
    assert words(response, "access-control-allow-methods") == {"GET", "POST", "DELETE", "OPTIONS"}
    allowed = {"Content-Type", "Accept", "Authorization", "Last-Event-ID"}
    assert words(response, "access-control-allow-headers") == allowed
    assert response.headers["access-control-max-age"] == "86400"


@pytest.mark.parametrize("path", PATHS)
def test_no_origin_is_allowed_by_default(enclave: Enclave, path: str) -> None:
    response = preflight(enclave, path, PAGE)
    assert response.status_code == 204
    assert "access-control-allow-origin" not in response.headers


def test_another_origin_than_the_configured_is_not_allowed(strict: Enclave) -> None:
    assert "access-control-allow-origin" not in preflight(strict, "/sessions", "https://evil.example").headers
    response = strict.get("/sessions", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


def test_an_allowed_page_reads_a_stream_and_its_session_id(strict: Enclave) -> None:
    response = strict.post("return 1", headers={"Origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE
    assert words(response, "access-control-expose-headers") == {"X-Session-ID"}
    assert response.headers["x-session-id"].startswith("s_")


def test_an_allowed_page_reads_errors_too(strict: Enclave) -> None:
    response = strict.get("/sessions/s_none", headers={"Origin": PAGE})
    assert refusal(response) == (404, "NOT_FOUND")
    assert response.headers["access-control-allow-origin"] == PAGE


def test_answers_tell_caches_that_they_depend_on_the_origin(strict: Enclave) -> None:
    assert "Origin" in words(strict.get("/sessions", headers={"Origin": PAGE}), "vary")

"""`auth=`: who is asking, and what each may see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from enclave_broker import (
    AuthenticationError,
    Broker,
    PermissionDeniedError,
    Principal,
    RateLimitError,
)
from enclave_broker.broker.http.timing import Timing
from tests.http.live import Live, events, final, memory_broker, refusal, serving

KEYS = {"Bearer a": Principal("ann"), "Bearer b": Principal("bob"), "Bearer x": Principal("ann", tenant="other")}
ANN, BOB, OTHER_ANN = ({"Authorization": key} for key in KEYS)


async def by_key(request: Request) -> Principal:
    return KEYS[request.headers["authorization"]]


def test_the_principal_is_whom_auth_names(shop: Broker) -> None:
    with serving(shop, auth=by_key) as live:
        assert final(live.post("return await tools.whoami({})", headers=BOB))["result"] == "bob"


def test_without_auth_nobody_is_known(live: Live) -> None:
    assert final(live.post("return await tools.whoami({})"))["result"] == "anonymous"


def test_a_request_cannot_say_who_it_is(shop: Broker) -> None:
    with serving(shop, auth=by_key) as live:
        fields = {"principal": {"subject": "ann"}, "roles": ["admin"], "context": {"role": "admin"}, "user_id": "ann"}
        assert final(live.post("return await tools.whoami({})", headers=BOB, **fields))["result"] == "bob"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sessions"),
        ("GET", "/sessions"),
        ("GET", "/sessions/s_1"),
        ("GET", "/sessions/s_1/stream"),
        ("POST", "/sessions/s_1/cancel"),
        ("DELETE", "/sessions/s_1"),
        ("POST", "/sessions/s_1/tool-result"),
        ("GET", "/sessions/s_1/calls"),
        ("GET", "/code/actions"),
        ("GET", "/nothing"),
    ],
)
def test_every_endpoint_wants_to_know_who_is_asking(method: str, path: str) -> None:
    with serving(memory_broker(), auth=by_key) as live:
        response = live.client.request(method, path)
        assert refusal(response) == (401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
def test_what_a_load_balancer_asks_needs_no_key(path: str) -> None:
    with serving(memory_broker(), auth=by_key) as live:
        assert live.client.get(path).status_code == 200


def failing(error: BaseException) -> Any:
    async def auth(request: Request) -> Principal:
        raise error

    return auth


def giving(found: Any) -> Any:
    async def auth(request: Request) -> Any:
        return found

    return auth


def not_awaited(request: Request) -> Principal:
    return Principal("ann")


class Expired(AuthenticationError):
    default_code = "EXPIRED"


@pytest.mark.parametrize(
    ("auth", "refused"),
    [
        (failing(AuthenticationError("the key is unknown")), (401, "UNAUTHENTICATED")),
        (failing(Expired("the key has expired")), (401, "UNAUTHENTICATED")),
        (failing(AuthenticationError()), (401, "UNAUTHENTICATED")),
        (failing(PermissionDeniedError("not from there")), (403, "FORBIDDEN")),
        (failing(RateLimitError("too many", retry_after=2.5)), (429, "RATE_LIMITED")),
        (failing(HTTPException(401)), (401, "UNAUTHENTICATED")),
        (failing(HTTPException(403)), (403, "FORBIDDEN")),
        (failing(HTTPException(500)), (401, "UNAUTHENTICATED")),
        (failing(KeyError("authorization")), (401, "UNAUTHENTICATED")),
        (failing(TimeoutError()), (401, "UNAUTHENTICATED")),
        (giving(None), (401, "UNAUTHENTICATED")),
        (giving("ann"), (401, "UNAUTHENTICATED")),
        (giving(Principal("anonymous", roles=frozenset({"admin"}))), (401, "UNAUTHENTICATED")),
        (not_awaited, (401, "UNAUTHENTICATED")),
    ],
)
def test_whatever_auth_does_but_name_somebody_is_a_refusal(auth: Any, refused: tuple[int, str]) -> None:
    with serving(memory_broker(), auth=auth) as live:
        response = live.post("return 1")
        assert refusal(response) == refused
        assert "authorization" not in response.json()["message"]
        if refused[0] == 429:
            assert response.headers["retry-after"] == "3"
        assert not live.do(live.broker.sessions.list)


def test_what_auth_raises_is_logged_by_its_type_and_place_not_by_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def auth(request: Request) -> Principal:
        try:
            return KEYS[request.headers["authorization"]]
        except KeyError as error:
            raise ExceptionGroup(str(error), [error]) from error

    with serving(memory_broker(), auth=auth) as live:
        assert refusal(live.post("return 1", headers={"Authorization": "Bearer canary"})) == (401, "UNAUTHENTICATED")
    assert "canary" not in caplog.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "auth raised ExceptionGroup at " in record.getMessage()
    assert "test_auth.py:" in record.getMessage()


def test_an_auth_that_never_answers_is_a_refusal() -> None:
    async def auth(request: Request) -> Principal:
        await asyncio.Event().wait()
        raise AssertionError

    with serving(memory_broker(), auth=auth, timing=Timing(auth=0.05)) as live:
        assert refusal(live.post("return 1")) == (401, "UNAUTHENTICATED")


def test_auth_cannot_eat_the_body() -> None:
    async def auth(request: Request) -> Principal:
        await request.body()
        return Principal("ann")

    with serving(memory_broker(), auth=auth) as live:
        assert refusal(live.post("return 1")) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize("other", [BOB, OTHER_ANN])
def test_a_session_of_somebody_else_is_not_there_on_any_route(
    shop: Broker, gate: asyncio.Event, other: dict[str, str]
) -> None:
    with serving(shop, auth=by_key) as live:
        code = "return await tools.wait({})"
        with live.streaming(code, headers=ANN, sessionId="s_ann") as stream:
            call = stream.next("tool_call")["payload"]["callId"]
            for method, path in [
                ("GET", "/sessions/s_ann"),
                ("GET", "/sessions/s_ann/stream"),
                ("GET", "/sessions/s_ann/calls"),
                ("POST", "/sessions/s_ann/cancel"),
                ("DELETE", "/sessions/s_ann"),
            ]:
                assert refusal(live.client.request(method, path, headers=other)) == (404, "NOT_FOUND"), path
            answer = {"callId": call, "ok": True, "result": "forged"}
            response = live.client.post("/sessions/s_ann/tool-result", json=answer, headers=other)
            assert refusal(response) == (404, "NOT_FOUND")
            assert live.client.get("/sessions", headers=other).json() == {"sessions": [], "total": 0}
            assert live.client.get("/sessions", headers=ANN).json()["total"] == 1
            live.do(gate.set)
            assert stream.next("final")["payload"]["result"] == "waited"


def test_an_id_that_a_client_chose_is_its_own(shop: Broker) -> None:
    with serving(shop, auth=by_key) as live:
        for headers, name in ((ANN, "ann"), (BOB, "bob")):
            response = live.post("return await tools.whoami({})", headers=headers, sessionId="s_same")
            assert final(response)["result"] == name
        mine = events(live.client.get("/sessions/s_same/stream", headers=BOB))
        assert mine[-1]["payload"]["result"] == "bob"


def test_sessions_of_the_host_are_not_there_for_who_is_not_known(live: Live) -> None:
    async def make() -> None:
        await live.broker.create_session(session_id="s_hosts", principal=Principal("ann"))

    live.call(make)
    assert refusal(live.client.get("/sessions/s_hosts")) == (404, "NOT_FOUND")
    assert live.client.get("/sessions").json()["total"] == 0

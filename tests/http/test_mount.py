"""A broker within somebody else's application."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from enclave_broker import Broker, ConfigurationError, Principal
from tests.http.live import SECONDS, events, final, memory_broker, refusal, serving

HOSTS_OWN = """
import sys
import uvicorn
from starlette.applications import Starlette
from enclave_broker import Broker

broker = Broker()

@broker.tool("wait")
async def wait() -> None:
    import asyncio
    await asyncio.Event().wait()

app = Starlette()
broker.mount(app, "/enclave")
config = uvicorn.Config(app, fd=int(sys.argv[1]), log_level="error")
config.uds = None
server = uvicorn.Server(config)
server.run(sockets=[__import__("socket").socket(fileno=int(sys.argv[1]))])
"""


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("home")


def test_a_mounted_broker_runs_while_the_application_does() -> None:
    told: list[str] = []
    broker = memory_broker()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, int]]:
        told.append(f"begins, broker running: {broker.running}")
        yield {"answer": 42}
        told.append(f"ends, broker running: {broker.running}")

    async def state(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.state.answer))

    app = Starlette(routes=[Route("/", home), Route("/state", state)], lifespan=lifespan)
    broker.mount(app, "/enclave")
    with serving(broker, app=app) as live:
        assert live.client.get("/").text == "home"
        assert live.client.get("/state").text == "42"
        assert final(live.client.post("/enclave/sessions", json={"code": "return 1"}))["result"] == 1
        assert live.client.get("/enclave/readyz").status_code == 200
        assert live.client.get("/enclave/openapi.json").json()["servers"] == [{"url": "/enclave"}]
        assert "/enclave/openapi.json" in live.client.get("/enclave/docs").text
        assert refusal(live.client.get("/enclave/nothing")) == (404, "NOT_FOUND")
        assert live.client.get("/sessions").status_code == 404
        assert live.client.options("/enclave/sessions").status_code == 204
    assert told == ["begins, broker running: True", "ends, broker running: True"]
    assert not broker.running


def test_a_mounted_broker_asks_auth_and_leaves_the_rest_alone() -> None:
    async def auth(request: Request) -> Principal:
        return Principal(request.headers["x-user"])

    broker = memory_broker()
    app = Starlette(routes=[Route("/", home)])
    broker.mount(app, "/enclave/", auth=auth)
    with serving(broker, app=app) as live:
        assert live.client.get("/").text == "home"
        assert refusal(live.client.get("/enclave/sessions")) == (401, "UNAUTHENTICATED")
        assert live.client.get("/enclave/healthz").status_code == 200
        assert live.client.get("/enclave/sessions", headers={"x-user": "ann"}).status_code == 200


def test_two_brokers_can_be_mounted_side_by_side() -> None:
    first, second = memory_broker(), memory_broker()
    app = Starlette()
    first.mount(app, "/a")
    second.mount(app, "/b")
    with serving(first, app=app) as live:
        for path in ("/a", "/b"):
            assert final(live.client.post(f"{path}/sessions", json={"code": "return 1"}))["ok"] is True
        assert live.client.get("/a/sessions").json()["total"] == 1


def test_an_application_that_was_mounted_by_hand_says_what_to_write() -> None:
    broker = memory_broker()
    app = Starlette(routes=[Mount("/enclave", broker.http_app())])
    with serving(broker, app=app) as live:
        for method, path in [
            ("POST", "/sessions"),
            ("GET", "/sessions"),
            ("GET", "/sessions/s_1/stream"),
            ("GET", "/readyz"),
        ]:
            response = live.client.request(method, f"/enclave{path}")
            assert refusal(response) == (503, "NOT_RUNNING")
            assert "broker.mount(app, path)" in response.json()["message"]
        assert live.client.get("/enclave/healthz").status_code == 200


def test_a_broker_that_the_host_runs_itself_is_left_running() -> None:
    broker = memory_broker()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with broker:
            yield

    app = Starlette(routes=[Mount("/enclave", broker.http_app())], lifespan=lifespan)
    with serving(broker, app=app) as live:
        assert final(live.client.post("/enclave/sessions", json={"code": "return 1"}))["ok"] is True


async def test_the_application_works_without_a_server() -> None:
    broker = memory_broker()
    async with broker:
        transport = httpx.ASGITransport(broker.http_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response = await client.post("/sessions", json={"code": "return 1"})
            assert events(response)[-1]["payload"]["result"] == 1


@pytest.mark.parametrize("path", ["", "/", "enclave"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="/enclave"):
        memory_broker().mount(Starlette(), path)


def test_only_starlette_and_what_is_made_of_it_can_hold_a_broker() -> None:
    app: Any = object()
    with pytest.raises(ConfigurationError, match="FastAPI"):
        memory_broker().mount(app, "/enclave")


def test_a_mounted_broker_lets_its_host_end(tmp_path: Path) -> None:
    import socket

    script = tmp_path / "host.py"
    script.write_text(HOSTS_OWN, encoding="utf-8")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        process = subprocess.Popen([sys.executable, str(script), str(listener.fileno())], pass_fds=[listener.fileno()])
    try:
        url = f"http://127.0.0.1:{port}/enclave/sessions"
        body = {"code": "return await tools.wait({})"}
        with httpx.stream("POST", url, json=body, timeout=SECONDS) as response:
            lines = response.iter_lines()
            assert any('"tool_call"' in line for line in lines)
            process.send_signal(signal.SIGTERM)
            *_, last = lines
        assert '"code":"SHUTTING_DOWN"' in last
        process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in {0, -signal.SIGTERM}  # theirs: uvicorn ends by the signal itself


def test_signals_are_the_hosts_again_when_the_application_has_ended() -> None:
    async def once() -> None:
        broker: Broker = memory_broker()
        app = broker.http_app()
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        async with app.router.lifespan_context(app):
            assert signal.getsignal(signal.SIGTERM) is not before[0]
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

    asyncio.run(once())


def test_a_signal_gives_every_stream_its_final_and_goes_on_to_the_host() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))

    async def once() -> None:
        broker = memory_broker()
        app = broker.http_app()
        async with app.router.lifespan_context(app):
            session = await broker.create_session()
            session.begin("await new Promise((done) => setTimeout(done, 60000))")
            os.kill(os.getpid(), signal.SIGTERM)
            result = await session.wait()
            assert result.error is not None
            assert result.error.code == "SHUTTING_DOWN"

    try:
        asyncio.run(once())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]

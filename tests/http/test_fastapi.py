"""A broker within a FastAPI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.http.live import final, memory_broker, serving

fastapi: Any = pytest.importorskip("fastapi", reason="FastAPI is not among what the checks install")


def test_a_broker_that_is_mounted_into_fastapi_runs_while_the_application_does() -> None:
    told: list[str] = []
    broker = memory_broker()

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[None]:
        told.append(f"begins, broker running: {broker.running}")
        yield
        told.append(f"ends, broker running: {broker.running}")

    app = fastapi.FastAPI(lifespan=lifespan)

    async def answer() -> int:
        return int((await broker.execute("return 42", result_type=int)).raise_for_error().value)

    app.get("/answer")(answer)
    broker.mount(app, "/enclave")
    with serving(broker, app=app) as live:
        assert live.client.get("/answer").json() == 42
        assert final(live.client.post("/enclave/sessions", json={"code": "return 1"}))["result"] == 1
        assert list(live.client.get("/openapi.json").json()["paths"]) == ["/answer"]
    assert told == ["begins, broker running: True", "ends, broker running: True"]

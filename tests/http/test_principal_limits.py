"""What a principal who has too much is told over HTTP, and that nobody else notices."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from enclave_broker import Broker, PrincipalLimits, SessionManager
from tests.http.live import Live, final, memory_broker, refusal, serving
from tests.http.test_auth import ANN, BOB, KEYS, by_key

WAITS = "return await tools.ask({})"


@contextmanager
def capped(**limits: Any) -> Generator[Live]:
    broker: Broker = memory_broker(sessions=SessionManager(per_principal=PrincipalLimits(**limits)))
    broker.client_tool("ask", args=dict[str, Any])
    with serving(broker, auth=by_key) as live:
        yield live


def refused(response: httpx.Response, name: str) -> None:
    assert refusal(response) == (429, "RATE_LIMITED")
    assert int(response.headers["retry-after"]) >= 1
    assert name in response.json()["message"]
    quota, retry = response.json()["details"]
    assert quota["used"] >= quota["limit"]
    assert retry["retryDelayMs"] >= 1000


@pytest.mark.parametrize("name", ["max_sessions", "max_waiting", "max_streams"])
def test_who_has_too_much_is_refused_until_it_is_less_and_others_are_not(name: str) -> None:
    with capped(**{name: 1}) as live:
        with live.streaming(WAITS, headers=ANN) as stream:
            stream.next("tool_call")
            share = live.broker.sessions.shares
            assert len(live.do(live.broker.sessions.list)) == 1
            if name == "max_waiting":
                live.until(lambda: any(each.count_waiting() for each in map(share.of, KEYS.values())))
            refused(live.post("return 1", headers=ANN), name)
            assert final(live.post("return 1", headers=BOB))["result"] == 1
            assert live.client.get(f"/sessions/{stream.id}", headers=ANN).status_code == 200
            assert live.client.post(f"/sessions/{stream.id}/cancel", headers=ANN).status_code == 200
            stream.next("final")
        live.until(lambda: all(not each.streams for each in map(share.of, KEYS.values())))
        assert final(live.post("return 1", headers=ANN))["result"] == 1


def test_used_cpu_time_is_refused_until_it_is_paid_back() -> None:
    with capped(cpu_time=0.001, cpu_window=1000.0) as live:
        assert live.post("for (let i = 0; i < 1e6; i++); return 1", headers=ANN).status_code == 200
        refused(live.post("return 1", headers=ANN), "cpu_time")
        assert live.post("return 1", headers=BOB, stream=False).json()["result"] == 1


def test_every_answer_gives_its_stream_back() -> None:
    with capped(max_streams=1) as live:
        for _ in range(3):
            assert live.post("return 1", headers=ANN, sessionId="s_1").status_code == 200
            assert live.client.get("/sessions/s_1/stream", headers=ANN).status_code == 200
            assert live.client.head("/sessions/s_1/stream", headers=ANN).status_code == 200
            assert live.client.get("/sessions/s_1/calls", headers=ANN).status_code == 200
            assert live.client.get("/sessions/s_2/stream", headers=ANN).status_code == 404
            assert live.client.get("/sessions/s_1/stream?filter={", headers=ANN).status_code == 400
            assert live.post("return (", headers=ANN, stream=False).status_code == 200
            assert live.post("return 2", headers=ANN, sessionId="s_1").status_code == 409

"""A request that comes again: the same run, whatever has happened meanwhile, and never a second one."""

from __future__ import annotations

from enclave_broker import SessionManager
from tests.http.live import events, memory_broker, refusal, serving


def test_a_full_server_still_gives_a_session_to_whoever_has_begun_it() -> None:
    broker, code = memory_broker(sessions=SessionManager(max_concurrent_sessions=1)), "await sleep(60_000)"
    with serving(broker) as live, live.streaming(code, sessionId="s_a") as stream:
        stream.next("session_init")
        with live.streaming(code, sessionId="s_a") as again:
            assert again.next()["seq"] == 1
        assert refusal(live.post("return 1", sessionId="s_a")) == (409, "SESSION_EXISTS")
        assert refusal(live.post("return 1", sessionId="s_b")) == (503, "OVERLOADED")


def test_a_session_that_had_to_make_room_is_not_run_a_second_time() -> None:
    with serving(memory_broker(sessions=SessionManager(max_retained=2))) as live:
        assert events(live.post("return 1", sessionId="s_mine"))[-1]["type"] == "final"
        for _ in range(3):
            live.post("return 2")
        assert refusal(live.client.get("/sessions/s_mine")) == (404, "NOT_FOUND")
        assert refusal(live.post("return 1", sessionId="s_mine")) == (409, "SESSION_EXISTS")


def test_a_session_that_was_deleted_makes_its_id_free() -> None:
    with serving(memory_broker()) as live:
        for _ in range(2):
            assert events(live.post("return 1", sessionId="s_mine"))[-1]["type"] == "final"
            assert live.client.delete("/sessions/s_mine").status_code == 200


def test_what_a_browser_says_it_has_goes_before_its_address() -> None:
    """An EventSource connects again to the same address, `fromSeq` and all."""
    with serving(memory_broker()) as live:
        live.post("for (let n = 0; n < 4; n++) console.log(n)", sessionId="s_1")
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "4"}
        text = live.client.get("/sessions/s_1/stream?fromSeq=2", headers=headers).text
        assert [line for line in text.splitlines() if line.startswith("id: ")] == ["id: 5", "id: 6"]
        headers["Last-Event-ID"] = "6"
        assert live.client.get("/sessions/s_1/stream?fromSeq=2", headers=headers).status_code == 204

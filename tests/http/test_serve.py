"""The command `serve`, as a process of its own with real workers."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.cli.terminal import command
from tests.http.live import final, read_until, refusal, request_bytes
from tests.http.served import APP, WAIT, served


def test_serve_runs_an_app_until_it_is_told_to_end(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        response = server.client.post("/sessions", json={"code": "return await tools.orders.get({ id: 1 })"})
        assert final(response)["result"] == 1
        assert server.url.startswith("http://127.0.0.1:")
        assert server.client.get("/docs").status_code == 200
        assert server.end() == 0
    assert server.said == [f"serving at {server.url}, API at {server.url}/docs\n"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_mid_stream_gives_each_stream_its_final_and_a_clean_end(tmp_path: Path, number: int) -> None:
    with served(tmp_path) as server, server.streaming(WAIT) as first, server.streaming(WAIT) as second:
        for stream in (first, second):
            stream.next("tool_call")
        server.process.send_signal(number)
        for stream in (first, second):
            *_, last = stream.rest()
            assert last["type"] == "final"
            assert last["payload"]["ok"] is False
            assert last["payload"]["error"]["code"] == "SHUTTING_DOWN"
        assert server.wait() == 0
        assert len(server.said) == 1


def test_a_signal_answers_who_waits_for_one_object(tmp_path: Path) -> None:
    with (
        served(tmp_path) as server,
        socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as waiting,
    ):
        body = json.dumps({"code": WAIT, "stream": False, "sessionId": "s_mine"}).encode()
        waiting.sendall(request_bytes("POST", "/sessions", body))
        with server.client.stream("GET", "/sessions/s_mine/stream", params={"from": 1}) as response:
            if response.status_code == 200:
                next(response.iter_lines())
        server.process.send_signal(signal.SIGTERM)
        assert b"SHUTTING_DOWN" in read_until(waiting, b"}}")
        assert server.wait() == 0


def test_a_client_that_never_reads_does_not_hold_the_end_up(tmp_path: Path) -> None:
    code = "for (let i = 0; i < 200; i++) { console.log('x'.repeat(1000)); } await tools.wait({})"
    with served(tmp_path) as server, socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.connect(("127.0.0.1", httpx.URL(server.url).port or 0))
        stuck.sendall(request_bytes("POST", "/sessions", json.dumps({"code": code}).encode()))
        assert stuck.recv(1) == b"H"
        assert server.end() == 0
        assert len(server.said) == 1


def test_a_connection_that_is_idle_does_not_hold_the_end_up(tmp_path: Path) -> None:
    with served(tmp_path) as server, socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)):
        server.client.get("/readyz")
        assert server.end() == 0


def test_a_bug_of_the_apps_is_told_on_stderr(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        error = final(server.client.post("/sessions", json={"code": "await tools.crash({})"}))["error"]
        assert "a bug of the app's" not in error["message"]
        server.hear("a bug of the app's")


def test_the_log_comes_as_json_when_asked_for(tmp_path: Path) -> None:
    with served(tmp_path, "--log-format", "json") as server:
        server.client.post("/sessions", json={"code": "await tools.crash({})"})
        line = json.loads(server.hear("a bug of the app's").string)
        assert set(line) == {"time", "level", "logger", "message", "error"}
        assert line["level"] == "error"
        assert "ValueError" in line["error"]


# -- where and for whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_this_machine_serve_refuses_without_authentication(tmp_path: Path, host: str) -> None:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    done = command("serve", "--host", host, "--port", "0", folder=tmp_path)
    assert done.code == 2
    assert "--no-auth" in done.err
    assert command("serve", "--port", "0", folder=tmp_path, environ={"ENCLAVE_BROKER_HOST": host}).code == 2


def test_beyond_this_machine_serve_runs_when_that_is_meant(tmp_path: Path) -> None:
    with served(tmp_path, "--host", "0.0.0.0", "--no-auth", "--allowed-host", "api.example.com") as server:
        assert "anybody who can reach it is let in" in server.hear("let in").string
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        for host, status in [("api.example.com", 200), ("localhost", 200), ("evil.example", 403)]:
            assert server.client.get(f"{url}/sessions", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_serve_answers_to_the_name_it_was_given(tmp_path: Path, host: str) -> None:
    with served(tmp_path, "--host", host) as server:
        assert server.client.get("/sessions").status_code == 200


def test_settings_say_where_and_for_which_pages(tmp_path: Path) -> None:
    environ = {
        "ENCLAVE_BROKER_ALLOWED_HOSTS": "a.example, b.example",
        "ENCLAVE_BROKER_ALLOWED_ORIGINS": "https://app.example",
    }
    with served(tmp_path, environ=environ) as server:
        headers = {"Host": "b.example", "Origin": "https://app.example"}
        response = server.client.get("/sessions", headers=headers)
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert refusal(server.client.get("/sessions", headers={"Host": "c.example"})) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "a port is a number from 0 to 65535, not 99999"),
        (["--host", "no such host"], "--host no such host"),
        (["--allowed-origin", "example.com"], "allowed_origins"),
        (["--allowed-host", "http://a"], "allowed_hosts"),
        (["nothing.py"], "nothing.py: no such file"),
    ],
)
def test_what_cannot_be_served_is_said_without_a_traceback(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    done = command("serve", "--port", "0", *arguments, folder=tmp_path)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = command("serve", "--port", port, folder=tmp_path)
    assert done.code == 2
    assert f"127.0.0.1:{port} can't be listened at" in done.err


def test_serve_needs_an_app(tmp_path: Path) -> None:
    done = command("serve", "--port", "0", folder=tmp_path)
    assert done.code == 2
    assert "ENCLAVE_BROKER_APP" in done.err


# -- --reload --------------------------------------------------------------------------------------------------------


def test_reload_serves_what_the_app_has_become(tmp_path: Path) -> None:
    body = {"code": "return await tools.orders.get({ id: 1 })"}
    with served(tmp_path, "--reload") as server:
        assert final(server.client.post("/sessions", json=body))["result"] == 1
        url = server.url
        (tmp_path / "app.py").write_text(APP.replace("VALUE", "23"), encoding="utf-8")
        server.hear("app.py has changed")
        server.hear_url()
        assert server.url == url
        assert final(server.client.post("/sessions", json=body))["result"] == 23
        assert server.end() == 0


def test_reload_waits_for_a_broken_app_to_be_mended(tmp_path: Path) -> None:
    with served(tmp_path, "--reload") as server:
        (tmp_path / "app.py").write_text("broker = 1 +", encoding="utf-8")
        server.hear("SyntaxError")
        (tmp_path / "app.py").write_text(APP.replace("VALUE", "5"), encoding="utf-8")
        server.hear_url()
        assert server.client.get("/readyz").status_code == 200

"""`make demo`, and that it would say so if something came out otherwise."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.http.served import APP, served

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples/demo"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The part about the wire, as a module."""
    monkeypatch.setattr(sys, "path", [str(DEMO), *sys.path])  # where its neighbours are
    found = importlib.util.spec_from_file_location("demo_wire", DEMO / "wire.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def curl_of_ours(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO / "curl.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_demo_comes_out_as_promised(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"revenue": 544417.75' in done.stdout
    for code in ("CPU_LIMIT", "MEMORY_LIMIT", "UNKNOWN_TOOL"):
        assert f"ended with   {code}" in done.stdout
    assert "each once and in order" in done.stdout
    assert "exit code 0" in done.stdout
    assert "NOT " not in done.stdout


def test_the_demo_needs_no_curl(tmp_path: Path) -> None:
    code = "import sys, wire; sys.exit(bool(wire.show_wire()))"
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DEMO, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is no curl here" in done.stdout
    assert "each once and in order" in done.stdout


def line(seq: int, type: str = "stdout", **payload: Any) -> str:
    return json.dumps({"seq": seq, "type": type, "payload": payload})


FIRST, REST = [line(1), line(2)], [line(3), line(4, "final", ok=True)]
LOG = FIRST + REST


def test_a_whole_stream_in_two_parts_is_as_promised(wire: ModuleType) -> None:
    assert wire.what_is_wrong(FIRST, REST, LOG) == []


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param([line(1)], REST, id="a gap"),
        pytest.param([*FIRST, line(3)], REST, id="an event twice"),
        pytest.param([line(2), line(1)], REST, id="another order"),
        pytest.param([line(1), line(2, text="other")], REST, id="another event"),
        pytest.param(LOG, [], id="not cut"),
        pytest.param([], LOG, id="nothing before the cut"),
        pytest.param(FIRST, [line(3)], id="no end"),
        pytest.param(FIRST, [line(3), line(4, "final", ok=False)], id="a script that failed"),
    ],
)
def test_whatever_is_wrong_with_the_stream_is_said(wire: ModuleType, first: list[str], rest: list[str]) -> None:
    assert wire.what_is_wrong(first, rest, LOG)


def test_the_stand_in_for_curl_posts_and_gets(tmp_path: Path) -> None:
    with served(tmp_path, app=APP) as server:
        host = server.url.removeprefix("http://")
        body = json.dumps({"sessionId": "s_mine", "code": "return await tools.orders.get({ id: 1 })"})
        posted = curl_of_ours("-sN", f"{host}/sessions", "-H", "content-type: application/json", "-d", body)
        *_, final = posted.stdout.splitlines()
        assert json.loads(final)["payload"]["result"] == 1
        assert curl_of_ours(f"{server.url}/sessions/s_mine/stream?fromSeq=1").stdout == posted.stdout
        assert curl_of_ours("-X", "DELETE", f"{host}/sessions/s_mine").stdout == '{"success":true,"sessionId":"s_mine"}'
        asked = ("-H", "content-type: application/json", "-H", "accept: application/json", "-d", '{"code": "return 2"}')
        assert json.loads(curl_of_ours(f"{host}/sessions", *asked).stdout)["result"] == 2


def test_the_stand_in_for_curl_says_when_nobody_answers() -> None:
    done = curl_of_ours("http://127.0.0.1:1/")
    assert done.returncode == 7
    assert done.stderr.startswith("curl: ")

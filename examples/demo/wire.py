"""Part 3: the report over HTTP. A client is killed in mid-stream, and another takes up where it was cut off."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from screen import dim, heading, shortened

__all__ = ["show_wire", "what_is_wrong"]

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "examples/orders/report.js"
CURL = ["curl"] if shutil.which("curl") else [sys.executable, str(Path(__file__).with_name("curl.py"))]
SESSION = "s_report"
JSON = "content-type: application/json"
ENVIRONMENT = os.environ | {"no_proxy": "*"}  # it is this very machine that curl asks
SECONDS = 30.0  # after which the demo gives up what doesn't come


def show_wire() -> list[str]:
    """What went wrong."""
    heading("3. The report over HTTP: a client is killed in mid-stream, another goes on where it was cut off")
    if CURL != ["curl"]:
        print(dim("There is no curl here: a small program in Python, examples/demo/curl.py, stands in for it."))
    with _server() as (server, url):
        first, rest, log = _cut_and_go_on(url)
        wrong = what_is_wrong(first, rest, log)
        print(dim(f"\nTogether: {len(first)} + {len(rest)} events, {'NOT ' if wrong else ''}each once and in order."))
        print(dim("\nThe server is told to end (SIGTERM)."))
        server.terminate()
        code = server.wait(SECONDS)
        print(f"exit code {code}")
    return wrong if code == 0 else [*wrong, f"the server ended with exit code {code}"]


def _cut_and_go_on(url: str) -> tuple[list[str], list[str], list[str]]:
    """What the first client got before it was killed, what the second got, and the whole log as a third sees it."""
    print(f"\n$ curl -N {url}/sessions -H '{JSON}' -d @-")
    print(dim(f"  (the body, on its stdin: the code of {REPORT.relative_to(ROOT)}, and sessionId {SESSION};"))
    print(dim("  left out of what is shown, not of what is counted: tool_progress)"))
    body = json.dumps({"sessionId": SESSION, "code": REPORT.read_text(encoding="utf-8")})
    first: list[str] = []
    pages = 0
    with _curl(f"{url}/sessions", "-H", JSON, "-d", "@-", body=body) as (curl, lines):
        for line in lines:
            first.append(line)
            _show(line)
            pages += _event(line)["type"] == "tool_result_applied"
            if pages == 2:
                curl.terminate()
                break
        first += lines  # whole lines that were on their way when it was killed
    print(dim(f"\nThis curl has been killed (SIGTERM), with {len(first)} events. The run goes on:"))

    calls = sum(_event(line)["type"] == "tool_call" for line in first)
    info = _wait_for_more_calls(url, calls)
    print(f"$ curl {url}/sessions/{SESSION}\n{info}")

    path = f"{url}/sessions/{SESSION}/stream?fromSeq="
    print(f"\n$ curl -N '{path}{len(first) + 1}'")
    rest: list[str] = []
    with _curl(path + str(len(first) + 1)) as (_, lines):
        for line in lines:
            rest.append(line)
            _show(line)
    with _curl(path + "1") as (_, lines):
        return first, rest, list(lines)


def what_is_wrong(first: list[str], rest: list[str], log: list[str]) -> list[str]:
    """With two parts of a stream that is the log: every event has to be there once, and the first part is one."""
    events = [_event(line) for line in [*first, *rest]]
    numbers = [event["seq"] for event in events]
    wrong: list[str] = []
    if numbers != list(range(1, len(numbers) + 1)):
        wrong.append(f"the events aren't there once each and in order: {numbers}")
    if [*first, *rest] != log:
        wrong.append("a reader of the whole log sees another stream")
    if not first or not rest or any(event["type"] == "final" for event in events[:-1]):
        wrong.append("the first client wasn't cut off in the middle")
    if not events or events[-1]["type"] != "final" or not events[-1]["payload"]["ok"]:
        wrong.append("the last event isn't the final of a script that has ended well")
    return wrong


def _wait_for_more_calls(url: str, than: int) -> str:
    """The session's own words, once it has made more calls."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        command = [*CURL, "-s", f"{url}/sessions/{SESSION}"]
        info = subprocess.run(command, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True, check=True).stdout
        if json.loads(info)["stats"]["toolCallCount"] > than:
            return info
    raise SystemExit(f"the run made no further call within {SECONDS:.0f} s")


def _event(line: str) -> dict[str, Any]:
    return json.loads(line)


def _show(line: str) -> None:
    if _event(line)["type"] != "tool_progress":
        print(shortened(line), flush=True)


@contextmanager
def _server() -> Generator[tuple[subprocess.Popen[str], str]]:
    """`enclave-broker serve` on a free port, and its URL."""
    words = ["serve", "examples/orders/app.py", "--port", "0"]
    print("$ enclave-broker", *words, flush=True)
    command = [sys.executable, "-m", "enclave_broker", *words]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = ""
            for line in server.stderr:
                print(line, end="")
                said += line
                if found := re.search(r"serving at \S*?(http://[\w.:]+)", line):
                    yield server, found[1]
                    return
            raise SystemExit("the server ended before it served")
        finally:
            server.kill()  # unless it has ended


@contextmanager
def _curl(url: str, *arguments: str, body: str = "") -> Generator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """curl as a process, and the whole lines that it prints, as they come."""
    command = [*CURL, "-sN", *arguments, url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=ENVIRONMENT, text=True, encoding="utf-8") as curl:
        assert curl.stdin is not None
        assert curl.stdout is not None
        curl.stdin.write(body)
        curl.stdin.close()
        out = curl.stdout
        try:
            yield curl, (line.removesuffix("\n") for line in out if line.endswith("\n"))
        finally:
            curl.kill()

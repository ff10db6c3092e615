from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from asyncio import StreamReader, create_subprocess_exec
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from enclave_broker import Broker, ToolError
from tests.cli.terminal import COMMAND, Finished, command, environment
from tests.client.real import served


class Place:
    """A broker that is served, and a folder to run commands in."""

    def __init__(self, url: str, broker: Broker, folder: Path) -> None:
        self.url = url
        self.broker = broker
        self.folder = folder

    async def run(self, *arguments: str, environ: Any = None) -> Finished:
        return await asyncio.to_thread(command, *arguments, folder=self.folder, environ=environ)


@pytest.fixture
async def place(folder: Path) -> AsyncIterator[Place]:
    broker = Broker()

    @broker.tool("orders:get", effect="read")
    async def get(id: int) -> int:
        if id > 3:
            raise ToolError(f"no order {id}\x1b[2J", code="NO_SUCH_ORDER")
        return id

    @broker.tool("hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    assert callable(get)
    assert callable(hang)
    async with served(broker) as url:
        yield Place(url, broker, folder)


async def test_a_run_at_a_url_shows_what_a_run_here_shows(place: Place) -> None:
    code = 'console.log("hi"); console.warn("w"); return (await tools.orders.get({ id: 2 })) + 40'
    done = await place.run("run", "--url", place.url, "-e", code)
    assert (done.code, done.out) == (0, "hi\n42\n")
    warned, call = done.err.splitlines()
    assert warned == "[warn] w"
    assert call.startswith('  orders:get {"id":2}  answered  ')


async def test_a_failed_call_is_shown_at_the_end_with_its_code(place: Place) -> None:
    code = "try { await tools.orders.get({ id: 9 }) } catch (e) { return e.code }"
    done = await place.run("run", "--url", place.url, "-e", code)
    assert (done.code, done.out) == (0, '"NO_SUCH_ORDER"\n')
    assert '  orders:get {"id":9}  NO_SUCH_ORDER  no order 9\\x1b[2J  ' in done.err


async def test_a_failing_script_shows_its_place_and_exits_with_1(place: Place) -> None:
    done = await place.run("run", "--url", place.url, "-e", "const n = 1;\nreturn n.total.sum;")
    assert (done.code, done.out) == (1, "")
    first, where, line, _ = done.err.splitlines()
    assert first.startswith("error EXECUTION_ERROR: TypeError: ")
    assert (where, line) == ("  script.js:2:8", "    2 | return n.total.sum;")


async def test_undefined_prints_nothing_and_null_is_null(place: Place) -> None:
    assert (await place.run("run", "--url", place.url, "-e", "const a = 1")).out == ""
    assert (await place.run("run", "--url", place.url, "-e", "return null")).out == "null\n"


async def test_json_prints_each_event_and_only_allowed_tools_can_be_called(place: Place) -> None:
    code = 'console.log("\\u009bx"); await tools.orders.get({ id: 1 })'
    done = await place.run("run", "--url", place.url, "--json", "--allow", "none", "-e", code)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["payload"]["error"]["code"] == "TOOL_NOT_ALLOWED"
    assert "\x9b" not in done.out
    assert (done.code, done.err) == (1, "")


HEARS_INTERRUPTS = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background has it ignored
os.execv(sys.executable, {COMMAND!r} + sys.argv[1:])
"""


@asynccontextmanager
async def hanging(place: Place) -> AsyncGenerator[tuple[Process, StreamReader]]:
    """A run that waits for its tool, and the stream of its events."""
    process = await create_subprocess_exec(
        sys.executable,
        *("-c", HEARS_INTERRUPTS, "run", "--url", place.url, "--json", "-e", "await tools.hang({})"),
        cwd=place.folder,
        env=environment(),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def next_event(stream: StreamReader, type: str) -> Any:
    while line := await stream.readline():
        event = json.loads(line)
        if event["type"] == type:
            return event
    raise AssertionError(f"the stream ended without {type}")


async def test_an_interrupt_cancels_the_run_there(place: Place) -> None:
    async with hanging(place) as (process, events):
        await next_event(events, "tool_call")
        process.send_signal(signal.SIGINT)
        final = await next_event(events, "final")
        assert final["payload"]["error"]["code"] == "SESSION_CANCELLED"
        assert await process.wait() == 130


async def test_a_run_is_cancelled_from_elsewhere_with_a_reason(place: Place) -> None:
    async with hanging(place) as (process, events):
        id = (await next_event(events, "tool_call"))["sessionId"]
        done = await place.run("sessions", "cancel", id, "--reason", "enough", "--url", place.url)
        assert (done.code, done.err) == (0, "cancelled\n")
        assert (await next_event(events, "final"))["payload"]["error"]["message"] == "enough"
        assert await process.wait() == 1


async def test_what_is_about_a_broker_here_is_refused_for_one_there(place: Place) -> None:
    for option in (["--app", "app.py"], ["--as", "ann"], ["--seed", "0"], ["--weak-sandbox"]):
        done = await place.run("run", "--url", place.url, "-e", "1", *option)
        assert done.code == 2
        assert f"{option[0]} is about a broker in this process" in done.err


async def test_nobody_at_the_url_is_said_in_one_line(folder: Path) -> None:
    done = command("run", "--url", "http://127.0.0.1:9", "-e", "1", folder=folder)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error TRANSPORT_ERROR: there is no connection to http://127.0.0.1:9: ")
    done = command("run", "--url", "127.0.0.1:9", "-e", "1", folder=folder)
    assert (done.code, done.err.count("\n")) == (2, 1)


async def test_sessions_are_listed_shown_followed_and_cancelled(place: Place) -> None:
    url = {"ENCLAVE_BROKER_URL": place.url}
    assert (await place.run("sessions", "list", environ=url)).err == "no sessions\n"
    await place.run(
        "run", "--url", place.url, "-e", "await tools.orders.get({ id: 1 }); await tools.orders.get({ id: 9 })"
    )
    listed = await place.run("sessions", "list", environ=url)
    (id, state, *_, count, calls) = listed.out.split()
    assert (state, count, calls, listed.err) == ("failed", "2", "calls", "")
    shown = await place.run("sessions", "show", id, "--url", place.url)
    assert [line.split()[0] for line in shown.out.splitlines()] == [id, "created", "expires"]
    assert [line.split("  ")[2] for line in shown.err.splitlines()] == ["done", "NO_SUCH_ORDER"]
    events = await place.run("sessions", "events", id, "--from", "3", environ=url)
    seqs = [json.loads(line)["seq"] for line in events.out.splitlines()]
    assert seqs == list(range(3, seqs[-1] + 1))
    over = await place.run("sessions", "cancel", id, environ=url)
    assert over.code in {0, 1}
    assert (await place.run("sessions", "list", "--state", "running", environ=url)).err == "no sessions\n"


def test_sessions_without_a_url_say_what_is_missing(folder: Path) -> None:
    done = command("sessions", "list", folder=folder)
    assert (done.code, done.out) == (2, "")
    assert "--url" in done.err
    assert "ENCLAVE_BROKER_URL" in done.err


async def test_a_session_that_is_not_there_is_said_by_its_code(place: Place) -> None:
    for action in ("show", "events", "cancel"):
        done = await place.run("sessions", action, "s_nobody", "--url", place.url)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error NOT_FOUND: ")

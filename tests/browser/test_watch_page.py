"""examples/watch.html in a real browser, with a broker that is served by a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.browser.chromium import Browser, Page
from tests.client.real import cutting
from tests.http.served import Served, served

APP = """\
from typing import Any
from enclave_broker import Broker

broker = Broker()
broker.client_tool("gate:pass", args=dict[str, Any], result=Any, timeout=60.0)
"""
GATES = """
console.log("first");
await tools.gate.pass({ number: 1 });
console.log("second");
await tools.gate.pass({ number: 2 });
console.log("third");
return { gates: 2 };
"""
SEQS = "[...document.querySelectorAll('#events tr')].map((tr) => Number(tr.cells[0].innerText))"

Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, site: str) -> Generator[Served]:
    with served(tmp_path_factory.mktemp("app"), "--allowed-origin", site, app=APP) as running:
        yield running


@pytest.fixture
def watch(browser: Browser, site: str, server: Served) -> Open:
    """Open the page on a session, or on none. At the end nothing may stand in its console, unless that is meant."""

    @contextmanager
    def open_page(session: str = "", *, quiet: bool = True, **asked: Any) -> Generator[Page]:
        query = {"url": server.url, **({"session": session} if session else {}), **asked}
        with browser.page(f"{site}/watch.html#{urlencode(query)}") as page:
            yield page
            assert page.problems == [] or not quiet

    return open_page


def answer(server: Served, call: dict[str, Any], result: Any = None) -> None:
    """Let a script go on that waits at a gate."""
    body = {"callId": call["payload"]["callId"], "ok": True, "result": result}
    done = server.client.post(f"/sessions/{call['sessionId']}/tool-result", json=body)
    assert done.json()["success"], done.text


def test_it_joins_a_run_in_its_middle_and_sees_it_to_its_end(server: Served, watch: Open) -> None:
    with server.streaming(GATES) as stream:
        call = stream.next("tool_call")
        with watch(stream.id) as page:
            page.until_text("#events", "tool_call")
            assert page.text("#output") == "first\n"
            assert page.text("#status") == "Watching live."
            assert page.text("#result") == ""

            answer(server, call)
            page.until_text("#output", "second")
            assert page.text("#output") == "first\nsecond\n"

            answer(server, stream.next("tool_call"))
            page.until_text("#status", "The run has completed.")
            assert page.text("#output") == "first\nsecond\nthird\n"
            assert json.loads(page.text("#result")) == {"gates": 2}
            assert page.text("#calls").count("answered") == 2
            assert page.evaluate(SEQS) == list(range(1, stream.rest()[-1]["seq"] + 1))


def test_a_reload_in_the_middle_shows_it_all_again_and_goes_on(server: Served, watch: Open) -> None:
    with server.streaming(GATES) as stream:
        call = stream.next("tool_call")
        with watch(stream.id) as page:
            page.until_text("#output", "first")
            page.reload()
            page.until_text("#output", "first")
            assert page.evaluate("document.querySelector('#session').value") == stream.id

            answer(server, call)
            answer(server, stream.next("tool_call"))
            page.until_text("#status", "The run has completed.")
            assert page.text("#output") == "first\nsecond\nthird\n"
            assert page.evaluate(SEQS) == list(range(1, stream.rest()[-1]["seq"] + 1))


def test_it_begins_at_the_event_it_is_asked_for(server: Served, watch: Open) -> None:
    with server.streaming("for (let i = 0; i < 9; i++) console.log(i)") as stream:
        last = stream.rest()[-1]["seq"]
        with watch(stream.id, **{"from": 5}) as page:
            page.until_text("#status", "The run has completed.")
            assert page.evaluate(SEQS) == list(range(5, last + 1))
            assert page.text("#output") == "3\n4\n5\n6\n7\n8\n"


async def test_it_goes_on_without_a_gap_when_its_connection_breaks(server: Served, watch: Open) -> None:
    def scenario(url: str) -> None:
        with server.streaming(GATES) as stream:
            call = stream.next("tool_call")
            with watch(stream.id, url=url, quiet=False) as page:
                page.until_text("#status", "trying again from event")
                answer(server, call)
                answer(server, stream.next("tool_call"))
                page.until_text("#status", "The run has completed.")
                assert page.text("#output") == "first\nsecond\nthird\n"
                assert page.evaluate(SEQS) == list(range(1, stream.rest()[-1]["seq"] + 1))
                assert "ERR_" in page.problems[0]  # the browser's own word on what was cut

    async with cutting(server.url, [700, 500]) as url:  # bytes: within the second event, and soon after
        await asyncio.to_thread(scenario, url)


@pytest.mark.parametrize(
    "code",
    [
        "console.log(MARKUP)",
        "console.warn(MARKUP, { [MARKUP]: MARKUP })",
        "return { [MARKUP]: MARKUP }",
        "await tools.gate.pass({ [MARKUP]: MARKUP })",
        "await callTool(MARKUP, {}).catch((error) => console.log(error.message))",
        "const error = new Error(MARKUP); error.code = MARKUP; throw error",
    ],
)
def test_what_a_script_says_is_never_markup(server: Served, watch: Open, code: str) -> None:
    markup = "<img src=x onerror=document.title='done'><b>bold</b>"
    script = f"const MARKUP = {json.dumps(markup)};\n{code}"
    with server.streaming(script) as stream:
        if "gate" in code:
            answer(server, stream.next("tool_call"), {markup: markup})
        with watch(stream.id) as page:
            page.until_text("#status", "The run has ")
            assert "<img src=x" in page.text("body")
            assert page.evaluate("document.querySelectorAll('img, b').length") == 0
            assert page.evaluate("document.title") == "Watch a run"


def test_what_turns_text_or_has_no_shape_is_shown_as_an_escape(server: Served, watch: Open) -> None:
    with server.streaming(r"console.log('a\u202eb\u001b[2Jc\u200fd\ud800e')") as stream:
        stream.rest()
        with watch(stream.id) as page:
            page.until_text("#status", "The run has completed.")
            assert page.text("#output") == "a\\u202eb\\u001b[2Jc\\u200fd\ufffde\n"


def test_its_buttons_find_a_run_watch_it_and_cancel_it(server: Served, watch: Open) -> None:
    with server.streaming(GATES) as stream, watch() as page:
        stream.next("tool_call")
        assert page.text("#status") == "Not watching."
        page.click("#find")
        page.until_text("#status", "session")
        assert page.evaluate("document.querySelector('#session').value") == stream.id
        page.click("form button")
        page.until_text("#output", "first")
        page.click("#cancel")
        page.until_text("#status", "The run has failed.")
        assert page.text("#result").startswith("SESSION_CANCELLED: ")
        assert stream.rest()[-1]["payload"]["error"]["code"] == "SESSION_CANCELLED"


def test_it_says_so_when_there_is_no_such_session(watch: Open) -> None:
    with watch("s_unknown", quiet=False) as page:
        page.until_text("#status", "NOT_FOUND")


def test_it_says_so_when_the_broker_ends(tmp_path: Path, site: str, watch: Open) -> None:
    with served(tmp_path, "--allowed-origin", site, app=APP) as server, server.streaming(GATES) as stream:
        stream.next("tool_call")
        with watch(stream.id, url=server.url) as page:
            page.until_text("#output", "first")
            assert server.end() == 0
            page.until_text("#result", "SHUTTING_DOWN")
            page.until_text("#status", "The run has failed.")


def test_a_page_of_an_origin_that_is_not_allowed_sees_nothing(browser: Browser, tmp_path: Path, site: str) -> None:
    with served(tmp_path, app=APP) as server, server.streaming("console.log('secret')") as stream:
        stream.rest()
        query = urlencode({"url": server.url, "session": stream.id})
        with browser.page(f"{site}/watch.html#{query}") as page:
            page.until_text("#status", "trying again from event 1")
            assert "secret" not in page.text("body")

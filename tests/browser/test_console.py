"""The console in a real browser, with a broker behind a real server: the key, sessions, calls, tools."""

from __future__ import annotations

import json

from starlette.requests import Request

from enclave_broker import Principal
from enclave_broker.broker.http.app import http_app
from enclave_broker.types.errors import AuthenticationError
from tests.browser.chromium import Browser
from tests.browser.console import REFUNDS, SEQS, Console, Watched, answer, console_page, make_broker
from tests.http.live import Live, serving

KEY = "a key; schlüssel"
GATES = """
console.log("first");
await tools.gate.pass({ number: 1 });
console.log("second");
await tools.gate.pass({ number: 2 });
return { gates: 2 };
"""


async def by_key(request: Request) -> Principal:
    if request.headers.get("authorization", "").encode("latin-1").decode() != f"Bearer {KEY}":
        raise AuthenticationError("nobody is known")
    return Principal("ann")


# -- the key ---------------------------------------------------------------------------------------------------------


def test_it_asks_for_the_key_that_the_server_wants_and_keeps_it_for_the_tab(browser: Browser) -> None:
    broker = make_broker()
    watched = Watched(http_app(broker, auth=by_key))
    with serving(broker, app=watched) as live, console_page(browser, live.url, quiet=False) as console:
        page = console.page
        page.until("!document.querySelector('#key').hidden")
        assert console.focus == "key-text"
        assert page.evaluate("document.querySelector('#nav').hidden")

        page.call("Input.insertText", text="a wrong key")
        console.press("Enter")
        page.until_text("#key-problem", "doesn't take this key")
        assert page.evaluate("document.querySelector('#key-text').value") == ""
        assert "a wrong key" not in page.evaluate("document.documentElement.outerHTML")

        page.call("Input.insertText", text=KEY)
        console.press("Enter")
        page.until_text("#sessions-total", "0 live, 0 over")
        page.reload()
        page.until_text("#sessions-total", "0 live, 0 over")
        stored = "JSON.stringify([Object.values(sessionStorage), Object.values(localStorage), document.cookie])"
        assert json.loads(page.evaluate(stored)) == [[KEY], [], ""]
        assert KEY not in page.evaluate("document.documentElement.outerHTML + location.href + document.title")

        console.click("#forget")
        page.until("document.querySelector('#key')?.hidden === false && sessionStorage.length === 0")
    assert [target for target, _ in watched.asked if "key" in target] == []
    assert [headers for _, headers in watched.asked if "cookie" in headers or "referer" in headers] == []


def test_a_key_that_stops_being_one_is_asked_for_again(browser: Browser) -> None:
    taken = {"yes": True}

    async def auth(request: Request) -> Principal:
        if not taken["yes"] or "authorization" not in request.headers:
            raise AuthenticationError("nobody is known")
        return Principal("ann")

    with serving(make_broker(), auth=auth) as live, console_page(browser, live.url, quiet=False) as console:
        console.page.until("!document.querySelector('#key').hidden")
        console.page.call("Input.insertText", text="x")
        console.press("Enter")
        console.page.until_text("#sessions-total", "0 live")
        taken["yes"] = False
        console.until_text("#key-problem", "any more")
        assert console.page.evaluate("document.querySelector('#sessions').hidden && sessionStorage.length === 0")


def test_without_authentication_it_asks_for_no_key(console: Console) -> None:
    console.page.until_text("#sessions-total", "0 live, 0 over")
    assert console.page.evaluate("document.querySelector('#key').hidden && document.querySelector('#forget').hidden")


# -- sessions --------------------------------------------------------------------------------------------------------


def test_the_list_shows_sessions_that_live_and_those_that_are_over_as_they_come_and_end(
    live: Live, console: Console
) -> None:
    console.page.until_text("#sessions-none", "No sessions.")
    live.run("return 1", sessionId="s_done")
    live.run("throw new Error('no')", sessionId="s_failed")
    with live.streaming(GATES, sessionId="s_live") as stream:
        call = stream.next("tool_call")
        console.until_count("#sessions-rows tr", 3)
        rows = [row.split() for row in console.page.text("#sessions-rows").splitlines()]
        assert [(row[0], row[1], row[-1]) for row in rows] == [
            ("s_live", "waiting", "1"),
            ("s_failed", "failed", "0"),
            ("s_done", "completed", "0"),
        ]
        assert console.page.text("#sessions-total") == "1 live, 2 over"
        answer(live, call)
        answer(live, stream.next("tool_call"))
    console.until_text("#sessions-total", "0 live, 3 over")
    console.type("#sessions-id", "s_l")
    console.until_count("#sessions-rows tr", 1)


def test_a_run_is_seen_as_it_happens(live: Live, console: Console) -> None:
    page = console.page
    with live.streaming(GATES, sessionId="s_run") as stream:
        call = stream.next("tool_call")
        console.watch("s_run")
        page.until_text("#session-says", "Watching live.")
        page.until_text("#session-output", "first")
        page.until_text("#session-calls", "access: gate:*")
        page.until_text("#session-state", "waiting")

        answer(live, call)
        page.until_text("#session-output", "second")
        page.until_text("#session-calls", "done")

        answer(live, stream.next("tool_call"))
        page.until_text("#session-says", "The run has completed.")
        console.until_text("#session-state", "completed")
        assert json.loads(page.text("#session-result")) == {"gates": 2}
        page.until("[...document.querySelectorAll('#session-calls .outcome-done')].length === 2")
        last = stream.rest()[-1]["seq"]
        console.until_over()
        console.click("#session-types [data-type=tool_progress]")
        assert page.evaluate(SEQS) == list(range(1, last + 1))


def test_it_goes_on_without_a_gap_when_its_connection_breaks(browser: Browser) -> None:
    broker = make_broker()
    watched = Watched(http_app(broker))
    with serving(broker, app=watched) as live, console_page(browser, live.url, quiet=False) as console:
        page = console.page
        watched.cuts = 2
        with live.streaming(GATES, sessionId="s_cut") as stream:
            call = stream.next("tool_call")
            console.watch("s_cut")
            page.until_text("#session-says", "trying again from event")
            answer(live, call)
            answer(live, stream.next("tool_call"))
            page.until_text("#session-says", "The run has completed.")
            last = stream.rest()[-1]["seq"]
            console.until_over()
            console.click("#session-types [data-type=tool_progress]")
            assert page.evaluate(SEQS) == list(range(1, last + 1))
            page.until("document.querySelector('#session-output').innerText === 'first\\nsecond\\n'")
    assert watched.cuts == 0


def test_a_run_is_cancelled_with_a_reason(live: Live, console: Console) -> None:
    with live.streaming(GATES, sessionId="s_long") as stream:
        stream.next("tool_call")
        console.watch("s_long")
        console.page.until("!document.querySelector('#session-cancel').hidden")
        console.click("#session-cancel summary")
        console.type("#session-reason", "it took too long")
        console.press("Enter")
        console.page.until_text("#session-result", "SESSION_CANCELLED")
        console.until_text("#session-state", "cancelled")
        assert console.page.evaluate("document.querySelector('#session-cancel').hidden")
        assert "it took too long" in stream.rest()[-1]["payload"]["error"]["message"]


def test_a_script_is_begun_from_the_keyboard_and_watched(live: Live, console: Console) -> None:
    console.open("start")
    console.type("#start-code", "console.log('hello'); return 42")
    console.press("Enter", modifiers=2)  # Ctrl
    console.page.until("!document.querySelector('#session').hidden")
    console.page.until_text("#session-result", "42")
    console.page.until("document.querySelector('#session-output').innerText === 'hello\\n'")


def test_a_script_that_is_refused_says_why(browser: Browser, live: Live) -> None:
    with console_page(browser, live.url, view="start", quiet=False) as console:
        console.page.evaluate("document.querySelector('#start-code').value = ' '.repeat(2_000_000)")
        console.click("#start-button")
        console.page.until_text("#start-problem", "PAYLOAD_TOO_LARGE")


def test_a_session_that_is_not_there_is_said_to_be_gone(browser: Browser, live: Live) -> None:
    with console_page(browser, live.url, view="session/s_nobody", quiet=False) as console:
        console.page.until_text("#session-says", "There is no such session")


def test_types_of_events_are_shown_and_hidden(live: Live, console: Console) -> None:
    live.run("console.log('a'); console.warn('b'); console.log('c')", sessionId="s_types")
    console.watch("s_types")
    console.page.until_text("#session-says", "completed")
    console.until_count("#session-events li", 5)
    console.click("#session-types [data-type=stdout]")
    console.until_count("#session-events li", 3)
    assert console.page.evaluate("document.querySelector('#session-types [data-type=stdout]').ariaPressed === 'false'")
    console.click("#session-types [data-type=stdout]")
    assert console.page.evaluate(SEQS) == [1, 2, 3, 4, 5]


# -- calls, tools ----------------------------------------------------------------------------------------------------


def test_the_history_says_which_rule_decided(live: Live, console: Console) -> None:
    live.run(REFUNDS, sessionId="s_one")
    live.run(REFUNDS, sessionId="s_two")
    console.open("history")
    console.page.until_text("#history-total", "6 calls of 2 sessions")
    rows = console.texts("#history-calls tr:not(.detail) td.rule")
    assert [row.partition(" (")[0] for row in rows[:3]] == [
        "access: the default policy",
        "access: refunds:*",
        "access: refunds:create",
    ]
    console.page.evaluate(
        "(select => { select.value = 'denied'; select.dispatchEvent(new Event('input')) })"
        "(document.querySelector('#history-outcome'))"
    )
    console.until_count("#history-calls tr:not(.detail) .outcome-denied", 4)
    console.type("#history-text", "refunds")
    console.page.until_text("#history-total", "2 of 6 calls")
    assert console.texts("#history-calls tr:not(.detail) td.session") == ["s_two", "s_one"]


def test_a_call_is_opened_to_see_its_arguments_and_why_it_was_refused(live: Live, console: Console) -> None:
    live.run(REFUNDS, sessionId="s_calls")
    console.watch("s_calls")
    console.until_count("#session-calls button.open", 3)
    assert "4000" not in console.page.text("#session-calls")
    console.click("#session-calls tbody tr:nth-child(3) button.open")
    opened = console.page.text("#session-calls tr.detail:not([hidden])")
    assert '"amount": 4000' in opened
    assert "only a supervisor may do that" in opened
    console.click("#session-calls tbody tr:nth-child(3) button.open")
    assert console.count("#session-calls tr.detail:not([hidden])") == 0


def test_the_tools_that_may_be_called_are_shown_with_what_they_take(console: Console) -> None:
    console.open("tools")
    console.page.until_text("#tools-total", "2 tools")
    console.type("#tools-text", "money")
    console.until_count("#tools-rows li", 1)
    console.click("#tools-rows summary")
    console.until_count("#tools-rows pre", 1)
    assert '"amount"' in console.page.text("#tools-rows pre")
    assert console.page.text("#tools-rows .description") == "At once."

"""How the console is used, in a real browser: by keyboard, on small screens, in the dark, offline, mounted."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette

from tests.browser.chromium import Browser
from tests.browser.console import REFUNDS, Console, console_page, make_broker
from tests.http.live import Live, serving


def test_all_of_it_is_reached_by_keyboard(live: Live, console: Console) -> None:
    for name in ("s_one", "s_two", "s_three"):
        live.run("return 1", sessionId=name)
    console.until_count("#sessions-rows tr", 3)
    rows = "[...document.querySelectorAll('#sessions-rows tr')].map((row) => row.innerText.match(/s_[a-z]+/)[0])"
    first, second, last = console.page.evaluate(rows)
    console.page.until("!document.querySelector('#approvals-link').hidden")  # the server has said that there are some
    stops: list[str] = []
    while not stops or stops[-1] not in {first, second, last}:  # the one of the rows that can be reached
        console.press("Tab")
        stops.append(console.focus)
        assert len(stops) < 20, stops
    assert stops == [
        "Skip to the content",
        "Sessions",
        "approvals-link",
        "History",
        "Tools",
        "Run",
        "sessions-state",
        "sessions-id",
        stops[-1],
    ]
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert console.page.evaluate(outline) == "solid"

    console.press("Home")
    assert console.focus == first
    console.press("ArrowDown")
    assert console.focus == second
    console.press("End")
    assert console.focus == last
    console.press("Enter")
    console.page.until("!document.querySelector('#session').hidden")
    assert console.focus == "session-id"
    console.page.until_text("#session-says", "completed")
    console.press("Escape")
    console.page.until("!document.querySelector('#sessions').hidden")
    assert console.focus == "Sessions"


@pytest.mark.parametrize("view", ["sessions", "session/s_wide", "history", "tools", "start"])
def test_no_view_is_wider_than_a_small_screen(live: Live, console: Console, view: str) -> None:
    long = "w" * 126
    code = f"console.log('{long}'.repeat(9)); await callTool('{long}', {{}}).catch(() => 0); {REFUNDS} throw '{long}'"
    live.run(code, sessionId="s_wide")
    live.run(code, sessionId=f"s_{long}")
    console.page.call("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1, mobile=True)
    console.open(view)
    console.look()
    ready = {"sessions": "#sessions-rows tr", "session": "#session-calls tr", "history": "#history-calls tr.detail"}
    ready |= {"tools": "#tools-rows li", "start": "#start-code"}
    console.page.until(f"document.querySelector('{ready[view.partition('/')[0]]}') !== null")
    console.page.evaluate(
        f"document.querySelectorAll('#{view.partition('/')[0]} button.open').forEach((b) => b.click())"
    )
    assert console.page.evaluate("document.documentElement.scrollWidth") == 360


def test_it_is_dark_where_that_is_wanted(console: Console) -> None:
    shades: dict[str, int] = {}
    for scheme in ("light", "dark"):
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        console.page.call("Emulation.setEmulatedMedia", features=wanted)
        colour: str = console.page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades[scheme] = sum(int(part) for part in colour.strip("rgb()").split(","))
    assert shades["dark"] < 150
    assert shades["light"] > 600


def test_a_server_that_is_gone_is_said_to_be(browser: Browser) -> None:
    with serving(make_broker()) as live, console_page(browser, live.url, quiet=False) as console:
        console.until_text("#link", "connected")
        console.page.call("Network.enable")
        console.page.call(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        console.until_text("#link", "no answer")
        console.page.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        console.until_text("#link", "connected")


def test_it_works_where_it_is_mounted(browser: Browser) -> None:
    broker, app = make_broker(), Starlette()
    broker.mount(app, "/some/enclave")
    with serving(broker, app=app) as live, console_page(browser, f"{live.url}/some/enclave", view="start") as console:
        console.type("#start-code", "return await tools.refunds.create({ order: 1, amount: 2 })")
        console.click("#start-button")
        console.page.until_text("#session-result", "2 for order 1")
        console.page.until_text("#session-calls", "access: refunds:create")

"""The console's approvals in a real browser. The wire of approvals is spoken by a stand-in."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from enclave_broker.broker.http.app import http_app
from tests.browser.chromium import Browser
from tests.browser.console import Console, console_page
from tests.http.live import Live, memory_broker, serving


class Approvals:
    """A broker's application with approvals beside it."""

    def __init__(self) -> None:
        self.broker = memory_broker()
        self.app = http_app(self.broker)
        self.all: dict[str, dict[str, Any]] = {}
        self.decided: list[tuple[str, dict[str, Any]]] = []

    def ask(self, id: str, args: dict[str, Any], **more: Any) -> None:
        now = round(time.time() * 1000)
        self.all[id] = {
            "approvalId": id,
            "sessionId": "s_refunds",
            "callId": f"c_{id}",
            "toolName": "refunds:create",
            "args": args,
            "requestedBy": {"subject": "ann", "tenant": "acme"},
            "rule": "access: refunds:* (policy.yaml:4)",
            "createdAt": now,
            "expiresAt": now + 300_000,
            "state": "pending",
            **more,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/approvals"):
            await self.app(scope, receive, send)
            return
        await (await self._answer(Request(scope, receive)))(scope, receive, send)

    async def _answer(self, request: Request) -> JSONResponse:
        id = request.scope["path"].removeprefix("/approvals").strip("/")
        if not id:
            pending = [each for each in self.all.values() if each["state"] == "pending"]
            return JSONResponse({"approvals": pending, "total": len(pending)})
        if id not in self.all:
            return JSONResponse({"code": "NOT_FOUND", "message": "no such approval"}, 404)
        if request.method == "GET":
            return JSONResponse(self.all[id])
        if self.all[id]["state"] != "pending":
            return JSONResponse({"code": "APPROVAL_DECIDED", "message": "it is decided"}, 409)
        assert request.headers["content-type"] == "application/json"
        body = await request.json()
        self.decided.append((id, body))
        self.all[id]["state"] = {"approve": "approved", "deny": "denied"}[body["decision"]]
        return JSONResponse({"success": True, "approvalId": id})


@pytest.fixture
def approvals() -> Approvals:
    return Approvals()


@pytest.fixture
def live(approvals: Approvals) -> Generator[Live]:
    with serving(approvals.broker, app=approvals) as running:
        yield running


@pytest.fixture
def console(browser: Browser, live: Live) -> Generator[Console]:
    with console_page(browser, live.url, view="approvals", quiet=False) as opened:
        opened.page.until("!document.querySelector('#approvals-link').hidden")
        yield opened


def test_what_waits_is_shown_with_who_asked_for_what_and_by_which_rule(approvals: Approvals, console: Console) -> None:
    console.until_text("#approvals-total", "Nothing waits")
    approvals.ask("a_1", {"order": 2, "amount": 4000})
    console.until_count(".approval", 1)
    text = console.page.text(".approval")
    for part in ("refunds:create", "ann of acme", "access: refunds:* (policy.yaml:4)", "s_refunds", '"amount": 4000'):
        assert part in text
    assert "expires in 4 min" in text
    assert console.page.text("#approvals-count") == "1"
    assert console.page.evaluate("document.title") == "(1) enclave-broker console"
    assert console.page.text("#announce") == "1 approval pending."


def test_one_is_approved_and_one_denied_with_a_reason(approvals: Approvals, console: Console) -> None:
    approvals.ask("a_1", {"amount": 1})
    approvals.ask("a_2", {"amount": 2})
    console.until_count(".approval", 2)
    console.click(".approval:nth-child(1) button.main")
    console.until_text(".approval:nth-child(1)", "Approved by you.")
    console.type(".approval:nth-child(2) label input", "too much")
    console.click(".approval:nth-child(2) button.danger")
    console.until_text(".approval:nth-child(2)", "Denied by you: too much")
    assert approvals.decided == [
        ("a_1", {"decision": "approve"}),
        ("a_2", {"decision": "deny", "reason": "too much"}),
    ]
    assert console.page.evaluate("document.activeElement.className") == "note"
    console.until_text("#approvals-total", "Nothing waits")
    console.open("tools")
    console.open("approvals")
    console.until_count(".approval", 0)


def test_one_that_somebody_else_decides_stays_to_say_so(approvals: Approvals, console: Console) -> None:
    approvals.ask("a_1", {"amount": 1})
    approvals.ask("a_2", {"amount": 2})
    console.until_count(".approval", 2)
    approvals.all["a_1"] |= {"state": "denied", "decidedBy": {"subject": "bob"}, "reason": "no"}
    console.until_text(".approval:nth-child(1)", "Denied by bob: no")
    assert '"amount": 2' in console.page.text(".approval:nth-child(2)")


def test_one_that_was_decided_a_moment_ago_is_not_decided_again(approvals: Approvals, console: Console) -> None:
    approvals.ask("a_1", {"amount": 1})
    console.until_count(".approval", 1)
    approvals.all["a_1"]["state"] = "expired"
    console.click(".approval button.main")
    console.until_text(".approval", "Expired.")
    assert approvals.decided == []


def test_ten_are_ten_in_one_list_and_decided_together(approvals: Approvals, console: Console) -> None:
    for number in range(10):
        approvals.ask(f"a_{number}", {"order": number})
    console.until_count(".approval", 10)
    assert console.page.evaluate("document.querySelector('#approve-marked').disabled")
    console.click("#mark-all")
    console.until_text("#marked-total", "10 marked")
    console.click(".approval:nth-child(3) input[type=checkbox]")
    console.click("#approve-marked")
    console.until_count(".approval.over", 9)
    assert approvals.decided == [(f"a_{number}", {"decision": "approve"}) for number in range(10) if number != 2]
    assert approvals.all["a_2"]["state"] == "pending"


def test_what_is_not_shown_whole_cannot_be_approved(approvals: Approvals, console: Console) -> None:
    approvals.ask("a_1", {"note": "x" * 10_000, "amount": 4000})
    approvals.ask("a_2", {"amount": 1})
    approvals.ask("a_3", {"note": "x" * 1_100_000})
    approvals.ask("a_4", {"amount": 1})
    console.until_count(".approval", 4)
    disabled = "[...document.querySelectorAll('.approval button.main')].map((each) => each.disabled)"
    assert console.page.evaluate(disabled) == [True, False, True, False]
    console.click("#mark-all")
    console.until_text("#marked-total", "2 marked")
    console.click(".approval:nth-child(1) button.quiet")
    assert '"amount": 4000' in console.page.text(".approval:nth-child(1) pre")
    assert console.page.evaluate(disabled) == [False, False, True, False]
    assert "can't be approved here" in console.page.text(".approval:nth-child(3)")
    console.click(".approval:nth-child(3) button.danger")
    console.until_text(".approval:nth-child(3)", "Denied by you.")


def test_what_a_script_asks_for_is_never_markup(approvals: Approvals, console: Console) -> None:
    markup = "<img src=x onerror=document.title='done'>\u202e"
    principal = {"subject": markup, "tenant": markup}
    approvals.ask("a_1", {markup: markup}, toolName=markup, rule=markup, requestedBy=principal)
    console.until_count(".approval", 1)
    assert console.count("img") == 0
    text = console.page.text(".approval")
    assert text.count("<img src=x onerror=document.title='done'>\\u202e") == 6
    assert "\u202e" not in text


def test_a_run_shows_what_of_it_waits(approvals: Approvals, live: Live, console: Console) -> None:
    live.run("return 1", sessionId="s_refunds")
    live.run("return 1", sessionId="s_other")
    approvals.ask("a_1", {"amount": 1})
    console.watch("s_other")
    console.until_text("#approvals-count", "1")
    assert console.count("#session-approvals .approval") == 0
    console.watch("s_refunds")
    console.until_count("#session-approvals .approval", 1)
    console.click("#session-approvals button.main")
    console.until_text("#session-approvals", "Approved by you.")


def test_they_are_decided_from_the_keyboard(approvals: Approvals, console: Console) -> None:
    approvals.ask("a_1", {"amount": 1})
    console.until_count(".approval", 1)
    console.page.evaluate("document.querySelector('.approval input[type=checkbox]').focus()")
    stops: list[str] = []
    while "Deny" not in stops:
        console.press("Tab")
        stops.append(console.focus)
        assert len(stops) < 10, stops
    assert stops[0] == "s_refunds"
    assert stops[-2:] == ["Approve", "Deny"]
    console.press("Enter")
    console.until_text(".approval", "Denied by you.")


def test_approvals_fit_a_small_screen(approvals: Approvals, console: Console) -> None:
    approvals.ask("a_1", {"w" * 200: "w" * 200}, toolName="w" * 130, requestedBy={"subject": "w" * 200})
    console.page.call("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1, mobile=True)
    console.until_count(".approval", 1)
    assert console.page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_thousand_are_bounded(approvals: Approvals, console: Console) -> None:
    for number in range(1000):
        approvals.ask(f"a_{number}", {"order": number})
    console.until_text("#approvals-total", "1,000 pending; 750 more are shown when these are decided")
    assert console.count(".approval") == 250

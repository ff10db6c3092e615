"""What the tests of the console share: the page in a browser, its keyboard, and a server that is looked over."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enclave_broker import AccessController, Broker, Rule, SessionLimits
from enclave_broker.broker.http.leftovers import ABORT
from tests.browser.chromium import Browser, Page
from tests.http.live import Live, memory_broker

REFUNDS = """
await tools.refunds.create({ order: 1, amount: 40 });
try { await tools.refunds.create({ order: 2, amount: 4000 }) } catch (error) { console.error(error.message) }
try { await tools.payroll.list({}) } catch (error) { console.error(error.message) }
"""
SEQS = "[...document.querySelectorAll('#session-events .seq')].map((each) => Number(each.innerText))"
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35, " ": 32}


class Console:
    """The page, and how to go about in it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, view: str) -> None:
        self.page.evaluate(f"void (location.hash = {json.dumps(f'#/{view}')})")
        name = view.partition("/")[0]
        self.page.until(f"!document.querySelector('#{name}').hidden")

    def watch(self, session: str) -> None:
        self.open(f"session/{quote(session)}")
        self.page.until(f"document.querySelector('#session-id').innerText === {json.dumps(session)}")

    def press(self, key: str, modifiers: int = 0) -> None:
        what: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": modifiers}
        text = {"Enter": "\r", " ": " "}.get(key)
        self.page.call("Input.dispatchKeyEvent", type="keyDown", **what, **({"text": text} if text else {}))
        self.page.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def type(self, selector: str, text: str) -> None:
        self.page.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.page.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """With the mouse, wherever on the page it is, once it is there."""
        self.page.until(f"document.querySelector({json.dumps(selector)}) !== null")
        self.page.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{ block: 'center' }})")
        self.page.click(selector)

    def count(self, selector: str) -> int:
        return self.page.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length")

    def look(self) -> None:
        """As when the tab is looked at again: the page asks at once for what it asks for every other second."""
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def until_text(self, selector: str, text: str) -> None:
        self.look()
        self.page.until_text(selector, text)

    def until_over(self) -> None:
        """Until a run's last event is in the list."""
        self.page.until("document.querySelector('#session-events .type-final') !== null")

    def until_count(self, selector: str, number: int) -> None:
        self.look()
        self.page.until(f"document.querySelectorAll({json.dumps(selector)}).length === {number}")

    def texts(self, selector: str) -> list[str]:
        """Of each element, without what surrounds it; also of those that aren't in sight."""
        return self.page.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent.trim())"
        )

    @property
    def focus(self) -> str:
        return self.page.evaluate("(document.activeElement.id || document.activeElement.textContent).trim()")


def make_broker() -> Broker:
    rules = [
        Rule("gate:*", allow=True),
        Rule("refunds:create", allow=True, when={"amount": {"le": 100}}),
        Rule("refunds:*", allow=False, reason="only a supervisor may do that"),
    ]
    limits = SessionLimits(max_stdout_bytes=8 << 20, max_tool_calls=100)
    broker = memory_broker(access=AccessController(rules=rules, default_policy="deny"), limits=limits)
    broker.client_tool("gate:pass", args=dict[str, Any], result=Any, timeout=60.0)

    @broker.tool("refunds:create")
    async def create(order: int, amount: float) -> str:
        """Pay money back.

        At once.
        """
        return f"{amount:g} for order {order}"

    @broker.tool("payroll:list", effect="read")
    async def salaries() -> list[int]:
        return [100]

    return broker


def answer(live: Live, call: dict[str, Any], result: Any = None) -> None:
    """Let a script go on that waits at a gate."""
    body = {"callId": call["payload"]["callId"], "ok": True, "result": result}
    done = live.client.post(f"/sessions/{call['sessionId']}/tool-result", json=body)
    assert done.json()["success"], done.text


@contextmanager
def console_page(browser: Browser, url: str, *, view: str = "sessions", quiet: bool = True) -> Generator[Console]:
    """The page at `url`. At the end nothing may stand in the browser's own console, unless that is meant."""
    with browser.page(f"{url}/console#/{view}") as page:
        yield Console(page)
        # A server without approvals says so once.
        assert not quiet or [each for each in page.problems if not each.endswith("/approvals")] == []


class Watched:
    """ASGI middleware that keeps what was asked for, and resets the connection of as many streams as it is told."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Targets, with their headers."""
        self.cuts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            target = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}"
            headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            self.asked.append((target, headers))
            if self.cuts and scope["path"].endswith("/stream"):
                self.cuts -= 1
                send = _reset_after_a_piece(scope, send)
        await self.app(scope, receive, send)


def _reset_after_a_piece(scope: Scope, send: Send) -> Send:
    async def cut(message: Message) -> None:
        await send(message)
        if message["type"] == "http.response.body" and (abort := scope["extensions"].get(ABORT)):
            abort()

    return cut

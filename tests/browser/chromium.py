"""A headless Chromium, driven by the DevTools protocol over a pair of pipes: without a driver, a port or a package.

Owns the process, its pages and what they complain of. Messages are JSON between NULs; Chromium reads them from
descriptor 3 and answers on 4.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRAMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it can't be had by root or in most containers, and the only pages are our own
    "--disable-dev-shm-usage",  # which containers keep small
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--no-first-run",
)
WITH_PIPES = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(ours[0], 3)
os.dup2(ours[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
SECONDS = 20.0
"""After which a test gives up what doesn't come."""


def find_chromium() -> str | None:
    return next((found for program in PROGRAMS if (found := shutil.which(program))), None)


class Browser:
    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process = process
        self._to = to
        self._back = back
        self._held = b""
        self._id = 0
        self.pages: dict[str, Page] = {}

    def call(self, method: str, *, page: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to a command. Raises Gone when it can't be done."""
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method, "params": parameters}
        if page is not None:
            message["sessionId"] = page
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            got = self._message(end - time.monotonic())
            if got is None:
                raise AssertionError(f"the browser doesn't answer {method}")
            if got.get("id") == self._id:
                if "error" in got:
                    raise Gone(f"{method}: {got['error']}")
                return got["result"]

    def listen(self, seconds: float) -> None:
        """Take in what the browser says, until it says nothing for so long."""
        while self._message(seconds) is not None:
            pass

    def _message(self, seconds: float) -> dict[str, Any] | None:
        while b"\0" not in self._held:
            if not select.select([self._back], [], [], max(seconds, 0))[0]:
                return None
            data = os.read(self._back, 1 << 20)
            assert data, f"the browser has ended with {self._process.wait(SECONDS)}"
            self._held += data
        line, _, self._held = self._held.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "id" not in message and (page := self.pages.get(message.get("sessionId", ""))):
            page.hear(message["method"], message["params"])
        return message

    @contextmanager
    def page(self, url: str) -> Generator[Page]:
        """A page with storage, cookies and connections of its own, at this address."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.go(url)
        try:
            yield page
        finally:
            del self.pages[session]
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.problems: list[str] = []
        """What stands in the console as an error or a warning, and what was thrown and not caught."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, page=self._session, **parameters)

    def go(self, url: str) -> None:
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        self.until("document.readyState === 'complete'")

    def reload(self) -> None:
        self.evaluate("globalThis.isOld = true")
        self.call("Page.reload")
        self.until("document.readyState === 'complete' && !globalThis.isOld")

    def evaluate(self, code: str) -> Any:
        """The value of an expression, as JSON has it. Raises Gone while the page is being replaced."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, code: str) -> Any:
        """The expression's value, once there is one that is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with suppress(Gone):
                if value := self.evaluate(code):
                    return value
            self._browser.listen(0.02)
        raise AssertionError(f"never true: {code}\nthe page: {self.text('body')}\nits problems: {self.problems}")

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def until_text(self, selector: str, text: str) -> None:
        self.until(f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(text)})")

    def click(self, selector: str) -> None:
        """With the mouse, in the element's middle: nothing may lie over it."""
        where = self.evaluate(
            f"(({{x, y, width, height}}) => ({{x: x + width / 2, y: y + height / 2}}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)

    def hear(self, method: str, said: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.problems.append(str(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["type"] in {"error", "warning", "assert"}:
                self.problems.append(str(said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] in {"error", "warning"}:
                self.problems.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case _:
                pass


class Gone(Exception):
    """What a command was about isn't there (any more)."""


@contextmanager
def chromium(program: str, folder: Path) -> Generator[Browser]:
    """Run it, with all that it keeps in `folder`."""
    theirs_in, to = os.pipe()
    back, theirs_out = os.pipe()
    command = [sys.executable, "-c", WITH_PIPES, str(theirs_in), str(theirs_out), program, *OPTIONS]
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [*command, f"--user-data-dir={folder}"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Browser(process, to, back)
    try:
        try:
            browser.call("Browser.getVersion")
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{program} doesn't start: {(folder / 'said.txt').read_text()}") from error
        yield browser
    finally:
        os.close(to)  # it ends when nobody can tell it anything any more
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(back)

"""The refund of `python examples/tenants` that is decided in the console, with the page in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.browser.chromium import Browser
from tests.browser.console import Console, console_page

TENANTS = Path(__file__).parents[2] / "examples/tenants"


class Example(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    key: str
    """Sam's."""

    def end(self) -> str:
        """What it says from now on."""
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        assert self.process.wait() == 0, said
        return " ".join(said.split())


@contextmanager
def example_at_its_console() -> Generator[Example]:
    """It runs until it waits for somebody in the console."""
    command = [sys.executable, str(TENANTS), "--console"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if found := re.search(r"(http://\S+)/console#/approvals", line):
                    yield Example(process, found[1], process.stdout.readline().strip())
                    return
            raise AssertionError(said)
        finally:
            process.terminate()  # unless it has ended


def give_key(console: Console, key: str) -> None:
    console.page.until("!document.querySelector('#key').hidden")
    console.page.call("Input.insertText", text=key)
    console.press("Enter")


def test_a_supervisor_approves_the_examples_refund_in_the_console(browser: Browser) -> None:
    with (
        example_at_its_console() as example,
        console_page(browser, example.url, view="approvals", quiet=False) as console,
    ):
        give_key(console, example.key)
        console.until_count(".approval", 1)
        text = console.page.text(".approval")
        for part in ("refunds:create", "clara of acme", "policy.yaml:6", "s_third", '"amount": 1400'):
            assert part in text
        console.click(".approval button.main")
        console.until_text(".approval", "Approved by you.")
        said = example.end()
    assert "s_third: 1400 for order 4" in said
    assert "approved by sam@acme, in the console" in said
    assert "As told" in said


def test_a_supervisor_who_denies_it_there_is_heard_too(browser: Browser) -> None:
    with (
        example_at_its_console() as example,
        console_page(browser, example.url, view="approvals", quiet=False) as console,
    ):
        give_key(console, example.key)
        console.until_count(".approval", 1)
        console.type(".approval label input", "ask again <b>tomorrow</b>")
        console.click(".approval button.danger")
        console.until_text(".approval", "Denied by you: ask again <b>tomorrow</b>")
        said = example.end()
    assert "s_third: APPROVAL_DENIED: ask again <b>tomorrow</b>" in said
    assert "denied by sam@acme, in the console: ask again" in said

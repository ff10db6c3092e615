"""A person's word at the terminal, and at a broker that is served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enclave_broker import AccessController, Broker, Rule
from enclave_broker.cli.asked_arguments import shown_arguments
from enclave_broker.cli.text import width
from tests.cli.terminal import command, terminal
from tests.http.live import Live, memory_broker, serving

APP = """\
from enclave_broker import AccessController, Broker, Rule

rules = [Rule("refund", allow="ask", approvers={"role": "supervisor"}), Rule("*", allow=True)]
broker = Broker(access=AccessController(rules=rules))

@broker.tool("refund")
async def refund(amount: int, note: str = "") -> int:
    return amount
"""
ONE = "return await callTool('refund', {amount: 5, note: '\\x1b[2Jharmless'}).catch((error) => error.message)"
THREE = (
    "return (await Promise.allSettled([1, 2, 3].map((amount) => callTool('refund', {amount}))))"
    ".map((each) => each.status)"
)
LOST = "return await callTool('refund', {amount: 5}).catch((error) => [error.code, error.message])"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    return tmp_path


# -- run ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "value"), [(b"y\n", "5"), (b"what?\nyes\n", "5"), (b"n\n", "denied at the terminal")])
def test_run_asks_at_the_terminal_and_shows_what_is_asked_escaped(folder: Path, keys: bytes, value: str) -> None:
    with terminal("run", "-e", ONE, folder=folder) as screen:
        screen.wait_for("approve? [y/n]")
        assert "\\u001b[2Jharmless" in screen.shown
        assert "\x1b[2J" not in screen.shown
        assert '"role":"supervisor"' in screen.shown
        screen.press(keys)
        assert screen.end() == 0
        assert value in screen.lines[-2] + screen.lines[-3]


FAKE = """
const row = (text) => text.padEnd(80);
const note = ' '.repeat(80 * 30) + row('1 call to approve:') + row('  1. refund {"amount":1}') + LONG;
return await callTool('refund', { amount: 5000, note }).catch((error) => error.message)
"""


@pytest.mark.parametrize("long", ["''", "'.'.repeat(5_000) + ' '.repeat(200)", "'|end|'"])
def test_no_argument_pushes_what_is_asked_off_the_screen(folder: Path, long: str) -> None:
    with terminal("run", "-e", FAKE.replace("LONG", long), folder=folder) as screen:
        screen.wait_for("refund: approve? [y/n], [v]iew what is left out ")
        asked = screen.shown[screen.shown.index("1 call to approve:") :]
        assert len(asked) < 12 * 80
        assert '"amount":5000' in asked
        assert "«160 blanks»" in asked
        assert "characters left out, sha256 " in asked
        assert '{\\"amount\\":1}' not in asked
        screen.press(b"v\n")
        screen.wait_for('{\\"amount\\":1}')
        screen.wait_for("characters left out, sha256 ")
        screen.press(b"n\n")
        assert screen.end() == 0


def test_the_rows_of_one_call_are_bounded_whatever_its_arguments_are() -> None:
    arguments = {f"name {at}": ["x" * 150, "🙂" * 10, at] for at in range(1_000)}
    shown, is_cut = shown_arguments(arguments, 80)
    assert is_cut
    assert width(shown) < 10 * 80
    assert shown.startswith('{"name 0":["xxx')
    assert re.search(r"… «cut: [\d,]+ characters in all, sha256 [0-9a-f]{16}…»$", shown)


def test_short_arguments_are_shown_whole() -> None:
    arguments: dict[str, Any] = {"a": ["x" * 160, 1.5, None, True], "b   c": "«9 blanks»", "": {}}
    assert shown_arguments(arguments, 80) == (json.dumps(arguments, separators=(",", ":"), ensure_ascii=False), False)


def test_calls_that_wait_together_are_one_list(folder: Path) -> None:
    with terminal("run", "-e", THREE, folder=folder) as screen:
        screen.wait_for("numbers such as 1 3:")
        assert "3 calls, refund (3): approve?" in screen.shown
        assert screen.shown.count("asked by anonymous") == 3
        screen.press(b"1 3\n")
        assert screen.end() == 0
        assert '["fulfilled", "rejected", "fulfilled"]' in screen.shown


def test_the_end_of_input_is_no_approval(folder: Path) -> None:
    with terminal("run", "-e", LOST, folder=folder) as screen:
        screen.wait_for("approve? [y/n]")
        screen.press(b"\x04")
        assert screen.end() == 0
        assert "nobody to ask (end of input)" in screen.shown


def test_ctrl_c_at_the_question_ends_the_run(folder: Path) -> None:
    with terminal("run", "-e", ONE, folder=folder) as screen:
        screen.wait_for("approve? [y/n]")
        screen.press(b"\x03")
        assert screen.end() == 130
        assert "SESSION_CANCELLED" in screen.shown


def test_without_a_terminal_nothing_is_approved_but_by_yes(folder: Path) -> None:
    denied = command("run", "-e", LOST, folder=folder)
    code, message = json.loads(denied.out)
    assert (denied.code, code) == (0, "APPROVAL_DENIED")
    assert "no terminal, and no --yes" in message
    approved = command("run", "-e", THREE, "--yes", folder=folder)
    assert (approved.code, json.loads(approved.out)) == (0, ["fulfilled"] * 3)


def test_tools_call_asks_too(folder: Path) -> None:
    call = ("tools", "call", "refund", '{"amount": 7}')
    denied = command(*call, folder=folder)
    assert (denied.code, denied.out) == (1, "")
    assert "APPROVAL_DENIED" in denied.err
    assert command(*call, "--yes", folder=folder).out == "7\n"
    with terminal(*call, folder=folder) as screen:
        screen.wait_for("approve? [y/n]")
        screen.press(b"y\n")
        assert screen.end() == 0
        assert screen.lines[-1] == "7"


def test_yes_is_about_a_broker_of_this_process(folder: Path) -> None:
    refused = command("run", "-e", "1", "--yes", "--url", "http://127.0.0.1:1", folder=folder)
    assert (refused.code, "--yes" in refused.err) == (2, True)


def test_access_check_says_who_may_approve(folder: Path) -> None:
    checked = command("access", "check", "refund", folder=folder)
    assert checked.code == 1
    assert 'approvers  {"role":"supervisor"}' in checked.out


# -- approvals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def live() -> Iterator[Live]:
    broker: Broker = memory_broker(access=AccessController(rules=[Rule("*", allow="ask")]))

    @broker.tool("refund")
    async def refund(amount: int, note: str = "") -> int:
        return amount

    with serving(broker) as running:
        yield running


def approvals(live: Live, *arguments: str, folder: Path) -> tuple[int, str, str]:
    done = command("approvals", *arguments, "--url", live.url, folder=folder)
    return done.code, done.out, done.err


def test_approvals_are_listed_approved_and_denied_at_a_url(live: Live, folder: Path) -> None:
    assert approvals(live, "list", folder=folder) == (0, "", "nothing waits for your approval\n")
    with live.streaming(THREE, sessionId="s_shop") as stream:
        live.until(lambda: len(live.broker.approvals.open()) == 3)
        code, out, _ = approvals(live, "list", "--session", "s_shop", folder=folder)
        ids = [line.split()[0] for line in out.splitlines()[::2]]
        assert (code, len(ids), "in s_shop" in out) == (0, 3, True)
        assert '{"amount":1,"note":""}' in out
        assert approvals(live, "list", "--session", "s_other", folder=folder)[1] == ""
        code, _, err = approvals(live, "approve", ids[0], ids[2], folder=folder)
        assert (code, "2 calls approved" in err) == (0, True)
        code, _, err = approvals(live, "deny", ids[1], "--reason", "no", folder=folder)
        assert (code, f"{ids[1]}  denied" in err) == (0, True)
        assert stream.next("final")["payload"]["result"] == ["fulfilled", "rejected", "fulfilled"]
    code, _, err = approvals(live, "approve", ids[1], folder=folder)
    assert (code, "APPROVAL_DECIDED" in err) == (1, True)
    code, _, err = approvals(live, "approve", "a_unknown", folder=folder)
    assert (code, "NOT_FOUND" in err) == (1, True)


def test_what_a_script_sends_reaches_the_screen_escaped(live: Live, folder: Path) -> None:
    with live.streaming(ONE) as stream:
        live.until(live.broker.approvals.open)
        _, out, _ = approvals(live, "list", folder=folder)
        assert "\\u001b[2J" in out
        assert "\x1b" not in out
        (asked,) = live.broker.approvals.open()
        assert approvals(live, "approve", asked.id, folder=folder)[0] == 0
        assert stream.next("final")["payload"]["result"] == 5

"""Approvals at the terminal: what waits is shown, and whoever sits there says yes or no. For `run` and `tools call`.

It is their own broker and their own process: no rule's `approvers` are asked for. What scripts and tools say is
escaped before it is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import sys
import termios
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.calls.asked import Asked, Word
from enclave_broker.cli.asked_arguments import shown_arguments
from enclave_broker.cli.screen import BOLD, CYAN, DIM, YELLOW, Screen
from enclave_broker.cli.text import count, cut, inline, json_text
from enclave_broker.types.errors import EnclaveError
from enclave_broker.types.principal import Principal

__all__ = ["Asker", "shown_facts"]

Over = Callable[[], Awaitable[object]]

GATHER_SECONDS = 0.05
"""What is asked together is shown as one list: so long it waits for more."""
_LOST = {"NOT_FOUND", "APPROVAL_DECIDED"}
"""Somebody else was faster, the time, or the session's end."""


_NAME_COLUMNS = 60
_NAMED = 4  # tools in a question


class Asker:
    """`yes` approves everything. Where there is no terminal and no `yes`, everything is denied."""

    def __init__(self, broker: Broker, screen: Screen, *, yes: bool) -> None:
        self._broker = broker
        self._screen = screen
        self._yes = yes
        self._by = Principal(_user())

    async def ask(self, over: Over) -> None:
        """Ask about all that is pending, until it is decided or what `over` gives is done. In the broker's loop."""
        await asyncio.sleep(GATHER_SECONDS)
        found = self._broker.approvals.open()
        if not found:
            return
        if self._yes:
            await self._answer(found, "approved", "")
        elif not (sys.stdin.isatty() and sys.stderr.isatty()):
            await self._answer(found, "denied", "nobody to ask (no terminal, and no --yes)")
        else:
            await self._ask(found, over)

    async def _ask(self, found: Sequence[Asked], over: Over) -> None:
        is_cut = self._show(found)
        with contextlib.suppress(termios.error):  # what was typed before is no answer
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        question = _question(found, is_cut=is_cut)
        chosen: set[int] | None = None
        while chosen is None:
            self._screen.err.write(self._screen.err.paint(question, BOLD))
            line = await _first(_line(), over())
            if line is None:
                self._screen.note("")
                return
            if not line:  # end of input: nobody is there any more
                self._screen.note("")
                await self._answer(found, "denied", "nobody to ask (end of input)")
                return
            answer = line.strip().lower()
            if answer in {"v", "view"}:
                self._show_whole(found)
                self._show(found)
            chosen = _chosen(answer, len(found))
        approved = [asked for number, asked in enumerate(found, 1) if number in chosen]
        await self._answer(approved, "approved", "")
        await self._answer([asked for asked in found if asked not in approved], "denied", "denied at the terminal")

    def _show(self, found: Sequence[Asked]) -> bool:
        """Each call in few rows; whether anything of it is left out."""
        is_cut = False
        screen, err = self._screen, self._screen.err
        screen.status("")
        screen.note(err.paint(f"{count(len(found), 'call')} to approve:", YELLOW))
        for number, asked in enumerate(found, 1):
            approval = asked.approval()
            who = cut(inline(approval.requested_by.subject), _NAME_COLUMNS)
            args, shortened = shown_arguments(approval.args, screen.columns)
            is_cut = is_cut or shortened
            screen.note(f"  {number}. {err.paint(_tool(asked), CYAN)} {args}")
            rule = asked.rule
            wanted = f"  for {shown_facts(rule.approvers)}" if rule is not None and rule.approvers is not None else ""
            screen.note(err.paint(f"     asked by {who}  {inline(approval.rule)}{wanted}", DIM))

        return is_cut

    def _show_whole(self, found: Sequence[Asked]) -> None:
        for number, asked in enumerate(found, 1):
            self._screen.note(f"  {number}. {_tool(asked)} {json_text(asked.approval().args, indent=2)}")

    async def _answer(self, found: Sequence[Asked], word: Word, reason: str) -> None:
        for asked in found:  # each by itself: one that is gone meanwhile stops none of the others
            try:
                await self._broker.approvals.answer([asked.id], word, self._by, reason, _anybody)
            except EnclaveError as error:
                if error.code not in _LOST:
                    raise


def shown_facts(approvers: object) -> str:
    """A rule's `approvers`, for a line on the screen."""
    return "whom a function of the app knows" if callable(approvers) else inline(json_text(approvers, compact=True))


def _question(found: Sequence[Asked], *, is_cut: bool) -> str:
    """It says again what it is about: what stands above may have left the screen."""
    view = ", [v]iew what is left out" if is_cut else ""
    if len(found) == 1:
        return f"{_tool(found[0])}: approve? [y/n]{view} "
    tools = Counter(map(_tool, found))
    named = ", ".join(f"{tool} ({number})" for tool, number in tools.most_common(_NAMED))
    more = f", {len(tools) - _NAMED} other tools" if len(tools) > _NAMED else ""
    return f"{len(found)} calls, {named}{more}: approve? [y]es all, [n]one{view}, or numbers such as 1 3: "


def _tool(asked: Asked) -> str:
    return cut(inline(asked.approval().tool), _NAME_COLUMNS)


def _chosen(text: str, most: int) -> set[int] | None:
    """The numbers that are approved; None for what is no answer."""
    if text in {"y", "yes"}:
        return set(range(1, most + 1))
    if text in {"n", "no"}:
        return set()
    words = text.replace(",", " ").split()
    if most > 1 and words and all(word.isascii() and word.isdigit() and len(word) < 7 for word in words):
        numbers = set(map(int, words))
        return numbers if numbers <= set(range(1, most + 1)) else None
    return None


async def _line() -> str:
    """The next line of the terminal, "" at its end. Cancelling this leaves it for the next reader."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 65_536).decode("utf-8", "replace")  # a terminal gives whole lines


async def _first(line: Awaitable[str], over: Awaitable[object]) -> str | None:
    """The line, None if `over` is done before."""
    reading, ending = asyncio.ensure_future(line), asyncio.ensure_future(over)
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        return await reading if reading.done() else None
    finally:
        reading.cancel()
        ending.cancel()


def _anybody(_asked: Asked, _by: Principal, _facts: Mapping[str, Any]) -> bool:
    return True


def _user() -> str:
    try:
        return getpass.getuser() or "terminal"
    except (OSError, KeyError):
        return "terminal"

"""A broker at a URL: the client that the command line uses for it, and `run --url`.

How a run looks is render.py's where the log's records say it; here are only the wire's events. Called by run.py and
sessions.py.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from typing import NamedTuple

import msgspec

from enclave_broker.cli.failure import CHECK_FAILED, INTERRUPTED, OK, UsageError
from enclave_broker.cli.logs import show_logs
from enclave_broker.cli.render import Source, show_error
from enclave_broker.cli.screen import CYAN, DIM, RED, YELLOW, Screen
from enclave_broker.cli.settings import PREFIX, Settings
from enclave_broker.cli.text import count, cut, duration, inline, json_text, safe_json, size, visible
from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.results import ResultBuilder
from enclave_broker.client.streams import StreamedEvent
from enclave_broker.types.errors import ClientError, TransportError
from enclave_broker.types.events import LogEvent, StdoutEvent, ToolCallEvent, ToolResultAppliedEvent
from enclave_broker.types.ids import new_session_id
from enclave_broker.types.results import CallRecord, ExecutionResult

__all__ = ["client_of", "event_line", "run_there", "show_call"]

_ARGS_COLUMNS = 80
_LEVEL_STYLES = {"debug": DIM, "info": DIM, "warn": YELLOW, "error": RED}
_LOCAL = (
    ("app", "--app"),
    ("subject", "--as"),
    ("roles", "--role"),
    ("seed", "--seed"),
    ("yes", "--yes"),
    ("weak_sandbox", "--weak-sandbox"),
)
"""Options about a broker of this process."""


def client_of(arguments: argparse.Namespace, settings: Settings) -> AsyncClient:
    """Raises UsageError without a URL."""
    url = arguments.url or settings.text("URL")
    if url is None:
        raise UsageError(f"which broker? --url http://… names it, or {PREFIX}URL")
    return AsyncClient(url, api_key=arguments.api_key or settings.text("API_KEY"))


def event_line(event: StreamedEvent) -> str:
    """The event as the wire has it, safe for a terminal."""
    return safe_json(msgspec.json.encode(event.to_wire()).decode()) + "\n"


def show_call(screen: Screen, call: CallRecord) -> None:
    """One line on stderr: the call and how it ended."""
    err = screen.err
    outcome = f"{inline(call.error.code)}  {inline(call.error.message)}" if call.error is not None else call.outcome
    words = err.paint(outcome, DIM if call.outcome == "done" else RED if call.error is not None else YELLOW)
    args = err.paint(cut(json_text(call.args, compact=True), _ARGS_COLUMNS), DIM)
    took = f"  {err.paint(duration(call.duration), DIM)}" if call.duration is not None else ""
    screen.note(f"  {err.paint(inline(call.name), CYAN)} {args}  {words}{took}")


def run_there(arguments: argparse.Namespace, settings: Settings, source: Source, screen: Screen) -> int:
    """`run --url`. Raises UsageError for options about a broker that isn't there, ClientError."""
    for name, option in _LOCAL:
        value = getattr(arguments, name)
        if value is not None and value is not False and value != []:
            raise UsageError(f"{option} is about a broker in this process; the one at --url has its own")
    show_logs(screen, settings.log_level(), verbose=arguments.verbose)
    return asyncio.run(_run(arguments, settings, source, screen))


async def _run(arguments: argparse.Namespace, settings: Settings, source: Source, screen: Screen) -> int:
    session_id = new_session_id(os.urandom)
    async with client_of(arguments, settings) as client:
        following = asyncio.ensure_future(_follow(client, session_id, arguments, source, screen))
        try:
            return await asyncio.shield(following)
        except asyncio.CancelledError:
            # Ctrl-C, as in a run of this process: a second one ends it at once.
            screen.interrupted()
            try:
                await client.cancel(session_id, "interrupted at the terminal (Ctrl-C)")
                await following
            except ClientError:  # it isn't there yet, or can't be reached
                following.cancel()
            return INTERRUPTED


async def _follow(
    client: AsyncClient, session_id: str, arguments: argparse.Namespace, source: Source, screen: Screen
) -> int:
    view = _Json(screen) if arguments.json else _Lines(screen)
    builder = ResultBuilder()
    events = client.stream(
        source.code,
        session_id=session_id,
        language=arguments.language,
        allowed_tools=arguments.allow,
        timeout=arguments.timeout,
    )
    try:
        async for event in events:
            builder.add(event)
            view.show(event)
    finally:
        screen.status("")
        await events.aclose()
    if builder.final is None:
        raise TransportError(f"the final of session {session_id} isn't the protocol's")
    if not arguments.json:
        records = await _records(client, session_id) if builder.has_calls else []
        costs = arguments.verbose or screen.err.is_terminal
        if builder.final.result is not msgspec.UNSET:
            screen.result(json_text(builder.final.result) + "\n")
        _show_end(screen, builder.result(session_id, records), source, costs=costs)
    return OK if builder.final.ok else CHECK_FAILED


async def _records(client: AsyncClient, session_id: str) -> list[CallRecord]:
    try:
        return await client.calls(session_id)
    except ClientError:  # an older server: the stream has said that they were made
        return []


def _show_end(screen: Screen, result: ExecutionResult[object], source: Source, *, costs: bool) -> None:
    for call in result.calls:
        if call.outcome not in {"done", "unknown"} or call.error is not None:
            show_call(screen, call)
    if result.error is not None:
        show_error(screen, result.error, source)
    if costs:
        stats = result.stats
        parts = (duration(stats.duration), count(stats.tool_call_count, "call"), f"{size(stats.stdout_bytes)} printed")
        screen.note(screen.err.paint(" · ".join(parts), DIM))


class _Json:
    """One wire event a line on stdout, and nothing else."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, event: StreamedEvent) -> None:
        self._screen.result(event_line(event))


class _Asked(NamedTuple):
    name: str
    args: str
    at: float


class _Lines:
    """What the script prints on stdout; calls and logs on stderr. The wire doesn't say how a call ended: that is shown
    at the end, of those that failed."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._open: dict[str, _Asked] = {}

    def show(self, event: StreamedEvent) -> None:
        screen, err = self._screen, self._screen.err
        match event:
            case StdoutEvent():
                screen.result(visible(event.chunk))
            case LogEvent():
                text = f"[{event.level}] {visible(event.message)}{f' {json_text(event.data)}' if event.data else ''}"
                screen.note(err.paint(text, _LEVEL_STYLES[event.level]))
            case ToolCallEvent():
                args = cut(json_text(event.args, compact=True), _ARGS_COLUMNS)
                self._open[event.call_id] = _Asked(inline(event.tool_name), args, time.monotonic())
            case ToolResultAppliedEvent() if (call := self._open.pop(event.call_id, None)) is not None:
                took = err.paint(f"answered  {duration(time.monotonic() - call.at)}", DIM)
                screen.note(f"  {err.paint(call.name, CYAN)} {err.paint(call.args, DIM)}  {took}")
            case _:
                return
        last = next(reversed(self._open.values()), None)
        screen.status("" if last is None else f"  {last.name} {last.args} …")

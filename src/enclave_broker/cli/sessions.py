"""`enclave-broker sessions`: what runs on a broker at a URL, its events, and an end to it."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from enclave_broker.cli.failure import CHECK_FAILED, OK
from enclave_broker.cli.logs import show_logs
from enclave_broker.cli.remote import client_of, event_line, show_call
from enclave_broker.cli.screen import BOLD, CYAN, Screen
from enclave_broker.cli.settings import Settings
from enclave_broker.cli.text import count, duration, inline
from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.server import SessionInfo

__all__ = ["execute"]

_PAGE = 1_000  # sessions; what servers give at once


def execute(arguments: argparse.Namespace, screen: Screen) -> int:
    """Raises UsageError, and ClientError with the server's code."""
    settings = Settings(os.environ, Path(".env"))
    show_logs(screen, settings.log_level(), verbose=False)
    return asyncio.run(_execute(arguments, settings, screen))


async def _execute(arguments: argparse.Namespace, settings: Settings, screen: Screen) -> int:
    async with client_of(arguments, settings) as client:
        match arguments.action:
            case "list":
                return await _list(client, arguments.state, screen)
            case "show":
                return await _show(client, arguments.id, screen)
            case "events":
                events = client.attach(arguments.id, arguments.from_seq)
                async for event in events:
                    screen.result(event_line(event))
                return OK
            case _:
                ran = not (await client.session(arguments.id)).is_over
                cancelled = await client.cancel(arguments.id, arguments.reason) and ran
                screen.note("cancelled" if cancelled else "nothing ran any more")
                return OK if cancelled else CHECK_FAILED


async def _list(client: AsyncClient, state: str | None, screen: Screen) -> int:
    found: list[SessionInfo] = []
    while True:
        page = await client.sessions(state=state, after=found[-1].id if found else None, limit=_PAGE)
        found += page
        if len(page) < _PAGE:
            break
    if not found:
        screen.note("no sessions")
    ids = max((len(inline(info.id)) for info in found), default=0)
    for info in found:
        screen.result(f"{screen.out.paint(inline(info.id).ljust(ids), CYAN)}  {_summary(info)}\n")
    return OK


async def _show(client: AsyncClient, id: str, screen: Screen) -> int:
    info = await client.session(id)
    screen.result(f"{screen.out.paint(inline(info.id), CYAN)}  {_summary(info)}\n")
    for what, when in (("created", info.created_at), ("expires", info.expires_at)):
        screen.result(f"{screen.out.paint(what, BOLD)}  {when.isoformat(timespec='milliseconds')}\n")
    for call in await client.calls(id):
        show_call(screen, call)
    return OK


def _summary(info: SessionInfo) -> str:
    return f"{inline(info.state).ljust(16)}  {duration(info.duration)}  {count(info.tool_call_count, 'call')}"

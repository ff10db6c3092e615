"""`enclave-broker approvals`: what waits for a person on a broker at a URL, and that person's word."""

from __future__ import annotations

import argparse
import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from enclave_broker.cli.failure import OK
from enclave_broker.cli.logs import show_logs
from enclave_broker.cli.remote import client_of
from enclave_broker.cli.screen import BOLD, CYAN, DIM, Screen
from enclave_broker.cli.settings import Settings
from enclave_broker.cli.text import count, duration, inline, json_text
from enclave_broker.types.approval import Approval

__all__ = ["execute"]


def execute(arguments: argparse.Namespace, screen: Screen) -> int:
    """Raises UsageError, and ClientError with the server's code."""
    settings = Settings(os.environ, Path(".env"))
    show_logs(screen, settings.log_level(), verbose=False)
    return asyncio.run(_execute(arguments, settings, screen))


async def _execute(arguments: argparse.Namespace, settings: Settings, screen: Screen) -> int:
    async with client_of(arguments, settings) as client:
        if arguments.action == "list":
            found = await client.approvals(arguments.session)
            if not found:
                screen.note("nothing waits for your approval")
            for approval in found:
                _show(approval, screen)
            return OK
        ids = list(dict.fromkeys(arguments.ids))
        for id in ids:  # each is told by itself: of several, some may be decided when one can't be
            if arguments.action == "approve":
                await client.approve(id)
            else:
                await client.deny(id, reason=arguments.reason)
            screen.note(f"{inline(id)}  {'approved' if arguments.action == 'approve' else 'denied'}")
        screen.note(f"{count(len(ids), 'call')} {'approved' if arguments.action == 'approve' else 'denied'}")
        return OK


def _show(approval: Approval, screen: Screen) -> None:
    """Two lines: the call with all of its arguments, since they are what is approved; who asks and why."""
    out = screen.out
    left = (approval.expires_at - datetime.now(UTC)).total_seconds()
    args = json_text(approval.args, compact=True)
    screen.result(f"{out.paint(inline(approval.id), CYAN)}  {out.paint(inline(approval.tool), BOLD)} {args}\n")
    by = approval.requested_by
    about = [
        f"asked by {inline(by.subject)}" + (f" of {inline(by.tenant)}" if by.tenant else ""),
        f"in {inline(approval.session_id)}",
        inline(approval.rule),
        f"expires in {duration(max(left, 0.0))}",
    ]
    screen.result(out.paint("  " + "  ".join(about), DIM) + "\n")

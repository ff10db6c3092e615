"""`enclave-broker run`: one script, its calls and its output as they happen, its value last."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.sessions.session import Session
from enclave_broker.broker.store.records import ApprovalAsked, Ended
from enclave_broker.cli.app import load_named
from enclave_broker.cli.asker import Asker
from enclave_broker.cli.failure import CHECK_FAILED, INTERRUPTED, OK, UsageError
from enclave_broker.cli.logs import show_logs
from enclave_broker.cli.render import EventStream, Lines, Source
from enclave_broker.cli.requester import open_session
from enclave_broker.cli.screen import Screen
from enclave_broker.cli.settings import Settings

__all__ = ["execute"]

_CODE_NAME = "script.js"
"""What the engine calls every script; the name of one that has no file."""


def execute(arguments: argparse.Namespace, screen: Screen) -> int:
    """Run the script. Raises UsageError, and ConfigurationError for options that the broker refuses."""
    settings = Settings(os.environ, Path(".env"))
    source = _source(arguments)
    if arguments.url is not None:
        from enclave_broker.cli.remote import run_there  # noqa: PLC0415 an HTTP client is loaded only where one is used

        return run_there(arguments, settings, source, screen)
    broker = load_named(arguments.app, settings, verbose=arguments.verbose) or Broker()
    if arguments.weak_sandbox:
        broker.weak_sandbox = True
    show_logs(screen, settings.log_level(), verbose=arguments.verbose)
    # What handlers and middleware print must not come between the script's output and a program that reads it.
    with contextlib.redirect_stdout(sys.stderr):
        return asyncio.run(_run(arguments, settings, broker, source, screen))


def _source(arguments: argparse.Namespace) -> Source:
    if (arguments.code is None) == (arguments.script is None):
        what = "both" if arguments.code is not None else "neither"
        raise UsageError(
            f"run takes a script, as SCRIPT (a file, or - for stdin) or with -e CODE; here is {what} of them"
        )
    if arguments.code is not None:
        return Source(arguments.code, _CODE_NAME)
    name: str = arguments.script
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from None
    if name.endswith(".py"):
        raise UsageError(f"{name} is Python, and scripts are JavaScript; if it has the broker: --app {name}")
    try:
        return Source(data.decode("utf-8-sig"), _CODE_NAME if name == "-" else name)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: a script is UTF-8, and byte 0x{data[error.start]:02x} here isn't") from None


async def _run(
    arguments: argparse.Namespace, settings: Settings, broker: Broker, source: Source, screen: Screen
) -> int:
    costs = arguments.verbose or screen.err.is_terminal
    view = EventStream(screen) if arguments.json else Lines(screen, source, costs=costs)
    try:
        screen.status("starting …")
        async with broker.override(seed=arguments.seed):
            session = await open_session(broker, arguments, settings, allowed_tools=arguments.allow)
        screen.status("")
        host, asker = session.host, Asker(broker, screen, yes=arguments.yes)
        code, language = source.code, arguments.language
        following = asyncio.ensure_future(host.here(lambda: _follow(session, code, language, view, asker)))
        try:
            return await asyncio.shield(following)
        except asyncio.CancelledError:
            # Ctrl-C: asyncio.run cancels this task, the process's first and last. A second one ends it at once.
            screen.interrupted()
            await host.here(lambda: session.cancel("interrupted at the terminal (Ctrl-C)"))
            await following
            return INTERRUPTED
    finally:
        screen.status("")
        await broker.aclose()


async def _follow(session: Session, code: str, language: str, view: EventStream | Lines, asker: Asker) -> int:
    """Run the code and show its records, in the broker's loop. While a person is asked nothing else is shown."""
    execution = session.begin(code, language)
    try:
        async for record in session.log.follow(execution.first_index):
            view.show(record)
            if isinstance(record.fact, ApprovalAsked):
                await asker.ask(session.wait)
            if isinstance(record.fact, Ended):
                return OK if record.fact.ok else CHECK_FAILED
    finally:  # nobody can read what is shown (a broken pipe): then nobody waits for it
        session.close("SESSION_CANCELLED", "its output has no reader", status="cancelled")
    return CHECK_FAILED

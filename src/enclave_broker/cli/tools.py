"""`enclave-broker tools`: what an app's tools are, and a call of one without a script."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import msgspec

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.tools.names import nearest
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.cli.app import load_named, need_broker
from enclave_broker.cli.asker import Asker
from enclave_broker.cli.failure import CHECK_FAILED, OK, UsageError
from enclave_broker.cli.logs import show_logs
from enclave_broker.cli.render import show_error
from enclave_broker.cli.requester import open_session
from enclave_broker.cli.screen import BOLD, CYAN, DIM, Screen
from enclave_broker.cli.settings import Settings
from enclave_broker.cli.text import cut, excerpt, inline, json_text, visible
from enclave_broker.types.errors import ToolError
from enclave_broker.types.results import ScriptError

__all__ = ["execute", "json_object", "tool_of"]


def execute(arguments: argparse.Namespace, screen: Screen) -> int:
    """Raises UsageError, and ConfigurationError for options that the broker refuses."""
    settings = Settings(os.environ, Path(".env"))
    call_args = json_object(arguments.args) if arguments.action == "call" else {}
    broker = need_broker(load_named(arguments.app, settings, verbose=arguments.verbose))
    match arguments.action:
        case "list":
            return _list(broker, screen)
        case "describe":
            return _describe(broker, arguments.name, screen)
        case _:
            if arguments.weak_sandbox:
                broker.weak_sandbox = True
            show_logs(screen, settings.log_level(), verbose=arguments.verbose)
            with contextlib.redirect_stdout(sys.stderr):
                return asyncio.run(_call(arguments, settings, broker, call_args, screen))


def _list(broker: Broker, screen: Screen) -> int:
    out, tools = screen.out, broker.tools
    if not tools:
        screen.note("the broker has no tools")
    names = max((len(tool.name) for tool in tools), default=0)
    for tool in tools:
        summary = inline(tool.description.strip().split("\n", 1)[0])
        if out.is_terminal:
            summary = cut(summary, max(20, screen.columns - names - 16))
        row = f"{out.paint(tool.name.ljust(names), CYAN)}  {out.paint(tool.effect.ljust(10), DIM)}  {summary}"
        screen.result(row.rstrip() + "\n")
    return OK


def _describe(broker: Broker, name: str, screen: Screen) -> int:
    tool = tool_of(broker, name)
    if tool is None:
        near = nearest(name, [tool.name for tool in broker.tools])
        hint = f"; did you mean {' or '.join(near)}?" if near else ": `tools list` shows all"
        raise UsageError(f"there is no tool {name!r}{hint}")
    out = screen.out
    parts = [
        out.paint(name, CYAN) + (f"  (of the route {tool.name})" if tool.name != name else ""),
        visible(tool.description.strip()) or "(no description)",
        "",
        f"{out.paint('effect', BOLD)}  {tool.effect}",
    ]
    if tool.timeout is not None:
        parts.append(f"{out.paint('timeout', BOLD)}  {tool.timeout:g} s")
    if tool.secrets:
        parts.append(f"{out.paint('secrets', BOLD)}  {', '.join(tool.secrets)}")
    parts += ["", out.paint("arguments", BOLD), json_text(tool.input_schema, indent=2)]
    if tool.output_schema is not None:
        parts += ["", out.paint("result", BOLD), json_text(tool.output_schema, indent=2)]
    screen.result("\n".join(parts) + "\n")
    return OK


def tool_of(broker: Broker, name: str) -> Tool | None:
    """The one that takes calls of the name, or the one of exactly this pattern."""
    route = broker.router.match(name)
    return route.tool if route is not None else next((tool for tool in broker.tools if tool.name == name), None)


async def _call(
    arguments: argparse.Namespace, settings: Settings, broker: Broker, args: dict[str, Any], screen: Screen
) -> int:
    try:
        session = await open_session(broker, arguments, settings)
        call = {"name": arguments.name, "args": args}
        value = await session.host.here(lambda: _ask_and_call(broker, session.id, call, screen, yes=arguments.yes))
    except ToolError as error:
        show_error(screen, ScriptError(code=error.code, message=error.message, details=error.details))
        return CHECK_FAILED
    finally:
        await broker.aclose()
    screen.result(json_text(value, indent=2 if screen.out.is_terminal else None) + "\n")
    return OK


async def _ask_and_call(broker: Broker, session_id: str, call: dict[str, Any], screen: Screen, *, yes: bool) -> Any:
    """The call's value; a person is asked if need be. In the broker's loop."""
    calling = asyncio.ensure_future(broker.execute_tool_call(session_id, call))
    asker = Asker(broker, screen, yes=yes)
    asking: set[asyncio.Task[None]] = set()

    @broker.on_approval
    async def ask(_: object) -> None:
        asking.add(asyncio.ensure_future(asker.ask(lambda: asyncio.shield(calling))))

    try:
        return await calling
    finally:
        for task in asking:
            task.cancel()


def json_object(text: str) -> dict[str, Any]:
    """The arguments of a call. Raises UsageError that shows where the JSON breaks off."""
    try:
        json.loads(text)  # it knows where an error is
        value = msgspec.json.decode(text)  # and this is how strict the wire is
    except json.JSONDecodeError as error:
        rows = "\n".join(excerpt(text, error.lineno, error.colno))
        raise UsageError(f"JSON:{error.lineno}:{error.colno}: {error.msg}\n{rows}") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f'the arguments of a call are a JSON object, such as {{"id": 7}}, not {cut(inline(text), 60)}')
    return cast("dict[str, Any]", value)

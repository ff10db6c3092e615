"""`enclave-broker access`: what an app's access rules decide about a call, and which of them."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.calls.access import AccessController, Decision
from enclave_broker.broker.calls.policy import ContextResolver, facts_about
from enclave_broker.broker.tools.names import nearest
from enclave_broker.broker.tools.tool import Tool
from enclave_broker.cli.app import load_named, need_broker
from enclave_broker.cli.asker import shown_facts
from enclave_broker.cli.failure import CHECK_FAILED, OK, UsageError
from enclave_broker.cli.render import show_error
from enclave_broker.cli.screen import BOLD, CYAN, GREEN, RED, YELLOW, Screen
from enclave_broker.cli.settings import Settings
from enclave_broker.cli.text import inline
from enclave_broker.cli.tools import json_object, tool_of
from enclave_broker.types.errors import ToolError
from enclave_broker.types.principal import ANONYMOUS, Principal
from enclave_broker.types.results import ScriptError

__all__ = ["execute"]

_STYLES = {"allow": GREEN, "ask": YELLOW, "deny": RED}


def execute(arguments: argparse.Namespace, screen: Screen) -> int:
    """Raises UsageError."""
    principal = _principal(arguments.subject, arguments.roles, arguments.claims)
    args = None if arguments.args is None else json_object(arguments.args)
    broker = need_broker(load_named(arguments.app, Settings(os.environ, Path(".env")), verbose=arguments.verbose))
    access = cast("AccessController | None", getattr(broker, "access", None))
    if access is None:
        raise UsageError("the broker has no access controller, so it has no rules: Broker(access=...) gives it one")
    tool = _tool(broker, arguments.name, screen)
    try:
        if tool is not None and args is not None:
            args = tool.arguments(tool.validate(msgspec.json.encode(args), name=arguments.name))
        if tool is not None and tool.requires_auth and principal.is_anonymous:
            decision = Decision("deny", None, "the tool wants to know who is asking: say it, as --as SUBJECT")
        else:
            facts = asyncio.run(_facts(broker.context, principal))
            decision = _decide(access, arguments.name, facts, args)
    except ToolError as error:
        show_error(screen, ScriptError(code=error.code, message=error.message, details=error.details))
        return CHECK_FAILED
    _show(decision, screen)
    return OK if decision.verdict == "allow" else CHECK_FAILED


def _decide(access: AccessController, name: str, facts: Mapping[str, Any], args: Mapping[str, Any] | None) -> Decision:
    """As the chain does: by the name, if that is enough, else by the arguments as the tool takes them.

    Raises UsageError.
    """
    decision = access.decide_name(name, facts)
    if decision is not None:
        return decision
    if args is None:
        raise UsageError(f"the rules for {name} look at the arguments: say them, as --args '{{\"id\": 7}}'")
    return access.decide(name, facts, args)


def _tool(broker: Broker, name: str, screen: Screen) -> Tool | None:
    tool = tool_of(broker, name)
    if tool is None:
        near = nearest(name, [tool.name for tool in broker.tools])
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        screen.note(f"the broker has no tool {inline(name)}{hint}")
    return tool


def _principal(subject: str | None, roles: Sequence[str], claims: Sequence[str]) -> Principal:
    try:
        subject = ANONYMOUS.subject if subject is None else subject
        return Principal(subject, roles=frozenset(roles), claims=dict(map(_claim, claims)))
    except ValueError as error:
        raise UsageError(f"--as: {error}") from None


async def _facts(resolver: ContextResolver | None, principal: Principal) -> Mapping[str, Any]:
    """The context of the policy, with what the app's own `context=` says. Raises UsageError if that fails."""
    try:
        return await facts_about(resolver, principal, {})
    except Exception as error:
        raise UsageError(f"the app's context= failed: {type(error).__name__}: {error}") from error


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--claim is a name and a value, such as plan=pro, not {inline(text)}")
    try:
        return name, msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return name, value


def _show(decision: Decision, screen: Screen) -> None:
    out = screen.out
    rows = [out.paint(decision.verdict, _STYLES[decision.verdict])]
    if decision.rule is not None:
        rows.append(f"{out.paint('rule', BOLD)}    {out.paint(decision.rule.pattern, CYAN)}")
    if decision.where:
        rows.append(f"{out.paint('where', BOLD)}   {inline(decision.where)}")
    rows.append(f"{out.paint('reason', BOLD)}  {inline(decision.reason)}")
    if decision.verdict == "ask" and decision.rule is not None and decision.rule.approvers is not None:
        rows.append(f"{out.paint('approvers', BOLD)}  {shown_facts(decision.rule.approvers)}")
    screen.result("\n".join(rows) + "\n")

"""The grammar of the command line: every command, option and help text. Loads nothing but argparse."""

from __future__ import annotations

import argparse

__all__ = ["PROGRAM", "parser"]

PROGRAM = "enclave-broker"

_APP = "file.py, file.py:name or module:name; without it ENCLAVE_BROKER_APP, else ./app.py"
_EXIT_CODES = """\
exit codes:
  0  ok
  1  the script failed, or the check
  2  the command can't be done as it was given
  130  interrupted (Ctrl-C)
"""
_RUN = """\
What the script prints and, last, its value as JSON go to stdout; calls, warnings and errors go to stderr, and so does
what the app itself prints. A script that returns undefined has no value.
"""
_RUN_EXAMPLES = """\
examples:
  enclave-broker run report.js --app app.py --allow 'orders:*' | jq .revenue
  enclave-broker run --app app.py -e 'return (await tools.orders.search({ region: "EU" })).length'
  enclave-broker run - --json < report.js

"""


def parser() -> argparse.ArgumentParser:
    """The whole of it. `command` names what was asked for, None for nothing."""
    root = _make(
        argparse.ArgumentParser, "Run code that a language model has written; each tool call passes your policy."
    )
    root.prog = PROGRAM
    root.add_argument("--version", action="store_true", help="print the version and end")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", prog=PROGRAM)
    _run(commands)
    _tools(commands)
    _doctor(commands)
    return root


def _make(kind: type[argparse.ArgumentParser], description: str) -> argparse.ArgumentParser:
    return kind(
        description=description,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage] has no other name
    name: str,
    summary: str,
    details: str = "",
    examples: str = "",
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.\n\n{details}".strip(),
        epilog=examples + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _app(command: argparse.ArgumentParser) -> None:
    command.add_argument("--app", metavar="APP", help=f"the broker and its tools: {_APP}")
    command.add_argument("-v", "--verbose", action="store_true", help="say more: costs, stacks, tracebacks")


def _who(command: argparse.ArgumentParser) -> None:
    command.add_argument("--as", dest="subject", metavar="SUBJECT", help="who is asking (default: nobody known)")
    command.add_argument(
        "--role", dest="roles", metavar="R", action="append", default=[], help="a role of SUBJECT; repeatable"
    )
    command.add_argument("--timeout", metavar="S", type=float, help="seconds of active time (ENCLAVE_BROKER_TIMEOUT)")
    command.add_argument(
        "--weak-sandbox", action="store_true", help="run although this machine can't build every wall (see doctor)"
    )


def _run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    command = _command(commands, "run", "run a script and show its calls as they happen", _RUN, _RUN_EXAMPLES)
    command.add_argument("script", metavar="SCRIPT", nargs="?", help="a file, or - for stdin")
    command.add_argument("-e", "--eval", dest="code", metavar="CODE", help="the script itself, instead of SCRIPT")
    _app(command)
    command.add_argument("--language", default="javascript", help="javascript (the default)")
    command.add_argument(
        "--allow", metavar="GLOB", action="append", help="a tool that the script may call; repeatable (default: all)"
    )
    _who(command)
    command.add_argument(
        "--seed", metavar="N", type=int, help="fix the script's Math.random, the session's id and the calls'"
    )
    command.add_argument("--json", action="store_true", help="the run's events on stdout, one a line, and nothing else")


def _tools(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    group = _command(commands, "tools", "list, describe or call the tools of an app")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _command(actions, "list", "every tool: its name, its effect, what it does")
    _app(listing)
    describing = _command(actions, "describe", "one tool: what it does, its effect, its schema")
    describing.add_argument("name", metavar="NAME")
    _app(describing)
    calling = _command(actions, "call", "call one tool, through the same checks as a script's call")
    calling.add_argument("name", metavar="NAME")
    calling.add_argument("args", metavar="JSON", nargs="?", default="{}", help="the arguments, such as '{\"id\": 7}'")
    _app(calling)
    _who(calling)


def _doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    _command(commands, "doctor", "show what the sandbox enforces on this machine; fails if a required wall is missing")

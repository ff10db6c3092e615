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
what the app itself prints. A script that returns undefined has no value. Calls that a person has to approve are asked
about at the terminal; without one they are denied, unless --yes approves them.
"""
_SERVE = """\
The API is at /docs. SIGTERM and Ctrl-C end it: every open stream gets its final first. Beyond this machine it serves
only with --api-keys, with --jwt-issuer, --jwt-audience and --jwt-jwks, or with --no-auth.
"""
_SERVE_EXAMPLES = """\
examples:
  enclave-broker serve app.py
  curl -N localhost:8000/sessions -H 'content-type: application/json' -d '{"code": "return 1 + 1"}'

"""
_RUN_EXAMPLES = """\
examples:
  enclave-broker run report.js --app app.py --allow 'orders:*' | jq .revenue
  enclave-broker run --app app.py -e 'return (await tools.orders.search({ region: "EU" })).length'
  enclave-broker run - --json < report.js

"""
_KEYS_EXAMPLES = """\
examples:
  KEY=$(enclave-broker keys create --subject ann --tenant acme --role admin keys.txt)
  enclave-broker serve app.py --api-keys keys.txt

"""
_CHECK = """\
Exits with 0 if the call is allowed, with 1 if it is denied or a person has to be asked. What else stands before a call
(allow-list, limits) is not looked at.
"""
_CHECK_EXAMPLES = """\
examples:
  enclave-broker access check refunds:create --as bob --role support --args '{"amount": 250}'

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
    _serve(commands)
    _sessions(commands)
    _approvals(commands)
    _tools(commands)
    _access(commands)
    _keys(commands)
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


def _url(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--url", metavar="URL", help=f"{what}, such as http://127.0.0.1:8000")
    command.add_argument("--api-key", metavar="KEY", help="who asks there; better as ENCLAVE_BROKER_API_KEY")


def _subject(command: argparse.ArgumentParser) -> None:
    command.add_argument("--as", dest="subject", metavar="SUBJECT", help="who is asking (default: nobody known)")
    command.add_argument(
        "--role", dest="roles", metavar="R", action="append", default=[], help="a role of SUBJECT; repeatable"
    )


def _who(command: argparse.ArgumentParser) -> None:
    _subject(command)
    command.add_argument("--timeout", metavar="S", type=float, help="seconds of active time (ENCLAVE_BROKER_TIMEOUT)")
    command.add_argument(
        "--weak-sandbox", action="store_true", help="run although this machine can't build every wall (see doctor)"
    )


def _yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="approve each call that a person has to approve")


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
    _yes(command)
    _url(command, "run it on the broker that is served there")


def _serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    command = _command(commands, "serve", "serve an app's broker over HTTP", _SERVE, _SERVE_EXAMPLES)
    command.add_argument("app", metavar="APP", nargs="?", help=f"the broker and its tools: {_APP}")
    command.add_argument("--host", metavar="HOST", help="where to listen: a name or an address (127.0.0.1)")
    command.add_argument("--port", metavar="PORT", type=int, help="8000; 0 for any that is free")
    command.add_argument("--api-keys", metavar="FILE", help="let in whose key is in it (see keys create)")
    command.add_argument("--jwt-issuer", metavar="ISS", help="let in who has a token of this issuer")
    command.add_argument("--jwt-audience", metavar="AUD", help="whom such a token has to be for")
    command.add_argument("--jwt-jwks", metavar="JWKS", help="the issuer's public keys: a file or a URL")
    command.add_argument("--no-auth", action="store_true", help="let everybody in who can reach HOST")
    command.add_argument(
        "--allowed-host",
        dest="hosts",
        metavar="NAME",
        action="append",
        help="a name the server is called by; repeatable",
    )
    command.add_argument(
        "--allowed-origin", dest="origins", metavar="URL", action="append", help="pages that may use it; repeatable"
    )
    command.add_argument("--reload", action="store_true", help="start again when a Python file beside APP changes")
    command.add_argument("--log-format", choices=("text", "json"), help="of stderr (text)")
    command.add_argument(
        "--audit",
        action=argparse.BooleanOptionalAction,
        help="one line a tool call on stderr (with --log-format json, or from LOG_LEVEL=INFO on)",
    )
    command.add_argument(
        "--weak-sandbox", action="store_true", help="serve although this machine can't build every wall (see doctor)"
    )
    command.add_argument("-v", "--verbose", action="store_true", help="say more: stacks, tracebacks")
    command.add_argument("--fd", dest="descriptor", type=int, help=argparse.SUPPRESS)  # of --reload to what it starts


def _sessions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    group = _command(commands, "sessions", "list, show, watch or cancel the sessions of a broker that is served")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    where = "the broker (ENCLAVE_BROKER_URL)"
    listing = _command(actions, "list", "every session that you may see: its state, its duration, its calls")
    listing.add_argument("--state", metavar="STATE", help="only those in it: running, waiting_for_tool, completed, …")
    _url(listing, where)
    showing = _command(actions, "show", "one session and its tool calls")
    watching = _command(actions, "events", "its events, one a line, to the final: what was, then what comes")
    cancelling = _command(actions, "cancel", "end what runs in it")
    for action in (showing, watching, cancelling):
        action.add_argument("id", metavar="ID")
        _url(action, where)
    watching.add_argument("--from", dest="from_seq", metavar="SEQ", type=int, default=1, help="the first event (1)")
    cancelling.add_argument("--reason", metavar="TEXT", default="", help="stands in the session's error")


def _approvals(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    group = _command(commands, "approvals", "list, approve or deny the calls that wait for a person")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    where = "the broker (ENCLAVE_BROKER_URL)"
    listing = _command(actions, "list", "each call that you may decide: its id, its tool, its arguments, who asks")
    listing.add_argument("--session", metavar="ID", help="only those of this session")
    approving = _command(actions, "approve", "let these calls be made")
    denying = _command(actions, "deny", "have these calls fail")
    for action in (approving, denying):
        action.add_argument("ids", metavar="ID", nargs="+")
    denying.add_argument("--reason", metavar="TEXT", default="", help="the script sees it")
    for action in (listing, approving, denying):
        _url(action, where)


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
    _yes(calling)


def _access(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    group = _command(commands, "access", "say what an app's access rules decide")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    checking = _command(
        actions, "check", "whether somebody may call a tool, and which rule says so", _CHECK, _CHECK_EXAMPLES
    )
    checking.add_argument("name", metavar="NAME")
    _app(checking)
    _subject(checking)
    checking.add_argument(
        "--claim",
        dest="claims",
        metavar="K=V",
        action="append",
        default=[],
        help="a claim or another fact about SUBJECT, its value as JSON or else as text; repeatable",
    )
    checking.add_argument("--args", metavar="JSON", help="the call's arguments, such as '{\"id\": 7}'")


def _keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    group = _command(commands, "keys", "make API keys for a broker that is served")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    creating = _command(
        actions, "create", "print a new API key, once, and add its hash to a file", examples=_KEYS_EXAMPLES
    )
    creating.add_argument("--subject", metavar="S", required=True, help="whose key it is")
    creating.add_argument("--tenant", metavar="T", help="the tenant that S belongs to")
    creating.add_argument(
        "--role", dest="roles", metavar="R", action="append", default=[], help="a role of S; repeatable"
    )
    creating.add_argument("file", metavar="FILE", help="where hashes are kept, as serve --api-keys reads them")


def _doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    _command(commands, "doctor", "show what the sandbox enforces on this machine; fails if a required wall is missing")

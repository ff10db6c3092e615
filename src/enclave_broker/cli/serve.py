"""`enclave-broker serve`: an app's broker over HTTP, until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.http.app import http_app
from enclave_broker.broker.http.auth import Authenticate
from enclave_broker.broker.http.server import Server
from enclave_broker.broker.telemetry.audit import LOGGER as AUDIT_LOGGER
from enclave_broker.cli.app import FORMS, load_named
from enclave_broker.cli.auth import OPTIONS, auth_of
from enclave_broker.cli.failure import OK, UsageError
from enclave_broker.cli.json_log import json_line, log_as_json
from enclave_broker.cli.logs import show_logs
from enclave_broker.cli.reload import run_again_on_change
from enclave_broker.cli.screen import Screen
from enclave_broker.cli.settings import PREFIX, Settings

__all__ = ["execute"]

_HOST, _PORT = "127.0.0.1", 8000
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_FORMATS = ("text", "json")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to listen, and by which names the server is called there."""

    host: str
    port: int
    beyond: bool
    """Whether other machines can reach it."""
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]


def execute(arguments: argparse.Namespace, screen: Screen) -> int:
    """Serve. Raises UsageError, and ConfigurationError for what the broker refuses."""
    settings = Settings(os.environ, Path(".env"))
    place = _place(arguments, settings)
    auth = auth_of(arguments, settings)
    if place.beyond and auth is None and not arguments.no_auth:
        raise UsageError(
            f"{place.host} can be reached from other machines, and nothing asks who is there: anybody could run code "
            "here and call the app's tools; --api-keys or --jwt-… says who may, --no-auth that this is meant"
        )
    listener = _listener(place) if arguments.descriptor is None else socket.socket(fileno=arguments.descriptor)
    with listener:
        if arguments.reload:
            return run_again_on_change(_command(arguments, listener), _folder(arguments, settings), listener, screen)
        broker = load_named(arguments.app, settings, verbose=arguments.verbose)
        if broker is None:
            raise UsageError(f"no app: serve takes one ({FORMS}), else it is {PREFIX}APP, else ./app.py")
        if arguments.weak_sandbox:
            broker.weak_sandbox = True
        say = _set_up_logs(arguments, settings, screen)
        _allow_many_connections()
        asyncio.run(_serve(broker, place, auth, listener, say))
    return OK


async def _serve(broker: Broker, place: Place, auth: Authenticate | None, listener: socket.socket, say: Say) -> None:
    app = http_app(broker, auth=auth, allowed_hosts=place.allowed_hosts, allowed_origins=place.allowed_origins)

    def started() -> None:
        _collect_less()
        _announce(place, listener, say, asks=auth is not None)

    server = Server(broker, app, on_started=started)
    try:
        async with broker:
            await server.serve([listener])
    except FileNotFoundError as error:  # a checkout whose engine hasn't been built; the message says how to
        raise UsageError(str(error)) from None


def _collect_less() -> None:
    """What is there now lives as long as the process: to look through it again and again is a tenth of a request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _announce(place: Place, listener: socket.socket, say: Say, *, asks: bool) -> None:
    own = place.host if place.host in place.allowed_hosts or f"[{place.host}]" in place.allowed_hosts else ""
    host = own or _HOST  # a name that it answers to
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    url = f"http://{host}:{listener.getsockname()[1]}"
    say(f"serving at {url}, API at {url}/docs")
    if place.beyond:
        who = "who has a key or a token" if asks else "anybody who can reach it"
        say(f"{who} is let in; called by: {', '.join(place.allowed_hosts)} (--allowed-host)")


def _set_up_logs(arguments: argparse.Namespace, settings: Settings, screen: Screen) -> Say:
    """How the server itself says a line: as the log's lines are, whatever the log's level is."""
    format = arguments.log_format or settings.text("LOG_FORMAT") or "text"
    if format not in _FORMATS:
        raise UsageError(f"{PREFIX}LOG_FORMAT is one of {', '.join(_FORMATS)}, not {format!r}")
    if format == "json":
        log_as_json(sys.stderr, settings.log_level())
    else:
        show_logs(screen, settings.log_level(), verbose=arguments.verbose)
    audit = True if format == "json" and arguments.audit is None else arguments.audit
    if audit is not None:
        logging.getLogger(AUDIT_LOGGER).setLevel(logging.INFO if audit else logging.CRITICAL)
    return screen.note if format == "text" else lambda text: screen.note(json_line("enclave_broker.serve", text))


def _allow_many_connections() -> None:
    """Each is a file, and shells allow as few as 256 or 1,024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# -- where -----------------------------------------------------------------------------------------------------------


def _place(arguments: argparse.Namespace, settings: Settings) -> Place:
    host: str = arguments.host or settings.text("HOST") or _HOST
    asked = arguments.port if arguments.port is not None else settings.number("PORT")
    port = _PORT if asked is None else int(asked)
    if not 0 <= port <= 65_535:
        raise UsageError(f"a port is a number from 0 to 65535, not {port}")
    addresses = [ipaddress.ip_address(address) for address in _addresses(host, port)]
    names: dict[str, None] = dict.fromkeys(_LOCAL_NAMES)
    if not any(address.is_unspecified for address in addresses):
        names[f"[{host}]" if ":" in host else host] = None
    names |= dict.fromkeys(arguments.hosts or _words(settings.text("ALLOWED_HOSTS")))
    return Place(
        host=host,
        port=port,
        beyond=not all(address.is_loopback for address in addresses),
        allowed_hosts=tuple(names),
        allowed_origins=tuple(arguments.origins or _words(settings.text("ALLOWED_ORIGINS"))),
    )


def _words(text: str | None) -> list[str]:
    return (text or "").replace(",", " ").split()


def _addresses(host: str, port: int) -> list[str]:
    """What the name stands for, IPv4 first. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: {getattr(error, 'strerror', None) or error}") from None
    return [str(address[0]).partition("%")[0] for _, _, _, _, address in sorted(found, key=lambda each: each[0])]


def _listener(place: Place) -> socket.socket:
    address = _addresses(place.host, place.port)[0]
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, place.port))
    except OSError as error:
        listener.close()
        raise UsageError(f"{place.host}:{place.port} can't be listened at: {error.strerror}") from None
    return listener


# -- --reload --------------------------------------------------------------------------------------------------------


def _command(arguments: argparse.Namespace, listener: socket.socket) -> list[str]:
    """This very command without --reload, for a process that is handed the socket."""
    command = [sys.executable, "-m", "enclave_broker", "serve", f"--fd={listener.fileno()}"]
    for option in ("host", "port", "log_format", *OPTIONS):
        value = getattr(arguments, option)
        if value is not None:
            command.append(f"--{option.replace('_', '-')}={value}")
    for option, values in (("allowed-host", arguments.hosts), ("allowed-origin", arguments.origins)):
        command += [f"--{option}={value}" for value in values or ()]
    for option in ("no_auth", "weak_sandbox", "verbose"):
        if getattr(arguments, option):
            command.append(f"--{option.replace('_', '-')}")
    if arguments.audit is not None:
        command.append("--audit" if arguments.audit else "--no-audit")
    return [*command, "--", arguments.app] if arguments.app else command


def _folder(arguments: argparse.Namespace, settings: Settings) -> Path:
    """Where the app's own files are."""
    place = (arguments.app or settings.text("APP") or "").partition(":")[0]
    return Path(place).absolute().parent if place.endswith(".py") else Path.cwd()

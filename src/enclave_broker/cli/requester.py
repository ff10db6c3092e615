"""Who asks and within what: the options that `run` and `tools call` share, as a session of the app's broker."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from enclave_broker.broker.broker import Broker
from enclave_broker.broker.sessions.session import Session
from enclave_broker.cli.failure import UsageError
from enclave_broker.cli.settings import Settings
from enclave_broker.types.principal import Principal

__all__ = ["open_session"]


async def open_session(
    broker: Broker, arguments: argparse.Namespace, settings: Settings, *, allowed_tools: Sequence[str] | None = None
) -> Session:
    """A session for the command's principal and limits; starts the broker.

    Raises UsageError, and ConfigurationError for what the broker refuses.
    """
    timeout = arguments.timeout if arguments.timeout is not None else settings.number("TIMEOUT")
    calls = settings.number("MAX_TOOL_CALLS")
    try:
        return await broker.create_session(
            allowed_tools=allowed_tools,
            timeout=timeout,
            max_tool_calls=None if calls is None else int(calls),
            principal=_principal(arguments.subject, arguments.roles),
        )
    except FileNotFoundError as error:  # a checkout whose engine hasn't been built; the message says how to
        raise UsageError(str(error)) from None


def _principal(subject: str | None, roles: Sequence[str]) -> Principal | None:
    if subject is None:
        if roles:
            raise UsageError("a role is somebody's: say whose with --as SUBJECT")
        return None
    try:
        return Principal(subject, roles=frozenset(roles))
    except ValueError as error:
        raise UsageError(f"--as: {error}") from None

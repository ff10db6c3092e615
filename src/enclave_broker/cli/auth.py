"""Who may use what `serve` serves: API keys, an issuer's tokens, both, or nobody asks."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from starlette.requests import Request

from enclave_broker.broker.http.api_keys import ApiKeys
from enclave_broker.broker.http.auth import Authenticate
from enclave_broker.broker.http.jwt_auth import Jwt
from enclave_broker.cli.failure import UsageError
from enclave_broker.cli.settings import PREFIX, Settings
from enclave_broker.types.errors import AuthenticationError
from enclave_broker.types.principal import Principal

__all__ = ["OPTIONS", "auth_of"]

OPTIONS = ("api_keys", "jwt_issuer", "jwt_audience", "jwt_jwks")
"""As argparse names them; in capitals they are settings."""


class _Choice(NamedTuple):
    api_keys: str | None
    jwt_issuer: str | None
    jwt_audience: str | None
    jwt_jwks: str | None


def auth_of(arguments: argparse.Namespace, settings: Settings) -> Authenticate | None:
    """What the options and settings ask for; None where nothing does. Raises UsageError and ConfigurationError."""
    chosen = _Choice(*(_value(arguments, settings, name) for name in OPTIONS))
    if chosen == (None,) * len(OPTIONS):
        return None
    if arguments.no_auth:
        named = ", ".join(_shown(name) for name, value in zip(OPTIONS, chosen, strict=True) if value)
        raise UsageError(f"--no-auth lets everybody in, and something says who may come in: {named}; leave out one")
    keys = None if chosen.api_keys is None else ApiKeys(chosen.api_keys)
    tokens = _tokens(chosen)
    if keys is not None and tokens is not None:
        return _either(keys, tokens)
    return keys or tokens


def _value(arguments: argparse.Namespace, settings: Settings, name: str) -> str | None:
    value: str | None = getattr(arguments, name)
    if value == "":  # such as "$KEYS" that is set nowhere: it must not mean that nobody is asked
        raise UsageError(f"--{name.replace('_', '-')} is empty")
    return value if value is not None else settings.text(name.upper())


def _tokens(chosen: _Choice) -> Jwt | None:
    issuer, audience, jwks = chosen.jwt_issuer, chosen.jwt_audience, chosen.jwt_jwks
    if issuer is None and audience is None and jwks is None:
        return None
    if issuer is None or audience is None or jwks is None:
        missing = [_shown(name) for name in OPTIONS[1:] if getattr(chosen, name) is None]
        raise UsageError(f"tokens need an issuer, an audience and the issuer's keys; {', '.join(missing)} is missing")
    if "://" in jwks:
        return Jwt(issuer=issuer, audience=audience, jwks_url=jwks)
    return Jwt(issuer=issuer, audience=audience, jwks_file=jwks)


def _shown(name: str) -> str:
    return f"--{name.replace('_', '-')} ({PREFIX}{name.upper()})"


def _either(keys: ApiKeys, tokens: Jwt) -> Authenticate:
    async def auth(request: Request) -> Principal:
        try:
            return await keys(request)
        except AuthenticationError:
            return await tokens(request)

    return auth

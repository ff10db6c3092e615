"""What a client is pointed at: a URL, a Broker or an ASGI application, as the transport and the credential for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from enclave_broker.client.in_process import InProcessTransport
from enclave_broker.client.life import AsgiApp, BrokerLife, Lifespan, RunsItself
from enclave_broker.client.transport import HttpTransport, Transport
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.principal import Principal

__all__ = ["HasHttpApp", "Target", "credential_of", "transport_to"]


@runtime_checkable
class HasHttpApp(RunsItself, Protocol):
    """A Broker, as far as a client knows one."""

    def http_app(self, *, auth: Callable[[Any], Awaitable[Principal]] | None = None) -> AsgiApp: ...


Target = str | HasHttpApp | AsgiApp


def credential_of(api_key: str | None, token: str | None) -> str | None:
    """The text of the Authorization header. Raises ConfigurationError for two, and for what can't stand there."""
    if api_key is not None and token is not None:
        raise ConfigurationError("api_key and token say the same thing: give one of them")
    credential = api_key if api_key is not None else token
    if credential is not None and not (credential.isascii() and credential.isprintable() and credential.strip()):
        raise ConfigurationError("an API key or token is printable ASCII, on one line")
    return None if credential is None else credential.strip()


def transport_to(target: Target, *, path: str, principal: Principal | None, connect_timeout: float) -> Transport:
    """Nothing is connected and nothing started yet. `path`: where an ASGI application has the broker.

    Raises ConfigurationError.
    """
    if path and (isinstance(target, str | HasHttpApp) or not path.startswith("/") or not path.isascii()):
        raise ConfigurationError(f"path= is where an ASGI application has the broker, such as '/enclave': {path!r}")
    if isinstance(target, HasHttpApp):
        app = target.http_app(auth=None if principal is None else _always(principal))
        return InProcessTransport(app, BrokerLife(target))
    if principal is not None:
        raise ConfigurationError("a server knows who asks by api_key or token; principal= is for a Broker in memory")
    if isinstance(target, str):
        return HttpTransport(_checked(target), connect_timeout=connect_timeout)
    if not callable(target):
        raise ConfigurationError(f"a client needs a URL, a Broker or an ASGI application, not {target!r}")
    return InProcessTransport(target, Lifespan(target), path=path.rstrip("/"))


def _always(principal: Principal) -> Callable[[Any], Awaitable[Principal]]:
    async def auth(_: Any) -> Principal:
        return principal

    return auth


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ConfigurationError(f"the URL of a broker begins with http:// or https:// and has a host: {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("the URL of a broker has no user, no query and no fragment; keys go to api_key=")
    return url.rstrip("/")

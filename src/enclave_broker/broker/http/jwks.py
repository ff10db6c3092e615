"""An issuer's public keys (RFC 7517): from a file, or from a URL that is asked again when a token names another key.

Keys are taken for pinned algorithms only, and of each only its public part. What a token has to say is jwt_auth.py's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from enclave_broker.broker.http.watched_file import Refresh, WatchedFile
from enclave_broker.types.errors import ConfigurationError

if TYPE_CHECKING:
    from jwt import PyJWK

__all__ = ["ALGORITHMS", "Jwks", "JwksFile", "JwksUrl"]

logger = logging.getLogger("enclave_broker.http")

ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Those whose keys can be published, with the type and the curve of their keys."""
REFRESH_SECONDS = 10.0
"""A URL is asked once in so long at most, whatever tokens come."""
MAX_AGE_SECONDS = 600.0
"""The age from which keys are asked for again, though all are known: one that the issuer takes back stops holding."""
FETCH_SECONDS = 5.0
_MAX_BYTES = 256 << 10  # some hundred keys; issuers have two to ten

KeySet = Mapping[tuple[str | None, str], "PyJWK"]
"""By the key's id, None for one that has none, and an algorithm."""


class Jwks(Protocol):
    """Where keys are."""

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key of this id; without an id, the only one there is for the algorithm. None if there is none."""
        ...


class JwksFile:
    """Looked at once a second at most. One that is broken or gone changes nothing, and is logged once.

    Raises ConfigurationError.
    """

    def __init__(self, path: str | os.PathLike[str], algorithms: Collection[str], clock: Callable[[], float]) -> None:
        self._file = WatchedFile(path, max_bytes=_MAX_BYTES, clock=clock)
        self._algorithms = algorithms
        self._keys = self._read()
        self._refresh = Refresh(self._read_again)

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        if self._file.changed():
            await asyncio.shield(self._refresh.start())
        return _find(self._keys, kid, algorithm)

    def _read(self) -> KeySet:
        return _key_set(self._file.read(), self._algorithms, self._file.name)

    def _read_again(self) -> None:
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            logger.error("the keys of the tokens aren't loaded again, those before stay: %s", error.message)


class JwksUrl:
    """Asked first when the first token comes. While it gives no keys, those before stay, and it is logged.

    Raises ConfigurationError for a URL where anybody on the way could put keys of their own.
    """

    def __init__(self, url: str, algorithms: Collection[str], clock: Callable[[], float]) -> None:
        _check(url)
        self._url = url
        self._algorithms = algorithms
        self._clock = clock
        self._keys: KeySet = {}
        self._due = self._stale = clock()
        self._refresh = Refresh(self._fetch_again)

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        found = _find(self._keys, kid, algorithm)
        now = self._clock()
        if self._refresh.running or now >= (self._due if found is None else max(self._due, self._stale)):
            done = self._start(now)
            if found is None:
                await asyncio.shield(done)
                return _find(self._keys, kid, algorithm)
        return found

    def _start(self, now: float) -> asyncio.Future[None]:
        if not self._refresh.running:
            self._due = now + REFRESH_SECONDS
        return self._refresh.start()

    def _fetch_again(self) -> None:
        try:
            self._keys = _key_set(_fetch(self._url), self._algorithms, self._url)
        except ConfigurationError as error:
            stay = "those before stay" if self._keys else "and there are none: no token is accepted"
            logger.error("the keys of the tokens can't be had, %s: %s", stay, error.message)
        except Exception:  # a thread's boundary
            logger.exception("the keys of the tokens can't be had: %s", self._url)
        else:
            self._stale = self._clock() + MAX_AGE_SECONDS


# -- over HTTP -------------------------------------------------------------------------------------------------------


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"the URL of the JWKS is no URL: {error}") from None
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise ConfigurationError("the URL of a JWKS has no user and no fragment")
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host))):
        raise ConfigurationError(f"a JWKS comes by https://, or by http:// from this machine: {url!r}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fetch(url: str) -> bytes:
    """Blocks, for FETCH_SECONDS at most. Raises ConfigurationError."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()  # a company's own authority, as the system (or SSL_CERT_FILE) has it
    loop = asyncio.new_event_loop()  # one deadline over all, even over a head that comes byte by byte
    try:
        return loop.run_until_complete(_get(url, context))
    except httpx.HTTPError as error:
        raise ConfigurationError(f"{url}: {str(error) or type(error).__name__}") from None
    except TimeoutError:
        raise ConfigurationError(f"{url}: it isn't there after {FETCH_SECONDS:g} s") from None
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()  # doesn't wait for a name that is still looked up


async def _get(url: str, context: ssl.SSLContext) -> bytes:
    """Follows no redirect and reads no proxy from the environment."""
    data = b""
    async with (
        asyncio.timeout(FETCH_SECONDS),
        httpx.AsyncClient(verify=context, timeout=None, follow_redirects=False, trust_env=False) as client,  # noqa: S113 the one above
        client.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
    ):
        if answer.status_code != 200:
            raise ConfigurationError(f"{url}: it answers with {answer.status_code}")
        async for piece in answer.aiter_raw():  # what is compressed all the same is no JSON
            data += piece
            if len(data) > _MAX_BYTES:
                raise ConfigurationError(f"{url}: it has at most {_MAX_BYTES:,} bytes")
    return data


# -- what it says ----------------------------------------------------------------------------------------------------


class _Key(msgspec.Struct, omit_defaults=True):
    """What is read of a key: its public part. Everything else, private parts too, stays unread."""

    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


class _Set(msgspec.Struct):
    keys: list[msgspec.Raw]


def _find(keys: KeySet, kid: str | None, algorithm: str) -> PyJWK | None:
    if kid is not None:
        return keys.get((kid, algorithm))
    fitting = [key for (_, name), key in keys.items() if name == algorithm]
    return fitting[0] if len(fitting) == 1 else None


def _key_set(data: bytes, algorithms: Collection[str], name: str) -> KeySet:
    """The keys that can be used, of those for signatures. Raises ConfigurationError that begins with `name`."""
    try:
        entries = msgspec.json.decode(data, type=_Set).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f'{name}: it is no JWKS, {{"keys": […]}}: {error}') from None
    found: dict[tuple[str | None, str], PyJWK] = {}
    for key in _decoded(entries):
        for algorithm in algorithms:
            usable = _usable(key, algorithm)
            if usable is not None:
                found.setdefault((key.kid, algorithm), usable)
    if not found:
        raise ConfigurationError(f"{name}: none of its {len(entries)} keys is one for {', '.join(algorithms)}")
    return found


def _decoded(entries: Iterable[msgspec.Raw]) -> Iterable[_Key]:
    """Those that are keys: a set may have some that only others understand (RFC 7517, 5)."""
    for entry in entries:
        try:
            yield msgspec.json.decode(entry, type=_Key)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue


def _usable(key: _Key, algorithm: str) -> PyJWK | None:
    from jwt import PyJWK  # noqa: PLC0415 an extra; whoever gets here has it

    kind, curve = ALGORITHMS[algorithm]
    if key.kty != kind or (curve is not None and key.crv != curve):
        return None
    if key.alg not in {None, algorithm} or key.use not in {None, "sig"}:
        return None
    try:
        made = PyJWK(msgspec.to_builtins(key), algorithm)
        too_short = made.Algorithm.check_key_length(made.key)
    except Exception as error:  # noqa: BLE001 input, for a library that raises whatever it likes
        logger.warning("a key of the JWKS can't be used: %s", type(error).__name__)
        return None
    if too_short:
        logger.warning("a key of the JWKS isn't used: it is too short for %s", algorithm)
        return None
    return made

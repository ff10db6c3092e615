"""JSON Web Tokens (RFC 7519) as `auth=`: the principal that an issuer's signed token names.

Signatures and times are PyJWT's, keys are jwks.py's. Owned here: that the algorithms are pinned, which claims there
have to be, and what of them is the principal.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from starlette.requests import Request

from enclave_broker.broker.http.bearer import bearer_token
from enclave_broker.broker.http.jwks import ALGORITHMS, Jwks, JwksFile, JwksUrl
from enclave_broker.types.errors import AuthenticationError, ConfigurationError
from enclave_broker.types.principal import Principal

__all__ = ["Jwt"]

logger = logging.getLogger("enclave_broker.http")

_REQUIRED = ["exp", "iss", "aud", "sub"]
_SAID = {
    "ExpiredSignatureError": "the token has expired",
    "ImmatureSignatureError": "the token isn't valid yet",
    "InvalidAudienceError": "the token is for somebody else (aud)",
    "InvalidIssuerError": "the token is somebody else's (iss)",
    "MissingRequiredClaimError": f"a token needs {', '.join(_REQUIRED)}",
}
"""By PyJWT's exceptions: what the sender of a token that is truly the issuer's may know. Of others, nothing."""
_REFUSED = "the token isn't valid"


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None


class Jwt:
    """`broker.http_app(auth=Jwt(issuer=…, audience=…, jwks_url=…))`: whom a token in `Authorization: Bearer …` names.

    The subject is `sub`; the tenant is the claim named `tenant_claim`, a string; the roles are that named
    `roles_claim`, a list of strings or one string with spaces between them; `claims` are all of them. `exp`, `iss`,
    `aud` and `sub` are required, `nbf` and `iat` count where they are; times have `leeway` seconds. Only algorithms
    with public keys can be pinned. Needs the extra [jwt]. Raises ConfigurationError; a call AuthenticationError.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwks_url: str | None = None,
        jwks_file: str | os.PathLike[str] | None = None,
        algorithms: Sequence[str] = ("RS256", "ES256"),
        leeway: float = 30,
        tenant_claim: str = "tenant",
        roles_claim: str = "roles",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jwt = _library()
        _check(issuer, audience, algorithms, leeway)
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        self._leeway = leeway
        self._tenant_claim = tenant_claim
        self._roles_claim = roles_claim
        self._header = msgspec.json.Decoder(_Header)
        self._keys = _keys(jwks_url, jwks_file, tuple(algorithms), clock)

    async def __call__(self, request: Request) -> Principal:
        token = bearer_token(request)
        header = self._head_of(token)
        if header.alg not in self._algorithms:
            raise AuthenticationError("the token isn't signed in a way that is accepted here")
        key = await self._keys.find(header.kid, header.alg)
        if key is None:
            raise AuthenticationError("the token isn't signed with a key that is known here")
        return self._principal(self._verified(token, key, header.alg))

    def _head_of(self, token: str) -> _Header:
        """Which key and algorithm it claims to have. PyJWT reads it again, and holds it to the key's algorithm."""
        head = token.partition(".")[0]
        try:
            return self._header.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        except (msgspec.MsgspecError, binascii.Error, UnicodeDecodeError, RecursionError):
            raise AuthenticationError(_REFUSED) from None

    def _verified(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        """All claims of a token that is signed, timely and meant for us."""
        try:
            return self._jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={"require": _REQUIRED},
            )
        except Exception as error:  # noqa: BLE001 a stranger's input: whatever it makes the library raise, nobody is let in
            # Its message may quote the token.
            name = type(error).__name__
            logger.info("a token was refused: %s", name)
            raise AuthenticationError(_SAID.get(name, _REFUSED)) from None

    def _principal(self, claims: dict[str, Any]) -> Principal:
        subject, tenant = claims["sub"], claims.get(self._tenant_claim)
        if not _is_name(subject) or Principal(subject).is_anonymous:
            raise AuthenticationError("the token's sub names nobody")
        if tenant is not None and not _is_name(tenant):
            # Without one it would be another principal than the issuer meant.
            raise AuthenticationError(f"the token's {self._tenant_claim} is no name")
        return Principal(subject, tenant=tenant, roles=self._roles(claims.get(self._roles_claim)), claims=claims)

    def _roles(self, value: object) -> frozenset[str]:
        if value is None:
            return frozenset()
        if isinstance(value, str):
            return frozenset(value.split())
        roles = cast("list[Any]", value) if isinstance(value, list) else None
        if roles is None or not all(isinstance(role, str) for role in roles):
            raise AuthenticationError(f"the token's {self._roles_claim} are no list of strings")
        return frozenset(roles)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _library() -> Any:
    """PyJWT, which is an extra: only who uses tokens needs it, and cryptography."""
    try:
        import jwt  # noqa: PLC0415 see above

        jwt.get_algorithm_by_name("RS256")
    except (ImportError, NotImplementedError) as error:
        raise ConfigurationError(f"Jwt needs the extra [jwt]: pip install 'enclave-broker[jwt]' ({error})") from None
    return jwt


def _check(issuer: str, audience: str, algorithms: Sequence[str], leeway: float) -> None:
    if not issuer or not audience:
        raise ConfigurationError("Jwt needs issuer and audience: without them, tokens for others would be taken")
    if isinstance(algorithms, str) or not algorithms:
        raise ConfigurationError("Jwt's algorithms are a list or tuple, even of one")
    for name in algorithms:
        if name not in ALGORITHMS:
            raise ConfigurationError(
                f"Jwt can't take the algorithm {name!r}, only those with public keys: {', '.join(ALGORITHMS)}"
            )
    if not 0 <= leeway <= 3600:
        raise ConfigurationError(f"Jwt's leeway is from 0 to 3600 seconds, not {leeway}")


def _keys(
    url: str | None, file: str | os.PathLike[str] | None, algorithms: Sequence[str], clock: Callable[[], float]
) -> Jwks:
    if url is not None and file is None:
        return JwksUrl(url, algorithms, clock)
    if file is not None and url is None:
        return JwksFile(file, algorithms, clock)
    raise ConfigurationError("Jwt needs the issuer's keys: either jwks_url or jwks_file")

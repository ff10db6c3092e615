"""An issuer of tokens: its keys, its JWKS as a file or behind a URL, and tokens as a test wants them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.requests import Request

from enclave_broker import AuthenticationError, Jwt, Principal
from enclave_broker.broker.http.auth import authenticate

ISSUER, AUDIENCE = "https://issuer.example", "broker"
RSA = rsa.generate_private_key(65_537, 2_048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER_RSA = rsa.generate_private_key(65_537, 2_048)
SHORT_RSA = rsa.generate_private_key(65_537, 1_024)
KEYS: dict[str, Any] = {"RS256": RSA, "PS256": RSA, "ES256": EC, "EdDSA": ED}


def jwk(key: Any, algorithm: str, **fields: Any) -> dict[str, Any]:
    """The public part as in a JWKS; fields that are None are left out."""
    made = cast(
        "dict[str, Any]", cast("Any", jwt.get_algorithm_by_name(algorithm)).to_jwk(key.public_key(), as_dict=True)
    )
    made = {name: value for name, value in made.items() if name in {"kty", "n", "e", "crv", "x", "y"}}
    made |= {"use": "sig", "alg": algorithm, **fields}
    return {name: value for name, value in made.items() if value is not None}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


BOTH = jwks(jwk(RSA, "RS256", kid="r1"), jwk(EC, "ES256", kid="e1"))


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token; what is None is left out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 600, "iat": now}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r1", **changed: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changed), key, algorithm=algorithm, headers=headers)


class JwksServer:
    """`body` is what it answers; `asked` counts. `gate`, while it isn't set, holds answers back.

    While `drips`, an answer's head comes byte by byte and has no end.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/jwks"
        self.body = BOTH
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.drips = False
        self.gate = threading.Event()
        self.gate.set()


@contextmanager
def jwks_server() -> Generator[JwksServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked += 1
            served.gate.wait(20)
            with contextlib.suppress(OSError):  # the client has gone
                while served.drips:
                    self.wfile.write(b"x")
                    time.sleep(0.02)
            self.send_response(served.status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(served.body)))
            self.end_headers()
            self.wfile.write(served.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = JwksServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served
        finally:
            served.gate.set()
            server.shutdown()
            thread.join()


# -- asking, and tokens made by hand --------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def auth_of(file: Path, **options: Any) -> Jwt:
    chosen: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": file, **options}
    return Jwt(**chosen)


def auth_at(server: JwksServer, **options: Any) -> Jwt:
    return Jwt(issuer=ISSUER, audience=AUDIENCE, jwks_url=server.url, **options)


async def principal_of(auth: Jwt, token: str) -> Principal:
    header = f"Bearer {token}".encode("latin-1")
    request = Request({"type": "http", "headers": [(b"authorization", header)]})
    return await authenticate(auth, request.scope, 20)


async def refused(auth: Jwt, token: str) -> str:
    """With what message."""
    with pytest.raises(AuthenticationError) as caught:
        await principal_of(auth, token)
    return caught.value.message


async def accepted(auth: Jwt, token: str) -> bool:
    try:
        await principal_of(auth, token)
    except AuthenticationError:
        return False
    return True


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hmac(secret: bytes, header: dict[str, Any]) -> str:
    signed = f"{part(header)}.{part(claims())}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"

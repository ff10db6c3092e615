"""What it costs to know who asks: `authenticate()` for one request, by an API key and by a token with cached keys."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from figures import Figure
from starlette.types import Scope

from enclave_broker import ApiKeys, Jwt
from enclave_broker.broker.http.auth import Authenticate, authenticate
from enclave_broker.broker.http.key_file import Key, new_key

KEYS = 10_000
REQUESTS = 500
ISSUER, AUDIENCE = "https://issuer.example", "broker"


async def measure(*, quick: bool) -> list[Figure]:
    if importlib.util.find_spec("jwt") is None:
        return [
            Figure(name="authenticate", values=[], unit="µs", note="not measured: PyJWT isn't installed (make setup)")
        ]
    rounds = 20 if quick else 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = {
            f"authenticate: API key, one of {KEYS:,}": (*_api_keys(folder), 20.0),
            "authenticate: JWT RS256 (2,048 bits), cached keys": (*_tokens(folder, "RS256"), 150.0),
            "authenticate: JWT ES256, cached keys": (*_tokens(folder, "ES256"), 150.0),
        }
        figures = {what: Figure(name=what, values=[], unit="µs", bar=bar) for what, (_, _, bar) in asked.items()}
        for _ in range(rounds):  # interleaved, so that what disturbs one disturbs all
            for what, (auth, token, _) in asked.items():
                figures[what].values.append(await _request(auth, token))
    return list(figures.values())


async def _request(auth: Authenticate, token: str) -> float:
    """Microseconds a request, as the gate asks."""
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"authorization", f"Bearer {token}".encode())]
    scope: Scope = {"type": "http", "method": "GET", "path": "/sessions", "query_string": b"", "headers": headers}
    start = time.perf_counter()
    for _ in range(REQUESTS):
        await authenticate(auth, scope, 10.0)
    return (time.perf_counter() - start) / REQUESTS * 1e6


def _api_keys(folder: Path) -> tuple[Authenticate, str]:
    keys = [new_key() for _ in range(KEYS)]
    lines = [Key(subject=f"s{number}", sha256=sha256(key.encode()).hexdigest()) for number, key in enumerate(keys)]
    file = folder / "keys.txt"
    file.write_text("".join(f'{{"subject": "{line.subject}", "sha256": "{line.sha256}"}}\n' for line in lines))
    return ApiKeys(file), keys[KEYS // 2]


def _tokens(folder: Path, algorithm: str) -> tuple[Authenticate, str]:
    import jwt  # noqa: PLC0415 not among what the package itself needs
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415

    key = rsa.generate_private_key(65_537, 2_048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
    file = folder / f"{algorithm}.json"
    file.write_text(json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": algorithm}]}))
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 3600, "tenant": "acme"}
    token = jwt.encode({**claims, "roles": ["admin", "staff"]}, key, algorithm=algorithm, headers={"kid": "k1"})
    return Jwt(issuer=ISSUER, audience=AUDIENCE, jwks_file=file), token

# ruff: noqa: ASYNC240 - files of a few lines
"""What a token has to say and how it has to be signed, with the issuer's keys in a file."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enclave_broker import Broker, ConfigurationError, Principal
from tests.http.issuer import (
    AUDIENCE,
    BOTH,
    EC,
    KEYS,
    OTHER_RSA,
    RSA,
    auth_of,
    by_hmac,
    claims,
    jwk,
    jwks,
    part,
    principal_of,
    refused,
    token,
)
from tests.http.live import final, memory_broker, refusal, serving


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(BOTH)
    return path


# -- what a token says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_token_names_its_principal(file: Path, algorithm: str) -> None:
    file.write_bytes(jwks(jwk(KEYS[algorithm], algorithm, kid="k")))
    said = claims(tenant="acme", roles=["admin", "staff"], plan="paid")
    signed = pyjwt.encode(said, KEYS[algorithm], algorithm=algorithm, headers={"kid": "k"})
    found = await principal_of(auth_of(file, algorithms=[algorithm]), signed)
    assert found == Principal("ann", tenant="acme", roles=frozenset({"admin", "staff"}), claims=said)


def test_a_script_runs_as_the_tokens_principal(shop: Broker, file: Path) -> None:
    with serving(shop, auth=auth_of(file)) as live:
        response = live.post("return await tools.whoami({})", headers={"Authorization": f"bearer {token()}"})
        assert final(response)["result"] == "ann"
        response = live.client.get("/sessions", headers={"Authorization": f"Bearer {token(sub='')}"})
        assert refusal(response) == (401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"
        assert refusal(live.client.get("/sessions", params={"access_token": token()})) == (401, "UNAUTHENTICATED")


async def test_claims_may_have_other_names_and_roles_be_one_string(file: Path) -> None:
    auth = auth_of(file, tenant_claim="org", roles_claim="scope")
    found = await principal_of(auth, token(org="acme", scope="read  write", tenant="other", roles=["admin"]))
    assert (found.tenant, found.roles) == ("acme", {"read", "write"})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"exp": None}, "a token needs"),
        ({"iss": None}, "iss"),
        ({"aud": None}, "a token needs"),
        ({"sub": None}, "a token needs"),
        ({"sub": ""}, "sub"),
        ({"sub": " "}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "anonymous"}, "sub"),
        ({"iss": "https://other.example"}, "iss"),
        ({"aud": "other"}, "aud"),
        ({"aud": ["x", "y"]}, "aud"),
        ({"exp": int(time.time()) - 100}, "expired"),
        ({"nbf": int(time.time()) + 900}, "isn't valid yet"),
        ({"iat": int(time.time()) + 900}, "isn't valid yet"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": 7}, "tenant"),
        ({"tenant": ["acme"]}, "tenant"),
        ({"roles": [1]}, "roles"),
        ({"roles": {"admin": True}}, "roles"),
        ({"exp": "soon"}, "isn't valid"),
    ],
)
async def test_a_token_that_says_something_else_is_refused(file: Path, changed: dict[str, Any], said: str) -> None:
    assert said in await refused(auth_of(file), token(**changed))


async def test_a_sub_that_is_no_string_is_refused(file: Path) -> None:
    signed = pyjwt.PyJWS().encode(json.dumps(claims(sub=7)).encode(), RSA, "RS256", headers={"kid": "r1"})
    await refused(auth_of(file), signed)


async def test_times_have_a_leeway(file: Path) -> None:
    now = int(time.time())
    late, early = token(exp=now - 100), token(nbf=now + 100, iat=now + 100)
    for signed in (late, early):
        assert (await principal_of(auth_of(file, leeway=600), signed)).subject == "ann"
        await refused(auth_of(file, leeway=0), signed)


async def test_one_of_several_audiences_is_enough(file: Path) -> None:
    assert (await principal_of(auth_of(file), token(aud=["x", AUDIENCE]))).subject == "ann"


# -- how it is signed ------------------------------------------------------------------------------------------------


def confused() -> Iterator[str]:
    """Tokens whose header wants another algorithm than the key's, or brings its own key."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), b"", json.dumps(jwk(RSA, "RS256")).encode()):
        yield by_hmac(secret, {"alg": "HS256", "kid": "r1"})
        yield by_hmac(secret, {"alg": "RS256", "kid": "r1"})
    for none in ("none", "None", "NONE", "", None, 0, ["RS256"]):
        yield f"{part({'alg': none, 'kid': 'r1'})}.{part(claims())}."
    yield f"{part({'kid': 'r1'})}.{part(claims())}."
    yield token(OTHER_RSA)
    yield token(EC, "ES256", "r1")
    yield token(RSA, "RS256", "e1")
    yield token(RSA, "RS512")
    yield token(RSA, "PS256")
    own = jwk(OTHER_RSA, "RS256", kid="mine")
    for header in ({"jwk": own, "kid": "mine"}, {"jwk": own}, {"jku": "http://127.0.0.1:9/"}, {"x5u": "http://a/"}):
        yield pyjwt.encode(claims(), OTHER_RSA, algorithm="RS256", headers={"kid": "r1", **header})
    yield pyjwt.encode(claims(), RSA, algorithm="RS256", headers={"kid": "r1", "crit": ["exp"], "exp": 1})


async def test_a_token_does_not_choose_how_it_is_verified(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    auth = auth_of(file)
    for each in confused():
        await refused(auth, each)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_changed_token_is_refused(file: Path) -> None:
    head, payload, signature = token().split(".")
    other = part(claims(sub="root"))
    auth = auth_of(file)
    for changed in (
        f"{head}.{other}.{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}",
        f"{head}..{signature}",
        f".{payload}.{signature}",
        f"{head}.{payload}.{signature}.x",
        f"{head}.{payload}.{signature[:-4]}",
        f"{head}.{payload}.{part(b'0' * 256)}",
        f"{part(b'[' * 10_000)}.{payload}.{signature}",
        f"{part(['RS256'])}.{payload}.{signature}",
        "a.b.c",
        "...",
        "é.é.é",
        "x" * 20_000,
    ):
        await refused(auth, changed)
    assert (await principal_of(auth, f"{head}.{payload}.{signature}")).subject == "ann"


@pytest.mark.parametrize(
    "options",
    [
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": ["RS256", "HS512"]},
        {"algorithms": ["rs256"]},
        {"algorithms": []},
        {"algorithms": "RS256"},
        {"issuer": ""},
        {"audience": ""},
        {"leeway": -1},
        {"leeway": float("nan")},
        {"jwks_file": None},
        {"jwks_url": "https://issuer.example/jwks"},
        {"jwks_file": "nowhere.json"},
        {"jwks_file": None, "jwks_url": "http://issuer.example/jwks"},
        {"jwks_file": None, "jwks_url": "http://10.0.0.1/jwks"},
        {"jwks_file": None, "jwks_url": "http://127.0.0.1.example/jwks"},
        {"jwks_file": None, "jwks_url": "https://user:word@issuer.example/jwks"},
        {"jwks_file": None, "jwks_url": "file:///etc/passwd"},
        {"jwks_file": None, "jwks_url": "https://"},
    ],
)
def test_what_cannot_be_safe_is_refused_when_it_is_made(file: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        auth_of(file, **options)


def test_a_secret_between_two_is_no_option_and_the_message_says_what_is(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'HS256'.*RS256.*ES256"):
        auth_of(file, algorithms=["HS256"])


async def test_a_rejected_token_is_never_said_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "enclave_broker")
    mark = secrets.token_hex(16)
    rejected = [
        token(OTHER_RSA, sub=mark),
        token(aud=mark),
        token(tenant=["x", mark]),
        token(kid=mark),
        f"{part({'alg': mark, 'kid': mark})}.{part({'sub': mark})}.{mark}",
        f"{part({'alg': 'RS256', 'kid': 'r1', 'crit': [mark], mark: 1})}.{part({'sub': mark})}.{part(b'0' * 256)}",
        mark,
    ]
    with serving(memory_broker(), auth=auth_of(file)) as live:
        for each in rejected:
            response = live.client.get("/sessions", headers={"Authorization": f"Bearer {each}"})
            assert response.status_code == 401
            said = response.text + str(response.headers) + caplog.text
            assert mark not in said
            assert all(piece not in said for piece in each.split(".") if len(piece) > 8)

# ruff: noqa: ASYNC240 - files of a few lines
"""An issuer's keys, in a file and behind a URL, as they come, change and fail; and at a real `serve`."""

from __future__ import annotations

import asyncio
import gzip
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest

from enclave_broker import ConfigurationError
from tests.cli.terminal import environment
from tests.http.issuer import (
    AUDIENCE,
    BOTH,
    EC,
    ED,
    ISSUER,
    OTHER_RSA,
    RSA,
    SHORT_RSA,
    Clock,
    JwksServer,
    accepted,
    auth_at,
    auth_of,
    by_hmac,
    claims,
    jwk,
    jwks,
    jwks_server,
    part,
    principal_of,
    refused,
    token,
)
from tests.http.served import served


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(BOTH)
    return path


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with jwks_server() as running:
        yield running


# -- a file of keys --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # of whoever signs with it
async def test_keys_of_other_kinds_in_the_set_do_no_harm_and_give_nothing(file: Path) -> None:
    secret = b"s" * 32
    file.write_bytes(
        jwks(
            {"kty": "oct", "kid": "o", "k": part(secret), "alg": "HS256"},
            {"kty": "oct", "kid": "r1", "k": part(secret), "alg": "RS256"},
            {"kty": "future", "kid": "f"},
            {"kty": 7},
            {"kty": "RSA", "kid": "bad", "n": "!", "e": "AQAB"},
            jwk(RSA, "RS256", kid="enc", use="enc"),
            jwk(RSA, "PS256", kid="ps"),
            jwk(SHORT_RSA, "RS256", kid="short"),
            jwk(EC, "ES256", kid="e1", alg=None, use=None),
            jwk(RSA, "RS256", kid="r1", x5c=["…"], d="not read"),
        )
    )
    auth = auth_of(file)
    assert (await principal_of(auth, token())).subject == "ann"
    assert (await principal_of(auth, token(EC, "ES256", "e1"))).subject == "ann"
    await refused(auth, by_hmac(secret, {"alg": "HS256", "kid": "o"}))
    await refused(auth, token(kid="enc"))
    await refused(auth, token(kid="ps"))
    await refused(auth, pyjwt.encode(claims(), SHORT_RSA, algorithm="RS256", headers={"kid": "short"}))


async def test_a_token_without_a_key_id_needs_the_only_key(file: Path) -> None:
    auth = auth_of(file)
    assert (await principal_of(auth, token(kid=None))).subject == "ann"
    file.write_bytes(jwks(jwk(RSA, "RS256", kid="r1"), jwk(OTHER_RSA, "RS256", kid="r2")))
    await refused(auth_of(file), token(kid=None))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": {}}',
        b"\xff",
        jwks(jwk(ED, "EdDSA", kid="d")),
        b'{"keys": [' + b" " * 300_000 + b"]}",
    ],
)
def test_a_file_without_a_key_is_said_with_its_name(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        auth_of(file)
    assert caught.value.message.startswith(f"{file}: ")


async def test_a_file_of_keys_is_followed_and_a_broken_one_changes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    auth = auth_of(file, clock=clock)
    file.write_bytes(b"{")
    for clock.now in (1, 2):
        assert (await principal_of(auth, token())).subject == "ann"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    file.write_bytes(jwks(jwk(OTHER_RSA, "RS256", kid="r2")))
    clock.now = 3
    assert (await principal_of(auth, token(OTHER_RSA, kid="r2"))).subject == "ann"
    await refused(auth, token())


# -- keys behind a URL -----------------------------------------------------------------------------------------------


async def test_keys_come_from_the_url_with_the_first_token_and_are_kept(server: JwksServer) -> None:
    auth = auth_at(server)
    assert server.asked == 0
    for _ in range(3):
        assert (await principal_of(auth, token())).subject == "ann"
    assert server.asked == 1


async def test_an_unknown_key_is_asked_for_once_in_a_while(server: JwksServer) -> None:
    clock = Clock()
    auth = auth_at(server, clock=clock)
    await principal_of(auth, token())
    server.body = jwks(jwk(RSA, "RS256", kid="r2"))
    for _ in range(20):
        await refused(auth, token(kid=secrets.token_hex(4)))
    assert server.asked == 1
    clock.now = 10
    assert (await principal_of(auth, token(kid="r2"))).subject == "ann"
    for _ in range(20):
        await refused(auth, token(kid=secrets.token_hex(4)))
    assert server.asked == 2


async def test_many_requests_at_once_ask_once_and_one_that_gives_up_spoils_nothing(server: JwksServer) -> None:
    auth = auth_at(server)
    server.gate.clear()
    asking = [asyncio.create_task(principal_of(auth, token())) for _ in range(50)]
    async with asyncio.timeout(20):
        while server.asked == 0:  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(0.001)
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    server.gate.set()
    assert {(await each).subject for each in asking[1:]} == {"ann"}
    assert server.asked == 1


async def test_a_key_that_the_issuer_has_taken_back_stops_holding(server: JwksServer) -> None:
    clock = Clock()
    auth = auth_at(server, clock=clock)
    await principal_of(auth, token())
    server.body = jwks(jwk(EC, "ES256", kid="e1"))
    clock.now = 600
    # The first request asks again without waiting for it, so that none pays for it.
    assert (await principal_of(auth, token())).subject == "ann"
    async with asyncio.timeout(20):
        while await accepted(auth, token()):  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(0.001)
    assert server.asked == 2


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 500},
        {"status": 302, "headers": {"Location": "/jwks"}},
        {"body": b"<html>"},
        {"body": BOTH + b" " * 300_000},
        {"body": gzip.compress(BOTH), "headers": {"Content-Encoding": "gzip"}},
        {"body": b'{"keys": []}'},
    ],
)
async def test_while_the_url_gives_no_keys_those_before_stay(
    server: JwksServer, trouble: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    auth = auth_at(server, clock=clock)
    await principal_of(auth, token())
    vars(server).update(trouble)
    clock.now = 1_000
    await refused(auth, token(kid="unknown"))
    assert server.asked == 2, "no redirect is followed"
    assert (await principal_of(auth, token())).subject == "ann"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "those before stay" in record.getMessage()


async def test_without_any_keys_nobody_is_let_in_until_there_are_some(
    server: JwksServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    auth = auth_at(server, clock=clock)
    server.status = 503
    await refused(auth, token())
    await refused(auth, token())
    assert server.asked == 1
    assert "there are none" in caplog.text
    server.status = 200
    clock.now = 10
    assert (await principal_of(auth, token())).subject == "ann"


async def test_a_head_that_never_ends_holds_neither_a_request_nor_the_next_fetch(
    server: JwksServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("enclave_broker.broker.http.jwks.FETCH_SECONDS", 0.2)
    clock = Clock()
    auth = auth_at(server, clock=clock)
    server.drips = True
    async with asyncio.timeout(10):
        await refused(auth, token())
    assert "it isn't there after 0.2 s" in caplog.text
    server.drips = False
    monkeypatch.undo()
    clock.now = 10
    assert (await principal_of(auth, token())).subject == "ann"


def test_the_same_object_serves_in_one_loop_after_another(server: JwksServer) -> None:
    clock = Clock()
    auth = auth_at(server, clock=clock)
    assert asyncio.run(principal_of(auth, token())).subject == "ann"
    server.body = jwks(jwk(RSA, "RS256", kid="r2"))
    clock.now = 10
    assert asyncio.run(principal_of(auth, token(kid="r2"))).subject == "ann"


# -- as a command, and without the library ---------------------------------------------------------------------------


def test_serve_takes_tokens_and_keys_together(tmp_path: Path, file: Path, server: JwksServer) -> None:
    key = subprocess.run(
        [sys.executable, "-m", "enclave_broker", "keys", "create", "--subject", "bob", "keys.txt"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()
    options = ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE)
    for jwks_ in (file.name, server.url):
        environ = {"ENCLAVE_BROKER_JWT_JWKS": jwks_}
        with served(tmp_path, *options, "--api-keys", "keys.txt", environ=environ) as running:
            for credential, status in ((key, 200), (token(), 200), (key[:-1], 401), (token(aud="x"), 401)):
                headers = {"Authorization": f"Bearer {credential}"}
                assert running.client.get("/sessions", headers=headers).status_code == status


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_without_the_extra_only_jwt_is_missing_and_says_its_name(tmp_path: Path, missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import enclave_broker\n"
        "enclave_broker.ApiKeys\n"
        "try:\n    enclave_broker.Jwt(issuer='i', audience='a', jwks_file='none')\n"
        "except enclave_broker.ConfigurationError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, check=True, text=True
    )
    assert "pip install 'enclave-broker[jwt]'" in done.stdout

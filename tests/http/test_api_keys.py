# ruff: noqa: ASYNC240 - files of a few lines
"""API keys from a file of hashes, over HTTP."""

from __future__ import annotations

import logging
import os
import secrets
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.requests import Request

from enclave_broker import ApiKeys, AuthenticationError, Broker, ConfigurationError, Principal
from enclave_broker.broker.http.auth import authenticate
from enclave_broker.broker.http.key_file import Key, append_key, new_key
from tests.http.live import Live, final, memory_broker, refusal, request_bytes, serving


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def key_of(file: Path, subject: str, *, tenant: str | None = None, roles: tuple[str, ...] = ()) -> str:
    """A new key, whose hash is in the file."""
    key = new_key()
    append_key(file, Key(subject=subject, tenant=tenant, roles=roles, sha256=sha256(key.encode()).hexdigest()))
    return key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def asking(*values: bytes) -> Request:
    return Request({"type": "http", "headers": [(b"authorization", value) for value in values]})


async def principal_of(auth: ApiKeys, key: str) -> Principal:
    return await authenticate(auth, asking(f"Bearer {key}".encode()).scope, 10)


def status(live: Live, header: bytes) -> int:
    return live.client.get("/sessions", headers={b"Authorization": header}).status_code


async def test_a_key_names_its_principal(file: Path) -> None:
    ann = key_of(file, "ann", tenant="acme", roles=("admin", "staff"))
    bob = key_of(file, "bob")
    auth = ApiKeys(file)
    assert await principal_of(auth, ann) == Principal("ann", tenant="acme", roles=frozenset({"admin", "staff"}))
    assert await principal_of(auth, bob) == Principal("bob")


def test_a_script_runs_as_the_keys_principal(shop: Broker, file: Path) -> None:
    key = key_of(file, "ann")
    with serving(shop, auth=ApiKeys(file)) as live:
        response = live.post("return await tools.whoami({})", headers={"Authorization": f"bEaReR {key}"})
        assert final(response)["result"] == "ann"


async def test_one_subject_may_have_several_keys(file: Path) -> None:
    keys = [key_of(file, "ann", roles=roles) for roles in ((), ("admin",))]
    auth = ApiKeys(file)
    assert [(await principal_of(auth, key)).roles for key in keys] == [frozenset(), {"admin"}]


def test_what_is_no_key_is_401_and_never_a_failure(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = key_of(file, "ann")
    raw = key.encode()
    wrong = [
        b"",
        b"Bearer",
        raw,
        b"Basic " + raw,
        b"Bearer\t" + raw,
        b"Bearer " + raw + b"x",
        b"Bearer " + raw[:-1],
        b"Bearer " + raw.swapcase(),
        b"Bearer " + raw + b" " + raw,
        b"Bearer " + raw + b", Bearer " + raw,
        b"Bearer " + new_key().encode(),
        b"Bearer " + sha256(raw).hexdigest().encode(),
        "Bearer schlüssel".encode(),
        "Bearer ключ".encode(),
        b"Bearer \xff\xfe\xff",
        b"Bearer eb_" + "é".encode() * 21 + b"x",
        b"Bearer " + b"a" * 30_000,
        b"Bearer eb_" + b"\xff" * 20_000,
    ]
    with serving(memory_broker(), auth=ApiKeys(file)) as live:
        for header in wrong:
            response = live.client.get("/sessions", headers={b"Authorization": header})
            assert refusal(response) == (401, "UNAUTHENTICATED"), header
            assert response.headers["www-authenticate"] == "Bearer"
        assert status(live, b"Bearer " + raw) == 200
        assert status(live, b"bearer   " + raw) == 200
    assert caplog.records == []


def test_a_key_in_the_query_or_a_cookie_lets_nobody_in(file: Path) -> None:
    key = key_of(file, "ann")
    with serving(memory_broker(), auth=ApiKeys(file)) as live:
        for name in ("access_token", "token", "api_key", "authorization"):
            assert refusal(live.client.get("/sessions", params={name: key})) == (401, "UNAUTHENTICATED")
            response = live.client.get("/sessions", headers={"Cookie": f"{name}={key}"})
            assert refusal(response) == (401, "UNAUTHENTICATED")


def test_two_authorizations_are_refused_by_the_server(file: Path) -> None:
    line = f"Authorization: Bearer {key_of(file, 'ann')}"
    with serving(memory_broker(), auth=ApiKeys(file)) as live, live.socket() as connection:
        connection.sendall(request_bytes("GET", "/sessions", b"", line, line))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


async def test_two_authorizations_are_refused_by_the_keys_themselves(file: Path) -> None:
    header = f"Bearer {key_of(file, 'ann')}".encode()
    with pytest.raises(AuthenticationError):
        await ApiKeys(file)(asking(header, header))


def test_a_rejected_key_is_never_said_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    key_of(file, "ann")
    caplog.set_level(logging.DEBUG, "enclave_broker")
    with serving(memory_broker(), auth=ApiKeys(file)) as live:
        for token in (new_key(), secrets.token_hex(32), f"{secrets.token_hex(32)}\xff"):
            response = live.client.get("/sessions", headers={b"Authorization": b"Bearer " + token.encode("latin-1")})
            assert response.status_code == 401
            said = response.text + str(response.headers) + caplog.text
            assert token[:12] not in said


def test_the_file_holds_no_key(file: Path) -> None:
    key = key_of(file, "ann")
    assert key.removeprefix("eb_")[:8] not in file.read_text(encoding="utf-8")


# -- the file --------------------------------------------------------------------------------------------------------

HASH = "0" * 64


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f'{{"subject": "", "sha256": "{HASH}"}}', "a subject is printable text"),
        (f'{{"subject": "anonymous", "sha256": "{HASH}"}}', "'anonymous' is reserved"),
        (f'{{"subject": "a\\nb", "sha256": "{HASH}"}}', "a subject is printable text"),
        (f'{{"subject": "a", "tenant": "", "sha256": "{HASH}"}}', "a tenant is printable text"),
        (f'{{"subject": "a", "roles": "admin", "sha256": "{HASH}"}}', "roles"),
        (f'{{"subject": "a", "roles": [""], "sha256": "{HASH}"}}', "a role is printable text"),
        (f'{{"subject": "a", "rolls": [], "sha256": "{HASH}"}}', "rolls"),
        ('{"subject": "a", "sha256": "00"}', "sha256 has 64 digits"),
        ('{"subject": "a"}', "sha256"),
        (f'{{"sha256": "{HASH}"}}', "subject"),
        ("eb_in_plain_text", "malformed"),
        ("[" * 100_000, ""),
        ("\udcff", ""),
    ],
)
def test_a_bad_line_is_said_with_file_and_line(file: Path, line: str, said: str) -> None:
    file.write_bytes(b"# whose keys these are\n\n" + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(ConfigurationError) as caught:
        ApiKeys(file)
    assert caught.value.message.startswith(f"{file}:3: ")
    assert said in caught.value.message
    assert "plain_text" not in caught.value.message


def test_one_key_of_two_lines_is_refused(file: Path) -> None:
    file.write_text(f'{{"subject":"a","sha256":"{HASH}"}}\n{{"subject":"b","sha256":"{HASH}"}}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r":2: the key of line 1 again"):
        ApiKeys(file)


def test_a_file_that_is_not_there_is_said(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        ApiKeys(file)


async def test_the_hash_of_a_password_lets_nobody_in(file: Path) -> None:
    hashed = sha256(b"password").hexdigest()
    file.write_text(f'{{"subject":"a","sha256":"{hashed}"}}\n', encoding="utf-8")
    with pytest.raises(AuthenticationError):
        await principal_of(ApiKeys(file), "password")


# -- changes ---------------------------------------------------------------------------------------------------------


async def test_a_removed_key_stops_working_and_a_new_one_works(file: Path) -> None:
    clock = Clock()
    old = key_of(file, "ann")
    auth = ApiKeys(file, clock=clock)
    file.unlink()
    new = key_of(file, "bob")
    assert await principal_of(auth, old) == Principal("ann"), "it looks once a second"
    clock.now = 1
    with pytest.raises(AuthenticationError):
        await principal_of(auth, old)
    assert await principal_of(auth, new) == Principal("bob")


async def test_an_emptied_file_lets_nobody_in(file: Path) -> None:
    clock = Clock()
    key = key_of(file, "ann")
    auth = ApiKeys(file, clock=clock)
    file.write_text("", encoding="utf-8")
    clock.now = 1
    with pytest.raises(AuthenticationError):
        await principal_of(auth, key)


@pytest.mark.parametrize("broken", ['{"subject": "bob"}\n', None])
async def test_a_broken_or_missing_file_changes_nothing_and_is_logged_once(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    key = key_of(file, "ann")
    auth = ApiKeys(file, clock=clock)
    file.unlink()
    if broken is not None:
        file.write_text(broken, encoding="utf-8")
    for clock.now in (1, 2, 3):
        assert await principal_of(auth, key) == Principal("ann")
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert str(file) in record.getMessage()
    bob = key_of(file.with_suffix(".new"), "bob")
    file.with_suffix(".new").replace(file)
    clock.now = 4
    assert await principal_of(auth, bob) == Principal("bob")


# -- adding ----------------------------------------------------------------------------------------------------------


def test_a_new_file_is_its_owners_alone_and_an_old_one_keeps_its_mode(file: Path) -> None:
    mask = os.umask(0)
    try:
        key_of(file, "ann")
        assert file.stat().st_mode & 0o777 == 0o600
        file.chmod(0o644)
        key_of(file, "bob")
        assert file.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(mask)


async def test_a_key_is_added_behind_a_line_that_does_not_end(file: Path) -> None:
    first = key_of(file, "ann")
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    second = key_of(file, "bob")
    auth = ApiKeys(file)
    assert [(await principal_of(auth, key)).subject for key in (first, second)] == ["ann", "bob"]


def test_nothing_is_added_to_what_is_no_file_of_keys(file: Path) -> None:
    file.write_text("password = 1\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=":1: "):
        key_of(file, "ann")
    assert file.read_text(encoding="utf-8") == "password = 1\n"
    with pytest.raises(ConfigurationError, match="isn't a file"):
        key_of(file.parent, "ann")

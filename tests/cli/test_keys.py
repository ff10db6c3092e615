"""`keys create`, and the keys at a real `serve`, by the clients of the command line and of Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enclave_broker import AsyncClient, AuthenticationError
from tests.cli.terminal import Finished, command
from tests.http.live import refusal
from tests.http.served import APP, Served, served

WHO = """
@broker.tool("whoami", effect="read")
async def whoami(context: ToolContext) -> list[str | None]:
    who = context.principal
    return [who.subject, who.tenant, *sorted(who.roles)]
"""
APP_WITH_WHO = APP.replace("import Broker", "import Broker, ToolContext") + WHO
CODE = "return await tools.whoami({})"


def create(folder: Path, *options: str, file: str = "keys.txt") -> Finished:
    return command("keys", "create", *options, file, folder=folder)


def created(folder: Path, *options: str) -> str:
    done = create(folder, *options)
    assert done.code == 0, done.err
    return done.out.strip()


def status(server: Served, key: str) -> int:
    return server.client.get("/sessions", headers={"Authorization": f"Bearer {key}"}).status_code


def test_the_key_alone_is_printed_and_its_hash_is_in_the_file(folder: Path) -> None:
    done = create(folder, "--subject", "ann", "--tenant", "acme", "--role", "admin", "--role", "staff")
    key = done.out.strip()
    assert (done.code, done.out) == (0, f"{key}\n")
    assert key.startswith("eb_")
    assert len(key) == 46
    text = (folder / "keys.txt").read_text(encoding="utf-8")
    line = json.loads(text)
    assert (line["subject"], line["tenant"], line["roles"]) == ("ann", "acme", ["admin", "staff"])
    assert key not in text + done.err
    assert (folder / "keys.txt").stat().st_mode & 0o077 == 0
    assert create(folder, "--subject", "ann").out.strip() != key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--subject", ""], "a subject is printable text"),
        (["--subject", "anonymous"], "'anonymous' is reserved"),
        (["--subject", "a\nb"], "a subject is printable text"),
        (["--subject", "ann", "--tenant", " "], "a tenant is printable text"),
        (["--subject", "ann", "--role", ""], "a role is printable text"),
        ([], "--subject"),
    ],
)
def test_who_cannot_have_a_key_gets_none(folder: Path, options: list[str], said: str) -> None:
    done = create(folder, *options)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("file", ["app.py", ".", "nowhere/keys.txt"])
def test_a_file_that_cannot_have_keys_is_said_and_no_key_is_printed(shop: Path, file: str) -> None:
    before = (shop / "app.py").read_bytes()
    done = create(shop, "--subject", "ann", file=file)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {file}:")
    assert (shop / "app.py").read_bytes() == before


def test_the_help_shows_how_to_keep_the_key(folder: Path) -> None:
    done = command("keys", "create", "--help", folder=folder)
    assert (done.code, done.err) == (0, "")
    assert "KEY=$(enclave-broker keys create" in done.out
    assert command("keys", folder=folder).code == 2


# -- at a server -----------------------------------------------------------------------------------------------------


async def test_a_key_that_was_created_works_with_every_client(folder: Path) -> None:
    key = created(folder, "--subject", "ann", "--tenant", "acme", "--role", "staff")
    with served(folder, "--api-keys", "keys.txt", app=APP_WITH_WHO) as server:
        for client in (AsyncClient(server.url, api_key=key), AsyncClient(server.url, token=key)):
            async with client:
                assert (await client.execute(CODE)).value == ["ann", "acme", "staff"]
        async with AsyncClient(server.url) as client:
            with pytest.raises(AuthenticationError):
                await client.execute(CODE)
        environ = {"ENCLAVE_BROKER_URL": server.url, "ENCLAVE_BROKER_API_KEY": key}
        done = command("run", "--url", server.url, "-e", CODE, folder=folder, environ=environ)
        assert (done.code, json.loads(done.out)) == (0, ["ann", "acme", "staff"])
        assert command("sessions", "list", folder=folder, environ=environ).code == 0
        wrong = command("sessions", "list", "--api-key", key[:-1], folder=folder, environ=environ)
        assert (wrong.code, wrong.out) == (1, "")
        assert wrong.err.startswith("error UNAUTHENTICATED: ")
        assert refusal(server.client.get("/sessions")) == (401, "UNAUTHENTICATED")
        assert server.end() == 0
        assert key not in "".join(server.said)


def test_a_key_made_while_it_serves_works_and_one_taken_out_does_not(folder: Path) -> None:
    first = created(folder, "--subject", "ann")
    with served(folder, environ={"ENCLAVE_BROKER_API_KEYS": "keys.txt"}) as server:
        assert status(server, first) == 200
        (folder / "keys.txt").unlink()
        second = created(folder, "--subject", "bob")
        while status(server, second) != 200:
            assert server.process.poll() is None
        assert status(server, first) == 401


def test_keys_and_reload_go_together(folder: Path) -> None:
    key = created(folder, "--subject", "ann")
    with served(folder, "--api-keys", "keys.txt", "--reload") as server:
        assert (status(server, key), status(server, "eb_")) == (200, 401)
        (folder / "app.py").write_text(APP.replace("VALUE", "23"), encoding="utf-8")
        server.hear_url()
        assert (status(server, key), status(server, "eb_")) == (200, 401)


def test_beyond_this_machine_serve_runs_with_keys(folder: Path) -> None:
    key = created(folder, "--subject", "ann")
    with served(folder, "--host", "0.0.0.0", "--api-keys", "keys.txt") as server:
        server.hear("who has a key or a token is let in")
        server.client.base_url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert (status(server, key), status(server, "eb_")) == (200, 401)


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--no-auth", "--api-keys", "keys.txt"], {}, "--no-auth lets everybody in"),
        (["--no-auth"], {"ENCLAVE_BROKER_API_KEYS": "keys.txt"}, "ENCLAVE_BROKER_API_KEYS"),
        (["--no-auth"], {"ENCLAVE_BROKER_JWT_ISSUER": "https://i.example"}, "ENCLAVE_BROKER_JWT_ISSUER"),
        (["--api-keys", ""], {}, "--api-keys is empty"),
        (["--api-keys", "none.txt"], {}, "none.txt: No such file"),
        (["--api-keys", "app.py"], {}, "app.py:1: "),
        (["--jwt-issuer", "https://i.example"], {}, "--jwt-audience (ENCLAVE_BROKER_JWT_AUDIENCE), --jwt-jwks"),
        (["--jwt-jwks", ""], {}, "--jwt-jwks is empty"),
        (["--jwt-issuer=i", "--jwt-audience=a", "--jwt-jwks=none.json"], {}, "none.json: No such file"),
        (["--jwt-issuer=i", "--jwt-audience=a", "--jwt-jwks=http://i.example/jwks"], {}, "https://"),
    ],
)
def test_what_does_not_say_who_may_come_in_does_not_serve(
    shop: Path, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    created(shop, "--subject", "ann")
    done = command("serve", "--port", "0", *arguments, folder=shop, environ=environ)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err

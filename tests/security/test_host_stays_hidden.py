"""Nothing of the host is in what a script, or whoever reads its session, gets to see: no secret, no path, no name."""

from __future__ import annotations

import getpass
import platform
import re
import socket
from pathlib import Path

import pytest

from tests.security.attacks import HERE, Attempt, Secrets, evidence, unwalled
from tests.security.host import Host

SEARCHES = {
    path.stem: Attempt("search", path.stem, path.read_text(encoding="utf-8"))
    for path in sorted((HERE / "searches").glob("*.js"))
}
ABSOLUTE = re.compile(r"""(?:^|[\s"'(=:])(/(?:[\w.+@-]+/)+[\w.+@-]*|[A-Za-z]:\\)""", re.MULTILINE)
"""A path from the root with at least one folder in it."""
CANCEL_URL = re.compile(r'"cancelUrl": "/sessions/[^/"]+/cancel"')
ERROR_ID = re.compile(r"error id [0-9a-f]{12}")
PYTHON = ("Traceback", ".py", "pydantic", "enclave_broker", "site-packages", "asyncio", "RuntimeError", "KeyError")
FILL = """
const text = "SECRET ".repeat(1000);
const held = [];
for (let i = 0; i < 500; i++) held.push(text + i, new TextEncoder().encode(text), { [text + i]: i });
return held.length;
"""

searches = pytest.mark.parametrize("search", SEARCHES)
in_one_loop = pytest.mark.asyncio(loop_scope="module")


@searches
def test_a_search_finds_secrets_where_there_are_no_walls(search: str, secret: Secrets, file: Path) -> None:
    told = unwalled(SEARCHES[search], secret, file)
    assert evidence(told, [*secret, str(HERE)]), told[:1]


@in_one_loop
@searches
async def test_a_search_finds_none_of_the_hosts_secrets(search: str, host: Host) -> None:
    filled, _ = await host.run(FILL.replace("SECRET", host.secret.neighbour))
    assert filled.value == 1500
    told = await host.attempt(SEARCHES[search])
    assert evidence(told, [*host.secret, str(HERE)]) == []


@in_one_loop
async def test_the_crawl_looks_at_everything_and_the_errors_are_all_made(host: Host) -> None:
    crawled, _ = await host.run(SEARCHES["crawl"].code)
    assert int(str(crawled.value).removeprefix("looked at ")) > 500
    failed, _ = await host.run(SEARCHES["errors"].code)
    assert failed.error is not None
    assert failed.error.message == "the end"
    assert "nothing failed" not in failed.stdout


@in_one_loop
@searches
async def test_no_path_and_no_name_of_the_host_is_seen(search: str, host: Host) -> None:
    _, told = await host.run(SEARCHES[search].code)
    seen = CANCEL_URL.sub("", "\n".join(told)).replace(str(host.file), "").replace("../../etc/passwd", "")
    assert ABSOLUTE.findall(seen) == []
    names = [socket.gethostname(), getpass.getuser(), platform.python_version(), *PYTHON]
    assert [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", seen)] == []


@in_one_loop
async def test_failures_look_the_same_in_every_process(host: Host) -> None:
    """So they hold neither process id nor user id, addresses or anything else of the one that they happened in."""
    seen = [(await host.run(SEARCHES["errors"].code, tenant))[0] for tenant in ("here", "elsewhere")]
    one, other = (ERROR_ID.sub("", f"{result.stdout} {result.error}") for result in seen)
    assert one == other

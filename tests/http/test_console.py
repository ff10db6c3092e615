"""The console's page and files: who gets them, and what a browser lets them do."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from enclave_broker import Principal
from enclave_broker.broker.http import console
from enclave_broker.types.errors import AuthenticationError
from tests.http.live import Live, memory_broker, refusal, serving

FOLDER = Path(console.__file__).with_name("console")
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
PATHS = sorted(console.CONSOLE_PATHS)


async def nobody(request: Request) -> Principal:
    raise AuthenticationError("nobody is known")


def test_every_file_of_the_folder_is_served_as_what_it_is(shared: Live) -> None:
    types = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert len(PATHS) == len(FILES)
    for path in PATHS:
        file = FOLDER / (path.removeprefix("/console").strip("/") or "index.html")
        response = shared.client.get(path)
        assert response.status_code == 200
        assert response.content == file.read_bytes()
        assert response.headers["content-type"].startswith(types[file.suffix[1:]])


@pytest.mark.parametrize("path", PATHS)
def test_what_a_browser_lets_it_do_is_said_with_each_file(shared: Live, path: str) -> None:
    headers = shared.client.get(path).headers
    parts = [part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")]
    policy = {name: value for name, value in parts}  # noqa: C416 a dict of lists has no type
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", PATHS)
def test_it_is_only_read(shared: Live, path: str) -> None:
    head = shared.client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        refused = shared.client.request(method, path)
        assert refusal(refused) == (405, "METHOD_NOT_ALLOWED")
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS"


def test_the_page_is_there_for_everybody_and_nothing_else_is() -> None:
    with serving(memory_broker(), auth=nobody) as live:
        for path in PATHS:
            assert live.client.get(path).status_code == 200
        for path in (
            "/console/",
            "/console/nothing.js",
            "/console/../sessions",
            "/consoles",
            "/sessions",
            "/code/actions",
        ):
            assert refusal(live.client.get(path)) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "path", ["/console/", "/console/index.html", "/console/console.py", "/console/%2e%2e/console.py", "/console/.."]
)
def test_nothing_but_its_files_is_below_it(shared: Live, path: str) -> None:
    assert shared.client.get(path).status_code == 404


def test_it_can_be_left_out() -> None:
    with serving(memory_broker(), console=False) as live:
        for path in PATHS:
            assert refusal(live.client.get(path)) == (404, "NOT_FOUND")


def test_it_can_be_left_out_of_a_mounted_broker() -> None:
    broker, app = memory_broker(), Starlette()
    broker.mount(app, "/enclave", console=False)
    with serving(broker, app=app) as live:
        assert refusal(live.client.get("/enclave/console")) == (404, "NOT_FOUND")


def test_all_that_the_page_asks_for_is_where_it_is_mounted() -> None:
    broker, app = memory_broker(), Starlette()
    broker.mount(app, "/enclave", auth=nobody)
    with serving(broker, app=app) as live:
        page = live.client.get("/enclave/console")
        asked = {urljoin("/enclave/console", name) for name in re.findall(r'(?:href|src)="([^"#]+)"', page.text)}
        assert len(asked) == 3
        for script in [name for name in asked if name.endswith(".js")]:
            asked |= modules(live.client, script)
        assert asked == {f"/enclave{path}" for path in PATHS} - {"/enclave/console"}


def modules(client: httpx.Client, path: str) -> set[str]:
    """What a script imports, and what that does."""
    found, left = set[str](), {path}
    while left:
        found.add(here := left.pop())
        text = client.get(here).raise_for_status().text
        left |= {urljoin(here, name) for name in re.findall(r'from "([^"]+)"', text)} - found
    return found


# -- what stands in the files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_makes_markup_or_code_of_text(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|DOMParser|setHTML|srcdoc|document\.write"
    ways += r"|\beval\b|new Function|setTimeout\(\s*[\"'`]|javascript:|import\("
    assert re.findall(ways, text) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_needs_anything_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?:|//[a-z]+\.|@import|url\(", text) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_short_enough_to_be_read_at_once(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_page_has_no_inline_script_or_style() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]* src=)[^>]*>|<style|\sstyle=|\son[a-z]+=", page) == []
    assert re.findall(r'(?:href|src|action)="(?!console/|#)([^"]*)"', page) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_is_kept_for_longer_than_the_tab(file: Path) -> None:
    assert re.findall(r"localStorage|indexedDB|document\.cookie|caches\b", file.read_text(encoding="utf-8")) == []

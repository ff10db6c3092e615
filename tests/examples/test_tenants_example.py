"""`python examples/tenants`: it comes out as told, and says so when it doesn't."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pytest

ROOT = Path(__file__).parents[2]
TENANTS = ROOT / "examples/tenants"
ROW = re.compile(r"^(clara@acme|gus@globex|olga|anybody) +(\S.*?) {2,}(\w+) +(\S.*)$", re.MULTILINE)
TOLD = [
    ("clara@acme", 'refunds:create {"order":2,"amount":40}', "done"),
    ("clara@acme", "a fourth script", "429"),
    ("gus@globex", "orders:list", "done"),
    ("gus@globex", "7 requests about clara's, 7 alike", "404"),
    ("clara@acme", "approves her own", "403"),
    ("clara@acme", 'refunds:create {"order":1,"amount":900}', "done"),
    ("clara@acme", 'refunds:create {"order":3,"amount":5000}', "denied"),
    ("olga", 'refunds:create {"order":1,"amount":300}', "done"),
    ("clara@acme", 'refunds:create {"order":4,"amount":1400}', "done"),
    ("clara@acme", 'payments:charge {"order":2,"amount":50}', "failed"),
    ("clara@acme", 'payments:charge {"order":2,"amount":500}', "failed"),
]


def run(folder: Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, str(folder)], {**os.environ, **environ}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def rows(shown: str) -> list[tuple[str, str, str]]:
    """The table's: who, what, how it came out."""
    found = ROW.findall(shown.partition("What happened, and why\n")[2])
    return [(who, what, came_out) for who, what, came_out, _ in found]


def changed(tmp_path: Path, file: str, before: str, after: str) -> Path:
    """The example with another text in one of its files."""
    shutil.copytree(ROOT / "examples/demo", tmp_path / "demo")  # the stand-in for curl
    folder = tmp_path / "tenants"
    shutil.copytree(TENANTS, folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(before) == 1
    (folder / file).write_text(text.replace(before, after), encoding="utf-8")
    return folder


def test_it_comes_out_as_told_and_the_table_says_why(tmp_path: Path) -> None:
    done = run(TENANTS, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\nAs told\n" in done.stdout
    *others, last = rows(done.stdout)
    assert others == TOLD
    assert (last[0], last[2]) == ("anybody", "nowhere")
    table = " ".join(done.stdout.partition("What happened, and why\n")[2].split())
    for why in (
        "refunds:create (policy.yaml:6); approved by sam@acme, with curl",
        "denied by sam@acme, with the command line: there is no receipt",
        "approved by her, at the terminal",
        "approved by sam@acme, by the example, as nobody was at the console",
    ):
        assert why in table
    assert "s_second: APPROVAL_DENIED: there is no receipt" in done.stdout
    assert "approve? [y/n] y\n" in done.stdout
    assert done.stdout.count(": the same\n") == 7
    assert len(re.findall(r"^  .* bytes   nowhere$", done.stdout, re.MULTILINE)) == 5
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_it_needs_no_curl(tmp_path: Path) -> None:
    done = run(TENANTS, tmp_path, PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is no curl here" in done.stdout
    assert rows(done.stdout)[:-1] == TOLD


def test_another_policy_is_found_out(tmp_path: Path) -> None:
    folder = changed(tmp_path, "policy.yaml", "approvers: {role: supervisor}", "approvers: {tenant: acme}")
    done = run(folder, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT as told" in done.stdout
    assert "clara@acme: approves her own: '200' instead of '403'" in done.stdout


def test_a_tool_that_takes_its_secret_past_the_broker_is_found_out(tmp_path: Path) -> None:
    folder = changed(tmp_path, "app.py", 'context.secrets["psp_key"]', '__import__("os").environ["PSP_KEY"]')
    app = folder / "app.py"
    app.write_text(app.read_text(encoding="utf-8").replace(', secrets=["psp_key"])', ")"), encoding="utf-8")
    done = run(folder, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    (found,) = [line for line in done.stdout.splitlines() if line.startswith("  the server's log")]
    assert "plain" in found
    (found,) = [line for line in done.stdout.splitlines() if line.startswith("  streams")]
    assert "base64" in found
    assert "looks for the secret" in done.stdout.partition("NOT as told")[2]


@pytest.fixture
def search() -> ModuleType:
    found = importlib.util.spec_from_file_location("tenants_search", TENANTS / "search.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_secret_is_found_in_every_encoding_wherever_it_stands(search: ModuleType, before: str) -> None:
    secret = "+/s3cret=?&~ of 24 letters"
    text = f"{before}{secret}!"
    for shown in (
        text.encode(),
        quote(text).replace("%3F", "%3f").encode(),
        quote(text, safe="").encode(),
        b64encode(text.encode()),
        urlsafe_b64encode(text.encode()),
        text.encode().hex().upper().encode(),
    ):
        assert search.holds(b"x" + shown + b"x", secret), shown
    assert search.holds(b"nothing of it, not even [secret psp_key]", secret) == []

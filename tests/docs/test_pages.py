from __future__ import annotations

import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path

import pytest

import enclave_broker
from enclave_broker import SessionLimits
from enclave_broker.cli.arguments import parser
from enclave_broker.types.errors import RESERVED_CODES
from tests.docs.commands import environment
from tests.docs.page import tables

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"^```.*?^```$|`[^`\n]*\]\([^`\n]*`", re.MULTILINE | re.DOTALL)
"""Code whose brackets look like a link's."""
UNITS = {"s": 1.0, "KiB": 1024, "MiB": 1024**2, "": 1}


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def first_cells(name: str, *head: str) -> dict[str, str]:
    """Of the page's table with this head: what stands in the second column, by the first."""
    return {row[0]: row[1] for titles, rows in tables(text(name)) if titles[: len(head)] == head for row in rows}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_what_a_page_shows_is_what_happens(page: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.docs.page", str(page), str(DOCS / "tutorial.md")]
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # as in a checkout
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_what_a_page_links_to_and_names_is_there(page: Path) -> None:
    content = CODE.sub("", page.read_text(encoding="utf-8"))
    missing: list[str] = []
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", content):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    missing += [name for name in re.findall(r"`(tests/[\w/.]+)`", content) if not (ROOT / name).exists()]
    assert missing == []


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_limit_stands_in_the_reference_with_its_default() -> None:
    stated = first_cells("reference/limits.md", "limit", "default")
    defaults = SessionLimits()
    assert set(stated) == {field.name for field in fields(SessionLimits)}
    for name, default in stated.items():
        assert value(default) == getattr(defaults, name), name


def value(cell: str) -> float | bool | None:
    if cell in {"none", "False"}:
        return None if cell == "none" else False
    number, _, unit = cell.partition(" ")
    return float(number) * UNITS[unit]


def test_every_code_stands_in_the_reference_once() -> None:
    page = text("reference/errors.md").split("## What a wrong script gets")[0]
    codes = [code for code in re.findall(r"`([A-Z_]+)`", page) if code in RESERVED_CODES]
    listed = [code for titles, rows in tables(page) if titles[0] == "code" for row in rows for code in codes_of(row[0])]
    later = codes_of(page.partition("not made today")[2])
    assert set(codes) == RESERVED_CODES
    assert sorted([*listed, *later]) == sorted(RESERVED_CODES)


def codes_of(words: str) -> list[str]:
    return [word for word in re.findall(r"[A-Z_]{5,}", words) if word in RESERVED_CODES]


def test_every_public_name_stands_in_the_reference() -> None:
    named = set(re.findall(r"`(\w+)`", text("reference/api.md")))
    assert set(enclave_broker.__all__) - named == set()


def test_every_option_stands_in_the_reference() -> None:
    page = text("reference/cli.md")
    commands = [
        "run",
        "tools list",
        "tools describe",
        "tools call",
        "serve",
        "doctor",
        "access check",
        "keys create",
        "",
    ]
    for command in [words.split() for words in commands]:
        assert [option for option in options(command) if option not in page] == []


def options(command: list[str]) -> list[str]:
    """The long options that a command's help names."""
    help_ = StringIO()
    with redirect_stdout(help_), pytest.raises(SystemExit):
        parser().parse_args([*command, "--help"])
    return re.findall(r"--[a-z]+(?:-[a-z]+)*", help_.getvalue().partition("examples:")[0])

"""An interpreter behind all walls goes on when something harmless would have looked for a file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from functools import cache
from typing import NamedTuple

import pytest

from tests.runtime.hardening.child import program


class Calm(NamedTuple):
    code: int
    said: dict[str, str]
    stderr: str


@cache
def calm() -> Calm:
    ours, theirs = socket.socketpair()
    image = os.open(os.devnull, os.O_RDONLY)
    with ours, theirs:
        kept = (theirs.fileno(), image)
        child = subprocess.Popen(
            program("calm", *map(str, kept)), pass_fds=kept, env={}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        theirs.close()
        os.close(image)
        stderr = child.communicate(timeout=50)[1].decode()
        said = ours.recv(1 << 16) or b"{}"
    return Calm(child.returncode, json.loads(said), stderr)


def test_nothing_harmless_kills_the_process() -> None:
    assert calm().code == 0, calm().stderr


@pytest.mark.parametrize(
    ("what", "part"),
    [
        ("format", "ValueError: from the depths"),
        ("recursion", "RecursionError"),
        ("lazy import", "No module named 'wave'"),
        ("codec", "unknown encoding: cp437"),
        ("known codec", "utf-8"),
        ("time", "No module named '_strptime'"),
        ("local time", "19"),
    ],
)
def test_what_needs_a_file_fails_as_an_exception(what: str, part: str) -> None:
    assert part in calm().said[what]


def test_a_traceback_names_functions_and_lines_but_shows_no_source() -> None:
    text = calm().said["format"]
    assert text.count("in _raise") == 4
    assert "raise ValueError" not in text


@pytest.mark.parametrize(
    "part",
    [
        "UserWarning: the first warning",
        "KeyError: 'in a finaliser'",
        "in fail\n",  # the thread's traceback
        "in _hook\n",
    ],
)
def test_last_words_reach_stderr(part: str) -> None:
    assert part in calm().stderr

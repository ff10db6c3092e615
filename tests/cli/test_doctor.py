from __future__ import annotations

import sys
from pathlib import Path

from enclave_broker.runtime.hardening.inspect import inspect_walls
from enclave_broker.runtime.image import engine_hash
from tests.cli.terminal import command


def test_doctor_shows_versions_engine_and_every_wall(folder: Path) -> None:
    done = command("doctor", folder=folder)
    assert sys.executable in done.out
    assert f"sha256 {engine_hash()}" in done.out
    walls = inspect_walls()
    for wall in walls.walls:
        assert wall.name in done.out
    assert done.code == (1 if walls.missing_required else 0)
    assert done.out.splitlines()[-1].startswith("failed:" if walls.missing_required else "ok:")


def test_doctor_says_where_the_compiled_engine_is(folder: Path) -> None:
    cache = folder / "cache"
    environ = {"XDG_CACHE_HOME": str(cache), "HOME": str(folder)}
    first = command("doctor", folder=folder, environ=environ).out
    second = command("doctor", folder=folder, environ=environ).out
    assert "just now made and put into the cache" in first
    assert str(folder) in first
    assert "in the cache\n" in second


def test_doctor_says_when_the_engine_cannot_be_cached(folder: Path) -> None:
    (folder / "file").write_text("")
    done = command(
        "doctor", folder=folder, environ={"XDG_CACHE_HOME": str(folder / "file"), "HOME": str(folder / "file")}
    )
    assert "the cache can't be used, so each start compiles it anew" in done.out

"""`enclave-broker doctor`: what the sandbox enforces on this machine, and what scripts would run on."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from enclave_broker.cli.failure import CHECK_FAILED, OK
from enclave_broker.cli.screen import BOLD, DIM, GREEN, RED, YELLOW, Screen
from enclave_broker.cli.text import inline, size
from enclave_broker.cli.versions import own_version, version_of
from enclave_broker.runtime.hardening.inspect import inspect_walls
from enclave_broker.runtime.hardening.report import Report
from enclave_broker.runtime.image import engine_hash, open_image

__all__ = ["execute"]

_NAME_COLUMNS = 16


def execute(_arguments: argparse.Namespace, screen: Screen) -> int:
    """Show everything, then fail if scripts could not run here."""
    _heading(screen, "versions")
    _row(screen, "enclave-broker", own_version())
    _row(screen, "python", f"{platform.python_version()}, {sys.executable}")
    _row(screen, "wasmtime", version_of("wasmtime"))
    _row(screen, "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    _heading(screen, "engine")
    missing = _show_engine(screen)
    _heading(screen, "sandbox")
    walls = inspect_walls()
    for wall in walls.walls:
        sign, style = ("✓", GREEN) if wall.ok else ("✗", RED) if wall.required else ("-", YELLOW)
        screen.result(f"  {screen.out.paint(sign, style)} {inline(wall.line)}\n")
    missing += walls.missing_required
    screen.result("\n")
    if missing:
        screen.result(
            f"{screen.out.paint('failed:', RED)} missing {', '.join(missing)}; no script runs here{_way_out(walls)}\n"
        )
        return CHECK_FAILED
    left_out = sum(1 for wall in walls.walls if not wall.ok)
    optional = f", {left_out} that can be done without missing" if left_out else ""
    screen.result(f"{screen.out.paint('ok:', GREEN)} every required wall stands{optional}\n")
    return OK


def _way_out(walls: Report) -> str:
    return ", unless with --weak-sandbox" if walls.missing_required else ""


def _heading(screen: Screen, text: str) -> None:
    screen.result(screen.out.paint(text, BOLD) + "\n")


def _row(screen: Screen, name: str, value: str) -> None:
    screen.result(f"  {screen.out.paint(name.ljust(_NAME_COLUMNS), DIM)}{inline(value)}\n")


def _show_engine(screen: Screen) -> list[str]:
    """The module's hash and where its compiled image lies; what of it is missing."""
    try:
        _row(screen, "module", f"sha256 {engine_hash()}")
        _row(screen, "image", _image())
    except (OSError, RuntimeError) as error:
        _row(screen, "missing", str(error))
        return ["engine"]
    return []


def _image() -> str:
    """Where the compiled image is. The first that was ever made is handed out from memory, the next from the cache."""
    for made in ("in the cache", "just now made and put into the cache"):
        image = open_image()
        try:
            path, length = _path_of(image), os.fstat(image).st_size
        finally:
            os.close(image)
        if path is not None:
            return f"{path}, {size(length)}, {made}"
    return f"in memory, {size(length)}: the cache can't be used, so each start compiles it anew"


def _path_of(descriptor: int) -> Path | None:
    """The path of an open file, None if it has none."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 - the constant is macOS's own

        path = Path(os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")))
    else:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return path if path.is_file() else None

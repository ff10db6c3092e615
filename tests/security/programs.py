"""How the programs beside this are started: fresh, isolated, with nothing of pytest's in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["command", "output_of"]

ROOT = Path(__file__).parents[2]
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from tests.security.{module} import main; main()"


def command(module: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-c", BOOT.format(module=module), str(ROOT), *words]


def output_of(arguments: list[str]) -> bytes:
    """What it prints; it has to end well."""
    # Where the compiled engine lies hangs on HOME; nothing else is inherited.
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "PATH") if name in os.environ}
    ran = subprocess.run(arguments, capture_output=True, timeout=55, check=False, env=kept)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout

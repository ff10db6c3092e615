"""The README of the EnclaveJS broker as a script, which is kept as it is: all of it has to pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("seed_snippets.py")


def test_every_snippet_of_the_original_readme_works_in_python() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "19 passed, 0 failed"

"""Part 1: a report at the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from screen import heading

__all__ = ["show_report"]

ROOT = Path(__file__).resolve().parents[2]


def show_report() -> list[str]:
    """The command itself, as somebody would type it; what went wrong."""
    heading("1. A report: a script, its calls, its output, its value")
    words = ["run", "examples/orders/report.js", "--app", "examples/orders/app.py", "--verbose"]
    print("$ enclave-broker", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "enclave_broker", *words], cwd=ROOT, check=False)
    return [f"the report ended with exit code {done.returncode}"] if done.returncode else []

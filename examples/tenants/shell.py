"""Commands, shown and then run as they are shown."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from screen import COLUMNS, say

__all__ = ["Shell"]

HERE = Path(__file__).parent
STAND_IN = HERE.parent / "demo" / "curl.py"
ON_ITS_WAY = re.compile(r"[^\n]*\r\x1b\[K")
"""What a program writes over again while it works."""


class Shell:
    """`enclave-broker` is this Python's, `curl` the machine's if there is one; `variables` are what commands have."""

    def __init__(self, folder: Path) -> None:
        """What it needs is put into `folder`."""
        programs = {"enclave-broker": [sys.executable, "-m", "enclave_broker"]}
        if shutil.which("curl") is None:
            say("There is no curl here: a small program in Python, examples/demo/curl.py, stands in for it.")
            programs["curl"] = [sys.executable, str(STAND_IN)]
        for name, command in programs.items():
            (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
            (folder / name).chmod(0o700)
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith("ENCLAVE_BROKER_")} | {
            "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "no_proxy": "*",  # it is this very machine that is asked
            "NO_COLOR": "1",
            "TERM": "xterm",
            "COLUMNS": "100",
        }

    def set(self, name: str, value: str, *, shown: str | None = None) -> None:
        print(f"$ {name}={shown or value}", flush=True)
        self.variables[name] = value

    def export(self, **names: str) -> None:
        """Variables with the values of others."""
        print("$ export", *(f"{name}=${other}" for name, other in names.items()), flush=True)
        self.variables |= {name: self.variables[other] for name, other in names.items()}

    def run(self, command: str) -> str:
        """What it writes to stdout, which is shown; what it writes to stderr is shown, too."""
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=HERE, env=self.variables, capture_output=True, text=True, check=False
        )
        for line in (done.stdout + done.stderr).splitlines():
            print("\n".join(line[at : at + COLUMNS] for at in range(0, len(line), COLUMNS)), flush=True)
        return done.stdout

    def set_to_output(self, name: str, command: str) -> None:
        """Set the variable to what the command writes to stdout."""
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=HERE, env=self.variables, capture_output=True, text=True, check=True
        )
        self.set(name, done.stdout.strip(), shown=f"$({command})")

    def start(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """In the background; what it writes to stderr goes to the file."""
        print(f"$ {command} 2>server.log &", flush=True)
        with log.open("wb") as file:
            return subprocess.Popen(["/bin/sh", "-c", f"exec {command}"], cwd=HERE, env=self.variables, stderr=file)

    def at_a_terminal(self, command: str, question: str, answer: str) -> str:
        """Run it at a terminal of its own, and type the answer when it asks. What that has shown, which is shown."""
        print(f"$ {command}", flush=True)
        ours, theirs = pty.openpty()
        shown = b""
        with subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=HERE,
            env=self.variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ):
            os.close(theirs)
            answered = False
            while part := _read(ours):
                shown += part
                if not answered and question.encode() in shown:
                    os.write(ours, answer.encode() + b"\n")
                    answered = True
        os.close(ours)
        text = ON_ITS_WAY.sub("", shown.decode().replace("\r\n", "\n"))
        print(text.rstrip("\n"), flush=True)
        return text


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # so Linux says that nobody has the other side any more
        return b""

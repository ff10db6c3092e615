"""The shop as it is served: its keys, its process, and requests with somebody's key."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
from shell import Shell

__all__ = ["PEOPLE", "SECONDS", "Person", "Shop", "serve", "until"]

T = TypeVar("T")

SECONDS = 30.0
"""After which the example gives up what doesn't come."""


class Person(NamedTuple):
    name: str
    tenant: str | None
    role: str

    def __str__(self) -> str:
        return self.name if self.tenant is None else f"{self.name}@{self.tenant}"

    @property
    def variable(self) -> str:
        """That has the key."""
        return self.name.upper()


PEOPLE = {
    person.name: person
    for person in (
        Person("clara", "acme", "clerk"),
        Person("sam", "acme", "supervisor"),
        Person("gus", "globex", "supervisor"),
        Person("scraper", None, "metrics"),
    )
}


class Shop:
    def __init__(self, shell: Shell, url: str, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.shell = shell
        self.url = url
        self.log = log
        self.process = process
        self.client = httpx.Client(base_url=url, timeout=SECONDS, trust_env=False)

    def ask(self, who: str, method: str, path: str, body: Any = None, accept: str = "*/*") -> httpx.Response:
        key = self.shell.variables[PEOPLE[who].variable]
        headers = {"authorization": f"Bearer {key}", "accept": accept}
        return self.client.request(method, path, json=body, headers=headers)

    def get(self, who: str, path: str) -> Any:
        return self.ask(who, "GET", path).json()

    def begin(self, who: str, session: str, code: str) -> httpx.Response:
        """Have a script run, and leave: it goes on when nobody watches."""
        key = self.shell.variables[PEOPLE[who].variable]
        body = {"sessionId": session, "code": code, "detach": True}
        headers = {"authorization": f"Bearer {key}"}
        with self.client.stream("POST", "/sessions", json=body, headers=headers) as response:
            if response.is_error:
                response.read()
            return response

    def end_of(self, who: str, session: str) -> Any:
        """What the script returns, once it has."""
        final = json.loads(self.ask(who, "GET", f"/sessions/{session}/stream").text.splitlines()[-1])
        return final["payload"].get("result", final["payload"].get("error"))


@contextmanager
def serve(shell: Shell, folder: Path) -> Generator[Shop]:
    """`enclave-broker serve` on a free port of this machine, until the block is left."""
    log = folder / "server.log"
    process = shell.start('enclave-broker serve app.py --port 0 --api-keys "$KEYS" --log-format json', log)
    try:

        def serving() -> re.Match[bytes] | None:
            if process.poll() is not None:
                raise SystemExit(f"the server has ended: {log.read_text(encoding='utf-8')}")
            return re.search(rb"serving at (http://[\w.:]+)", log.read_bytes())

        shop = Shop(shell, until(serving)[1].decode(), log, process)
        with shop.client:
            yield shop
    finally:
        process.kill()  # unless it has ended
        process.wait()


def until(look: Callable[[], T | None], seconds: float = SECONDS) -> T:
    """What it finds, once there is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError(f"nothing came within {seconds:g} s")

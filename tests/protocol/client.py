"""A client of the protocol over real sockets; what it reads is checked by `schema.py` and `streams.py`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.http.live import SECONDS
from tests.protocol.schema import Info, Refusal
from tests.protocol.streams import Json, Run, Watch, event_of, lines_of

HOLD = "console.log('begun'); return await tools.gate.wait({ key: 'KEY' })"
"""Runs until its gate is opened."""
NUMBERS = itertools.count(1)


def unique(prefix: str = "s_") -> str:
    """A name that no other test uses."""
    return f"{prefix}test-{next(NUMBERS)}"


def hold(key: str) -> str:
    return HOLD.replace("KEY", key)


class Enclave:
    """`headers` go with each request: who is asking, say."""

    def __init__(self, http: httpx.Client, headers: dict[str, str] | None = None) -> None:
        self.http = http
        self.headers = headers or {}

    def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        return self.http.request(method, path, headers={**self.headers, **(headers or {})}, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, code: str, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """POST /sessions, to the end of its answer."""
        return self.request("POST", "/sessions", headers=headers, json={"code": code, **fields})

    def run(self, code: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Run:
        """A run's whole stream."""
        return whole(self.post(code, headers=headers, **fields), filtered="filter" in fields)

    def replay(self, id: str, query: str = "", *, first: int = 1, filtered: bool = False) -> Run:
        """GET …/stream, to the end of its answer."""
        return whole(self.get(f"/sessions/{id}/stream{query}"), first=first, filtered=filtered)

    @contextmanager
    def watching(self, code: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Generator[Watch]:
        """POST /sessions, and the answer as it comes."""
        sent = {**self.headers, **(headers or {})}
        with self.http.stream("POST", "/sessions", json={"code": code, **fields}, headers=sent) as response:
            yield Watch(response)

    @contextmanager
    def following(self, id: str, query: str = "", *, first: int = 1) -> Generator[Watch]:
        """GET …/stream, and the answer as it comes."""
        with self.http.stream("GET", f"/sessions/{id}/stream{query}", headers=self.headers) as response:
            yield Watch(response, first)

    def info(self, id: str) -> Json:
        """GET /sessions/{id}, if it is what the protocol says."""
        response = self.get(f"/sessions/{id}")
        assert response.status_code == 200, response.text
        Info.model_validate_json(response.content)
        return response.json()

    def cancel(self, id: str, reason: str = "enough") -> httpx.Response:
        """As existing clients send it."""
        headers = {"Content-Type": "text/plain;charset=UTF-8"}
        return self.request("POST", f"/sessions/{id}/cancel", headers=headers, content=f'{{"reason":"{reason}"}}')

    def open(self, key: str) -> None:
        """Let go on who holds at this gate, now or later."""
        assert self.run("return await tools.gate.open({ key: '" + key + "' })").result is None

    def until(self, id: str, condition: Callable[[Json], object]) -> Json:
        """The session's info, as soon as it is so."""
        end = time.monotonic() + SECONDS
        while not condition(info := self.info(id)):
            assert time.monotonic() < end, info
        return info


def whole(response: httpx.Response, *, first: int = 1, filtered: bool = False) -> Run:
    """The events of a stream that has been read."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return Run([event_of(line) for line in lines_of([response.content])], first=first, filtered=filtered)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, whose body is what the protocol says."""
    assert response.headers["content-type"] == "application/json"
    return response.status_code, Refusal.model_validate_json(response.content).code


def refused_field(response: httpx.Response) -> str:
    """The field that a 400 names, in its message and in its details."""
    assert refusal(response) == (400, "INVALID_REQUEST"), response.text
    (detail,) = response.json()["details"]
    assert detail["type"] == "validation_info"
    assert detail["field"] in response.json()["message"]
    return detail["field"]

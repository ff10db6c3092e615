"""Strangers learn nothing: another's id answers the same bytes as an unknown one, on every route that there is.

The routes are read from the application's own table, so that none can be forgotten: one with a parameter that ROUTES
doesn't know fails here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from enclave_broker import AccessController, Broker, Principal, Rule, ToolContext
from enclave_broker.broker.http.app import http_app
from enclave_broker.broker.http.endpoint import Endpoint
from tests.http.live import Live, events, final, memory_broker, refusal, serving

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE")
KEYS = {
    "ann of acme": Principal("ann", tenant="acme"),
    "bob of acme": Principal("bob", tenant="acme"),
    "ann of other": Principal("ann", tenant="other"),
    "ann of none": Principal("ann"),
    "ann of nothing": Principal("ann", tenant=""),
    "eve of acme": Principal("eve", tenant="acme", roles=frozenset({"admin", "operator"})),
}
OWNER = "ann of acme"
STRANGERS = [name for name in KEYS if name != OWNER]
RUNS = "return await tools.ask({})"
RUNS_AND_PAYS = "return await Promise.all([tools.ask({}), tools.pay({}), tools.pay({})])"


async def by_key(request: Request) -> Principal:
    return KEYS[request.headers["authorization"]]


def key(name: str) -> dict[str, str]:
    return {"Authorization": name}


@dataclass
class Scene:
    """What the owner has, of every kind that a route may be asked for: by kind, ids that are alike in length."""

    live: Live
    ids: Mapping[str, Sequence[str]]
    unknown: Mapping[str, str]
    call_id: str


@dataclass(frozen=True)
class Ask:
    """A request beyond a bare one."""

    query: str = ""
    body: Callable[[Scene], bytes] | bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Asked:
    """How a route with an id is asked: which kind of id it takes, and by method what beyond a bare request."""

    kind: str
    asks: Mapping[str, Sequence[Ask]] = field(default_factory=dict[str, Sequence[Ask]])


def answer(scene: Scene) -> bytes:
    return json.dumps({"callId": scene.call_id, "ok": True, "result": "forged"}).encode()


JSON = {"Content-Type": "application/json"}
STREAM = [
    Ask("?fromSeq=1"),
    Ask("?from=99"),
    Ask("?fromSeq=x"),
    Ask("?filter={"),
    Ask('?filter={"mode":"include","rules":[]}'),
    Ask(headers={"Accept": "text/event-stream", "Last-Event-ID": "1"}),
]
NOBODYS = "nobody's"
"""The kind of ids that are the same for everybody."""
ROUTES: Mapping[str, Asked] = {
    "/console/{file}": Asked(NOBODYS),
    "/sessions/{id}": Asked("session"),
    "/sessions/{id}/stream": Asked("session", {"GET": STREAM, "HEAD": STREAM}),
    "/sessions/{id}/calls": Asked("session"),
    "/sessions/{id}/cancel": Asked("session", {"POST": [Ask(body=b'{"reason":"mine"}'), Ask(body=b"{")]}),
    "/approvals/{id}": Asked(
        "approval",
        {"POST": [Ask(body=b'{"decision":"approve"}', headers=JSON), Ask(body=b"{", headers=JSON), Ask(body=b"{}")]},
    ),
    "/sessions/{id}/tool-result": Asked(
        "session",
        {
            "POST": [
                Ask(body=answer, headers=JSON),
                Ask(body=b"{", headers=JSON),
                Ask(body=b"{}"),
                Ask(body=b"x" * 9000),
            ]
        },
    ),
}


def routes(app: Any) -> Iterator[tuple[str, Endpoint | None]]:
    """Path and endpoint of every route; whatever isn't a plain one is asked for by its path, too."""

    def walk(found: Sequence[BaseRoute], prefix: str) -> Iterator[tuple[str, Endpoint | None]]:
        for route in found:
            path = prefix + getattr(route, "path", "{of a kind that this test does not know}")
            below: Sequence[BaseRoute] = getattr(route, "routes", None) or ()
            if below:
                yield from walk(below, path)
            else:
                endpoint = route.app if isinstance(route, Route) else None
                yield path, endpoint if isinstance(endpoint, Endpoint) else None

    return walk(app.routes, "")


def shop() -> Broker:
    rules = [Rule("pay", allow="ask", approvers={"role": "supervisor"})]
    broker = memory_broker(access=AccessController(default_policy="allow", rules=rules))

    @broker.tool("whoami", effect="read")
    async def whoami(context: ToolContext) -> str:
        return f"{context.principal.subject} of {context.principal.tenant}"

    @broker.tool("pay")
    async def pay() -> None:
        raise AssertionError

    broker.client_tool("ask", args=dict[str, Any])
    return broker


@contextlib.contextmanager
def scene() -> Generator[Scene]:
    """The owner's sessions: one that waits for its client and for people, one that has ended, one that was deleted."""
    broker = shop()
    app = http_app(broker, auth=by_key)
    with serving(broker, app=app) as live:
        owner = key(OWNER)
        live.post("return 'secret'", headers=owner, sessionId="s_ended")
        live.post("return 1", headers=owner, sessionId="s_wiped")
        assert live.client.delete("/sessions/s_wiped", headers=owner).status_code == 200
        with live.streaming(RUNS_AND_PAYS, headers=owner, sessionId="s_alive") as stream:
            call_id = stream.next("tool_call")["payload"]["callId"]
            live.until(lambda: len(broker.approvals.open()) == 2)
            approvals = [asked.id for asked in broker.approvals.open()]
            boss = Principal("bea", tenant="acme", roles=frozenset({"supervisor"}))
            live.call(lambda: broker.approvals.deny(approvals[0], by=boss))
            alive = live.session("s_alive")
            live.until(lambda: any(call.outcome == "denied" for call in alive.history()))
            yield Scene(
                live,
                {"session": ["s_alive", "s_ended", "s_wiped"], NOBODYS: ["s_alive"], "approval": approvals},
                {"session": "s_other", NOBODYS: "s_other", "approval": approvals[0][:-4] + "none"},
                call_id,
            )


Bytes = tuple[int, list[tuple[bytes, bytes]], bytes]


def said(response: httpx.Response) -> Bytes:
    """All that comes over the wire, but for the time."""
    headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"date"]
    return response.status_code, headers, response.content


def ask(scene: Scene, who: str, method: str, path: str, ask: Ask) -> httpx.Response:
    body = ask.body if isinstance(ask.body, bytes) else ask.body(scene)
    headers = {**key(who), **ask.headers}
    return scene.live.client.request(method, path + ask.query, content=body, headers=headers)


def at(path: str, id: str) -> str:
    """The path of a route with an id for its parameter."""
    return re.sub(r"\{\w+\}", id, path)


def the_owners(scene: Scene) -> dict[str, Any]:
    """Everything that the owner sees, and nobody may change."""
    client, headers = scene.live.client, key(OWNER)
    return {
        "list": [(each["sessionId"], each["state"]) for each in _list(scene.live, OWNER)["sessions"]],
        "events": client.get("/sessions/s_ended/stream", headers=headers).content,
        "calls": [each["outcome"] for each in client.get("/sessions/s_alive/calls", headers=headers).json()["calls"]],
    }


def _list(live: Live, who: str, query: str = "") -> dict[str, Any]:
    return live.client.get("/sessions" + query, headers=key(who)).json()


def test_every_route_with_an_id_is_known_here() -> None:
    with_parameters = {path for path, _ in routes(http_app(shop(), auth=by_key)) if "{" in path}
    assert with_parameters == set(ROUTES)


def test_a_foreign_id_answers_the_same_bytes_as_an_unknown_one_on_every_route_and_method() -> None:
    with scene() as here:
        before = the_owners(here)
        asked = 0
        for path, route in ROUTES.items():
            for method in METHODS:
                for each in (Ask(), *route.asks.get(method, ())):
                    for who in STRANGERS:
                        unknown = said(ask(here, who, method, at(path, here.unknown[route.kind]), each))
                        for id in here.ids[route.kind]:
                            foreign = said(ask(here, who, method, at(path, id), each))
                            assert foreign == unknown, (who, method, path, id, each)
                            asked += 1
        assert asked > 500
        assert the_owners(here) == before


def test_those_answers_are_404_where_the_route_has_the_method_and_the_owner_gets_another() -> None:
    with scene() as here:
        endpoints = dict(routes(http_app(shop(), auth=by_key)))
        owned = {path: route for path, route in ROUTES.items() if route.kind != NOBODYS}
        for path, route in sorted(owned.items(), key=lambda item: "DELETE" in _methods(endpoints[item[0]])):
            for method in sorted(_methods(endpoints[path]), key="DELETE".__eq__):
                full = next(iter(route.asks.get(method, ())), Ask())
                id = here.ids[route.kind][1]
                foreign = ask(here, STRANGERS[0], method, at(path, id), full)
                assert refusal(foreign) == (404, "NOT_FOUND"), (method, path)
                own = ask(here, OWNER, method, at(path, id), full)
                assert own.status_code != 404 or "UNKNOWN_CALL" in own.text, (method, path)


def _methods(endpoint: Endpoint | None) -> Sequence[str]:
    assert endpoint is not None
    return endpoint.methods


def test_what_has_no_id_says_the_same_to_strangers_whatever_others_have() -> None:
    plain = [path for path, _ in routes(http_app(shop(), auth=by_key)) if "{" not in path]
    assert "/sessions" in plain
    broker = shop()
    app = http_app(broker, auth=by_key)
    queries = ("", "?state=running", "?limit=1", "?after=s_alive", "?after=s_other", "?session=s_alive")

    def look(live: Live, who: str) -> list[Bytes]:
        wanted = [(path, query) for path in plain for query in queries]
        return [said(live.client.get(path + query, headers=key(who))) for path, query in wanted]

    with serving(broker, app=app) as live:
        before = {who: look(live, who) for who in STRANGERS[:-1]}
        live.post("return 'secret'", headers=key(OWNER), sessionId="s_ended")
        with live.streaming(RUNS_AND_PAYS, headers=key(OWNER), sessionId="s_alive"):
            live.until(lambda: len(broker.approvals.open()) == 2)
            assert {who: look(live, who) for who in STRANGERS[:-1]} == before
            assert _list(live, OWNER)["total"] == 2


def test_lists_and_totals_have_ones_own_sessions_only() -> None:
    with scene() as here:
        live = here.live
        for count, who in enumerate(STRANGERS, 1):
            for number in range(count):
                live.post("return 1", headers=key(who), sessionId=f"s_{number}")
        for count, who in enumerate(STRANGERS, 1):
            found = _list(live, who)
            assert (found["total"], [each["sessionId"] for each in found["sessions"]]) == (
                count,
                [f"s_{number}" for number in range(count)],
            )
            assert _list(live, who, "?state=running") == {"sessions": [], "total": 0}
            assert _list(live, who, "?limit=1")["total"] == count
            # Behind a session of somebody else's there is nothing, as behind one that nobody has.
            assert _list(live, who, "?after=s_alive") == _list(live, who, "?after=s_other")
        assert {each["sessionId"] for each in _list(live, OWNER)["sessions"]} == {"s_ended", "s_alive"}


def test_a_foreign_sessions_id_makes_a_session_of_ones_own() -> None:
    with scene() as here:
        live = here.live
        before = the_owners(here)
        for who in STRANGERS:
            for id in ("s_alive", "s_ended", "s_wiped"):
                made = live.post("return await tools.whoami({})", headers=key(who), sessionId=id)
                principal = KEYS[who]
                assert final(made)["result"] == f"{principal.subject} of {principal.tenant}"
                again = live.client.get(f"/sessions/{id}/stream", headers=key(who))
                assert events(again) == events(made)
        assert the_owners(here) == before


def test_two_principals_with_one_chosen_id_change_only_their_own() -> None:
    with scene() as here:
        live, bob = here.live, key("bob of acme")
        forged = json.dumps({"callId": here.call_id, "ok": True, "result": "forged"})
        with live.streaming(RUNS, headers=bob, sessionId="s_alive") as stream:
            own = stream.next("tool_call")["payload"]["callId"]
            before = the_owners(here)
            other = live.client.post("/sessions/s_alive/tool-result", content=forged, headers={**bob, **JSON})
            assert refusal(other) == (404, "UNKNOWN_CALL")
            mine = json.dumps({"callId": own, "ok": True, "result": "mine"})
            assert live.client.post("/sessions/s_alive/tool-result", content=mine, headers={**bob, **JSON}).json() == {
                "success": True,
                "callId": own,
            }
            assert stream.next("final")["payload"]["result"] == "mine"
        assert live.client.post("/sessions/s_alive/cancel", headers=bob).status_code == 200
        assert live.client.delete("/sessions/s_alive", headers=bob).status_code == 200
        assert refusal(live.client.get("/sessions/s_alive", headers=bob)) == (404, "NOT_FOUND")
        assert the_owners(here) == before
        assert _list(live, OWNER, "?state=waiting_for_tool")["total"] == 1


# -- races for one id --------------------------------------------------------------------------------------------------

TIMES = 50


class Counted:
    """How often the handler ran, and what lets it end."""

    def __init__(self) -> None:
        self.started = 0
        self.gate = asyncio.Event()


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def racing(counted: Counted) -> Iterator[Live]:
    """A server where a key is the name of who has it."""
    broker = memory_broker()

    @broker.tool("hold")
    async def hold(context: ToolContext) -> str:
        counted.started += 1
        await counted.gate.wait()
        return context.principal.subject

    async def auth(request: Request) -> Principal:
        return Principal(request.headers["authorization"], tenant="acme")

    with serving(broker, auth=auth) as live:
        yield live


def race(live: Live, gate: asyncio.Event, runs: int, requests: Sequence[tuple[str, str]]) -> list[httpx.Response]:
    """All requests, of (who, code), for the id s_race at once; handlers end when `runs` of them hold."""

    async def go() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=len(requests))
        async with httpx.AsyncClient(base_url=live.url, limits=limits, timeout=20) as client:

            async def post(who: str, code: str) -> httpx.Response:
                body = {"code": code, "sessionId": "s_race"}
                return await client.post("/sessions", json=body, headers={"Authorization": who})

            waiting = [asyncio.ensure_future(post(who, code)) for who, code in requests]
            await asyncio.to_thread(
                live.until, lambda: len(live.broker.sessions.list(state="waiting_for_tool")) == runs
            )
            live.do(gate.set)
            return await asyncio.gather(*waiting)

    return asyncio.run(go())


def test_a_race_of_one_principal_for_an_id_is_one_session_with_as_many_readers(racing: Live, counted: Counted) -> None:
    answers = race(racing, counted.gate, 1, [("ann", "return await tools.hold({})")] * TIMES)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert final(answers[0])["result"] == "ann"
    assert counted.started == 1
    assert len(racing.do(racing.broker.sessions.list)) == 1


def test_a_race_of_many_principals_for_an_id_is_a_session_for_each(racing: Live, counted: Counted) -> None:
    names = [f"user-{number}" for number in range(TIMES)]
    answers = race(racing, counted.gate, TIMES, [(name, "return await tools.hold({})") for name in names])
    assert [final(answer)["result"] for answer in answers] == names
    assert {answer.headers["x-session-id"] for answer in answers} == {"s_race"}
    assert counted.started == TIMES
    assert len(racing.do(racing.broker.sessions.list)) == TIMES


def test_a_race_of_different_bodies_for_an_id_has_one_winner(racing: Live, counted: Counted) -> None:
    codes = [f"await tools.hold({{}}); return {number}" for number in range(TIMES)]
    answers = race(racing, counted.gate, 1, [("ann", code) for code in codes])
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    assert final(won[0])["result"] == answers.index(won[0])
    assert {refusal(answer) for answer in answers if answer is not won[0]} == {(409, "SESSION_EXISTS")}
    assert counted.started == 1

"""How the client keeps to a stream whose connections break. The server is real, on a socket of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_broker.client.async_client import AsyncClient
from enclave_broker.client.body import session_body
from enclave_broker.client.server import Server
from enclave_broker.client.streams import EventStream, Reconnection
from enclave_broker.client.transport import HttpTransport
from enclave_broker.stream.filters import FilterError
from enclave_broker.types.errors import ClientError, ClosedError, ConfigurationError, TransportError
from enclave_broker.types.wire import UnknownEvent, encode_event
from tests.client.events import AT_ONCE, Make, heartbeat, logged, run_of, runs, stdout
from tests.client.server import Fault, Log, Response, line_server, lines_of

RUN = run_of(stdout("one\n"), stdout("two\u2028three\n"), heartbeat, result={"n": 1})
SESSION = "s_1"


def size(make: Make) -> int:
    return sum(map(len, lines_of(*make(SESSION))))


@settings(max_examples=60)
@given(
    make=runs(),
    cuts=st.lists(st.tuples(st.integers(0, 800), st.sampled_from(["reset", "end"])), max_size=5),
    piece=st.integers(1, 400),
    from_seq=st.integers(1, 20),
)
async def test_a_stream_cut_at_any_bytes_gives_exactly_the_events_of_the_log(
    make: Make, cuts: list[tuple[int, Any]], piece: int, from_seq: int
) -> None:
    # A stream that ends in good order before its first byte can't be told from that of a session without events.
    faults = [Fault(max(after, kind == "end"), kind) for after, kind in cuts]
    async with line_server(logged(make), faults) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        server.piece_bytes = piece
        server.logs[SESSION] = logged(make)(SESSION)
        attached = [event async for event in client.attach(SESSION, from_seq)]
        server.faults.extend(faults)
        streamed = [event async for event in client.stream("code", session_id="s_new")]
    assert attached == [event for event in make(SESSION) if event.seq >= from_seq]
    assert streamed == list(make("s_new"))


@pytest.mark.parametrize("after", range(0, size(RUN), 7))
async def test_whichever_byte_is_the_last_the_next_stream_takes_up_at_the_event_that_was_cut(after: int) -> None:
    async with (
        line_server(logged(RUN), [Fault(after)]) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        assert [event async for event in client.stream("code", session_id=SESSION)] == list(RUN(SESSION))
        whole = b"".join(lines_of(*RUN(SESSION)))[:after]
        seen = whole.count(b"\n") + (whole.rpartition(b"\n")[2] != b"" and after == 0)
        # A line may be whole without its end.
        asked = [int(request.query["fromSeq"][0]) for request in server.asked("GET", "/stream")]
        assert asked in ([], [seen + 1], [seen + 2])


async def test_a_stream_that_falls_silent_is_given_up_and_taken_up_by_another() -> None:
    quick = Reconnection(backoff=AT_ONCE.backoff, silence=0.02, random=AT_ONCE.random)
    fault = Fault(size(RUN) // 2, "silence")
    async with line_server(logged(RUN), [fault]) as server, AsyncClient(server.url, reconnection=quick) as client:
        assert [event async for event in client.stream("code", session_id=SESSION)] == list(RUN(SESSION))
        assert len(server.asked("GET", "/stream")) == 1


async def test_a_post_whose_answer_got_lost_is_sent_again_as_it_was() -> None:
    async with line_server(logged(RUN)) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        server.answer_instead("POST", "/sessions", Response(reset=True))
        assert len([event async for event in client.stream("code", metadata={"a": 1})]) == 5
        first, second = server.asked("POST", "/sessions")
        assert first.body == second.body


async def test_a_server_that_calls_the_second_post_a_conflict_is_asked_for_the_session() -> None:
    async with line_server(logged(RUN)) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        server.repeats = False
        server.logs[SESSION] = logged(RUN)(SESSION)
        server.answer_instead("POST", "/sessions", Response(reset=True))
        assert [event async for event in client.stream("code", session_id=SESSION)] == list(RUN(SESSION))


async def test_an_id_that_is_taken_from_the_first_is_an_error() -> None:
    async with line_server(logged(RUN)) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        server.repeats = False
        server.logs[SESSION] = logged(RUN)(SESSION)
        with pytest.raises(ClientError) as caught:
            await anext(client.stream("code", session_id=SESSION))
        assert (caught.value.code, caught.value.status_code) == ("SESSION_EXISTS", 409)


async def test_a_server_in_trouble_is_asked_again_when_it_wants_to() -> None:
    busy = Response(503, {"code": "OVERLOADED", "message": "full"}, {"retry-after": "0"})
    async with (
        line_server(logged(RUN), [Fault(300)]) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        server.answer_instead("GET", f"/sessions/{SESSION}/stream", busy, Response(502, b"<html>bad gateway"))
        assert [event async for event in client.stream("code", session_id=SESSION)] == list(RUN(SESSION))


async def test_a_server_that_is_full_from_the_first_refuses_with_its_code_and_its_delay() -> None:
    async with line_server(logged(RUN)) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        full = Response(503, {"code": "OVERLOADED", "message": "full"}, {"retry-after": "7"})
        server.answer_instead("POST", "/sessions", full)
        with pytest.raises(ClientError) as caught:
            await anext(client.stream("code"))
        assert (caught.value.code, caught.value.status_code) == ("OVERLOADED", 503)
        assert caught.value.details == [{"type": "retry_info", "retryDelayMs": 7000}]


async def test_nobody_at_the_url_is_an_error_at_once() -> None:
    async with line_server() as server:
        url = server.url
    async with AsyncClient(url) as client:
        with pytest.raises(TransportError, match=r"there is no connection to http://127\.0\.0\.1"):
            await anext(client.stream("code"))


async def test_a_stream_that_never_gets_on_ends_with_where_to_take_it_up() -> None:
    async with (
        line_server(logged(RUN), [Fault(300)] * 9) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        server.logs[SESSION] = Log(lines_of(*RUN(SESSION))[:1], state="running")
        stream = client.attach(SESSION)
        assert (await anext(stream)).seq == 1
        with pytest.raises(TransportError, match="session s_1 can't be followed beyond event 1") as caught:
            await anext(stream)
        assert caught.value.details == {"sessionId": SESSION, "nextSeq": 2}
        assert len(server.asked("GET", "/stream")) == 6


async def test_progress_makes_all_attempts_available_again() -> None:
    many = run_of(*[stdout(f"{n}\n") for n in range(30)])
    cuts = [Fault(250)] * 25
    async with line_server(logged(many), cuts) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        assert [event async for event in client.stream("code", session_id=SESSION)] == list(many(SESSION))


# -- servers that lie -------------------------------------------------------------------------------------------------


def lying(*lines: bytes) -> Callable[[str], Log]:
    return lambda _: Log(list(lines))


async def test_events_that_come_twice_are_given_once() -> None:
    events = lines_of(*RUN(SESSION))
    async with (
        line_server(lying(*events[:3], *events)) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        assert [event async for event in client.stream("code", session_id=SESSION)] == list(RUN(SESSION))


async def test_a_gap_is_filled_by_asking_for_what_is_missing() -> None:
    events = lines_of(*RUN(SESSION))
    async with (
        line_server(lying(*events[:1], *events[2:])) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        stream = client.stream("code", session_id=SESSION)
        first = await anext(stream)
        server.logs[SESSION].lines[:] = events
        assert [first, *[event async for event in stream]] == list(RUN(SESSION))


async def test_a_gap_that_nothing_fills_is_an_error_and_no_silence() -> None:
    events = lines_of(*RUN(SESSION))
    async with (
        line_server(lying(*events[:1], *events[2:])) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        server.logs[SESSION] = Log([events[0], events[2]])
        stream = client.stream("code", session_id=SESSION)
        assert (await anext(stream)).seq == 1
        with pytest.raises(TransportError, match="the server left out events 2 to 2"):
            await anext(stream)


@pytest.mark.parametrize(
    "line",
    [
        b"not JSON\n",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"protocolVersion":3,"sessionId":"s_1","seq":2,"type":"stdout","payload":{}}\n',
        b'{"protocolVersion":2,"sessionId":"s_1","seq":true,"type":"stdout","payload":{}}\n',
        b'{"protocolVersion":2,"sessionId":"s_other","seq":2,"type":"stdout","payload":{"chunk":"x"}}\n',
        b"[" * 100_000 + b"\n",
    ],
)
async def test_a_line_that_is_no_event_of_the_session_is_asked_for_again(line: bytes) -> None:
    events = lines_of(*RUN(SESSION))
    async with (
        line_server(lying(events[0], line, *events[1:])) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        stream = client.stream("code", session_id=SESSION)
        first = await anext(stream)
        server.logs[SESSION].lines[:] = events
        assert [first, *[event async for event in stream]] == list(RUN(SESSION))


async def test_an_event_of_a_later_version_comes_as_it_is() -> None:
    events = RUN(SESSION)
    later = UnknownEvent(type="tea_time", session_id=SESSION, seq=2, fields={"cups": 2})
    changed = UnknownEvent(type="stdout", session_id=SESSION, seq=3, fields={"chunk": ["a", "b"]})
    lines = [*lines_of(events[0]), encode_event(later), encode_event(changed), *lines_of(*events[3:])]
    async with line_server(lying(*lines)) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        seen = [event async for event in client.stream("code", session_id=SESSION)]
    assert seen == [events[0], later, changed, *events[3:]]


async def test_nothing_is_taken_behind_the_final() -> None:
    events = lines_of(*RUN(SESSION))
    async with (
        line_server(lying(*events, b"garbage\n", *events)) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        assert [event async for event in client.stream("code", session_id=SESSION)] == list(RUN(SESSION))
        assert len(server.requests) == 1


async def test_an_answer_that_is_no_stream_says_what_it_is() -> None:
    page = Response(200, b"<html>", {"content-type": "text/html; charset=utf-8"})
    async with line_server() as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        server.answer_instead("POST", "/sessions", page)
        with pytest.raises(ClientError, match="the answer is text/html, not application/x-ndjson"):
            await anext(client.stream("code"))


async def test_a_server_that_takes_the_request_and_says_nothing_has_no_answer_in_time() -> None:
    async with line_server() as server, AsyncClient(server.url, timeout=0.02, reconnection=AT_ONCE) as client:
        server.answer_instead("POST", "/sessions", *[Response(silent=True)] * 6)
        server.answer_instead("GET", "/code/actions", Response(silent=True))
        with pytest.raises(TransportError, match=r"POST /sessions had no answer within 0\.02 s"):
            await anext(client.stream("code"))
        with pytest.raises(TransportError, match=r"GET /code/actions had no answer within 0\.02 s"):
            await client.tools()


# -- filters ----------------------------------------------------------------------------------------------------------

ONLY_OUTPUT = {"mode": "include", "rules": [{"types": {"types": ["stdout"]}}]}


async def test_a_filter_lets_heartbeats_through_to_the_client_and_no_further() -> None:
    filtered = [event for event in RUN(SESSION) if event.type in {"session_init", "stdout", "heartbeat", "final"}]
    async with (
        line_server(lying(*lines_of(*filtered))) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        stream = client.stream("code", session_id=SESSION, filter=ONLY_OUTPUT)
        assert [event.type async for event in stream] == ["session_init", "stdout", "stdout", "final"]
        sent = server.requests[0].json["filter"]
        assert sent == {**ONLY_OUTPUT, "alwaysAllow": ["session_init", "final", "heartbeat"]}


async def test_what_a_filter_leaves_out_is_no_gap_and_no_final_is_an_end_when_the_session_is_over() -> None:
    only = {"mode": "include", "rules": [{"types": {"types": ["stdout"]}}], "alwaysAllow": []}
    lines = [b for b, event in zip(lines_of(*RUN(SESSION)), RUN(SESSION), strict=True) if event.type == "stdout"]
    async with line_server() as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        server.logs[SESSION] = Log([b"", *lines])
        server.answer_instead("GET", f"/sessions/{SESSION}/stream", ndjson(lines), ndjson([]))
        assert [event.type async for event in client.attach(SESSION, filter=only)] == ["stdout", "stdout"]
        assert [request.query["fromSeq"] for request in server.asked("GET", "/stream")] == [["1"], ["4"]]


def ndjson(lines: Sequence[bytes]) -> Response:
    return Response(200, b"".join(lines), {"content-type": "application/x-ndjson"})


async def test_a_filter_that_is_none_is_refused_before_anything_is_sent() -> None:
    async with line_server() as server, AsyncClient(server.url) as client:
        with pytest.raises(FilterError, match=r"filter\.mode"):
            client.stream("code", filter={"rules": []})
        assert server.requests == []


# -- attaching and leaving --------------------------------------------------------------------------------------------


async def test_a_session_that_ended_before_the_first_event_asked_for_has_no_events() -> None:
    async with line_server() as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        server.logs[SESSION] = logged(RUN)(SESSION)
        assert [event async for event in client.attach(SESSION, 1000)] == []


async def test_a_session_that_is_not_there_is_not_found() -> None:
    async with line_server() as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        with pytest.raises(ClientError) as caught:
            await anext(client.attach("s_nobody"))
        assert caught.value.code == "NOT_FOUND"
        assert len(server.requests) == 1


@pytest.mark.parametrize("id", ["", "s_", "../x", "x"])
async def test_what_is_no_session_id_never_becomes_a_path(id: str) -> None:
    async with line_server() as server, AsyncClient(server.url) as client:
        with pytest.raises(ConfigurationError, match="begins with 's_'"):
            await anext(client.attach(id))
        with pytest.raises(ConfigurationError, match="begins with 's_'"):
            await client.cancel(id)
        assert server.requests == []


@pytest.mark.parametrize("id", ["s_a/../../x", "s_a?b=c#d", "s_%2e%2e", "s_ü \n", "s_:@."])
async def test_an_odd_session_id_reaches_the_server_as_it_is(id: str) -> None:
    async with line_server() as server, AsyncClient(server.url) as client:
        server.logs[id] = Log([])
        assert (await client.session(id)).id == id


async def test_leaving_a_stream_closes_its_connection_and_leaves_the_run_alone() -> None:
    async with line_server(waiting) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        async for event in client.stream("code", session_id=SESSION):
            assert event.seq == 1
            break
        server.logs[SESSION].release()
        assert [event.seq async for event in client.attach(SESSION, 2)] == [2, 3, 4, 5]
        assert server.asked("POST", "/cancel") == []


def waiting(id: str) -> Log:
    """A log of one event; the rest is held."""
    lines = lines_of(*RUN(id))
    return Log(lines[:1], lines[1:], state="running")


async def test_closing_the_client_ends_a_wait_for_the_next_event() -> None:
    async with line_server(waiting) as server:
        client = AsyncClient(server.url, reconnection=AT_ONCE)
        stream = client.stream("code", session_id=SESSION)
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(ClosedError):
            await reading
        with pytest.raises(ClosedError):
            await client.tools()
        await client.aclose()


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_wait_for_an_event_can_be_cancelled_at_any_point_and_asked_again(turns: int) -> None:
    async with line_server(waiting) as server:
        api = Server(HttpTransport(server.url, connect_timeout=30.0), credential=None, timeout=30.0)
        body = session_body("code", SESSION, {}, filter=None, encryption="disabled")
        events = EventStream(api, SESSION, body=body, reconnection=AT_ONCE)
        seen: list[Any] = []
        for _ in range(3):
            reading = asyncio.ensure_future(anext(events))
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                seen.append(await reading)
        if not seen:
            seen.append(await anext(events))
        server.logs[SESSION].release()
        seen += [event async for event in events]
        assert seen == list(RUN(SESSION))
        await api.aclose()


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async with line_server(logged(RUN)) as server, AsyncClient(server.url, reconnection=AT_ONCE) as client:
        for _ in range(3):
            assert (await client.execute("code")).ok
        await client.tools()
        assert server.connections == 1


async def test_many_streams_of_one_client_run_at_once() -> None:
    async def one(client: AsyncClient) -> list[int]:
        return [event.seq async for event in client.stream("code")]

    async with (
        line_server(logged(RUN), [Fault(n * 7) for n in range(60)]) as server,
        AsyncClient(server.url, reconnection=AT_ONCE) as client,
    ):
        found = await asyncio.gather(*[one(client) for _ in range(150)])
        assert found == [[1, 2, 3, 4, 5]] * 150

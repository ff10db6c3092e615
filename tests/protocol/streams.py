"""Whole streams as a client reads them: bytes to lines, lines to events, and what holds for all events together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx

from tests.protocol.schema import EVENT, MADE_LATER

Json = dict[str, Any]


def event_of(line: bytes) -> Json:
    """The event of one line, if a client takes it."""
    event = EVENT.validate_json(line)
    assert event.type not in MADE_LATER, line
    return json.loads(line)


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines end with `\\n` and nothing else; the last one, too."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    assert rest == b"", rest


class Run:
    """The events of a stream that has ended, each checked, and all of them together."""

    def __init__(self, events: Sequence[Json], *, first: int = 1, filtered: bool = False) -> None:
        self.events = list(events)
        check(self.events, first, filtered=filtered)

    @property
    def id(self) -> str:
        return self.events[0]["sessionId"]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def final(self) -> Json:
        assert self.types[-1] == "final", self.types
        return self.events[-1]["payload"]

    @property
    def result(self) -> Any:
        assert self.final["ok"] is True, self.final
        return self.final.get("result")

    @property
    def error(self) -> Json:
        assert self.final["ok"] is False, self.final
        return self.final["error"]

    @property
    def code(self) -> str:
        return self.error["code"]

    @property
    def printed(self) -> str:
        """What console.log and console.info wrote."""
        return "".join(payload["chunk"] for payload in self.of("stdout"))

    def of(self, type: str) -> list[Json]:
        """The payloads of this type."""
        return [event["payload"] for event in self.events if event["type"] == type]


def check(events: Sequence[Json], first: int, *, filtered: bool) -> None:
    assert len({event["sessionId"] for event in events}) == 1
    seqs = [event["seq"] for event in events]
    if filtered:
        assert seqs == sorted(set(seqs))
    else:
        assert seqs == list(range(first, first + len(seqs)))
        assert [event["type"] for event in events].count("session_init") == (1 if first == 1 else 0)
        assert events[-1]["type"] == "final"
        assert first > 1 or events[0]["type"] == "session_init"
    for event in events[:-1]:
        assert event["type"] != "final"
    if first == 1 and not filtered:
        check_calls(events)
        check_deadline(events)
    check_stdout(events)


_STORY = "(connecting( connecting( sending)?)?( processing( sending| receiving| processing)*)?( applied)?)?"


def check_calls(events: Sequence[Json]) -> None:
    """tool_call, connecting, a person asked (connecting) and heard (sending), processing, the handler's own progress,
    tool_result_applied: no other order."""
    seen: dict[str, list[str]] = {}
    times: dict[str, float] = {}
    for event in events:
        payload, type = event["payload"], event["type"]
        if type == "tool_call":
            assert payload["callId"] not in seen
            seen[payload["callId"]] = []
        elif type == "tool_progress":
            seen[payload["callId"]].append(payload["phase"])
            assert payload["elapsedMs"] >= times.get(payload["callId"], 0)
            times[payload["callId"]] = payload["elapsedMs"]
        elif type == "tool_result_applied":
            seen[payload["callId"]].append("applied")
    for steps in seen.values():
        story = " ".join(steps)
        assert re.fullmatch(_STORY, story), story
        assert not events[-1]["payload"]["ok"] or "processing" not in steps or steps[-1] == "applied", story


def check_deadline(events: Sequence[Json]) -> None:
    exceeded = [event for event in events if event["type"] == "deadline_exceeded"]
    assert len(exceeded) == (events[-1]["payload"].get("error", {}).get("code") == "DEADLINE_EXCEEDED")


def check_stdout(events: Sequence[Json]) -> None:
    """A chunk is a line with its newline; only the one that went over maxStdoutBytes may be cut off."""
    chunks = [event["payload"]["chunk"] for event in events if event["type"] == "stdout"]
    if chunks and events[-1]["payload"].get("error", {}).get("code") == "STDOUT_LIMIT":
        chunks.pop()
    assert all(chunk.endswith("\n") for chunk in chunks), chunks


class Watch:
    """A stream that is read event by event, each checked when it comes and all of them at its end."""

    def __init__(self, response: httpx.Response, first: int = 1) -> None:
        assert response.status_code == 200, response.read()
        self.response = response
        self.first = first
        self.events: list[Json] = []
        self._lines = lines_of(response.iter_bytes())

    @property
    def id(self) -> str:
        return self.response.headers["x-session-id"]

    def next(self, type: str | None = None, **fields: Any) -> Json:
        """The payload of the next event, or of the next of this type and with these fields."""
        for line in self._lines:
            self.events.append(event_of(line))
            event = self.events[-1]
            payload: Json = event["payload"]
            if (type is None or event["type"] == type) and fields.items() <= payload.items():
                return payload
        raise AssertionError(f"the stream has ended without {type or 'another event'}")

    def end(self) -> Run:
        """All events, from the first to the final."""
        self.events += [event_of(line) for line in self._lines]
        return Run(self.events, first=self.first)


def sse_events_of(response: httpx.Response) -> list[Json]:
    """The events of a whole event stream: frames of an `id:`, which is the event's seq, and one `data:`."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    *frames, rest = response.content.split(b"\n\n")
    assert rest == b""
    events: list[Json] = []
    for frame in frames:
        id, data = frame.split(b"\n")
        assert data.startswith(b"data: ")
        events.append(event_of(data.removeprefix(b"data: ")))
        assert id == b"id: %d" % events[-1]["seq"]
    return events

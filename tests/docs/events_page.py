"""Writes what docs/reference/events.md says of each event: `make docs`.

Names, types, what may be absent and the example lines come from the code, which encodes them as it does for the wire.
What a field means is said here. The rest of the page is written by hand.
"""

from __future__ import annotations

import textwrap
import types
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from enclave_broker.types import events, wire
from enclave_broker.types.events import Event
from enclave_broker.types.wire import EVENT_TYPES, encode_event

PAGE = Path(__file__).parents[2] / "docs/reference/events.md"
BEGIN, END = "<!-- made by `make docs` from here -->\n", "<!-- to here -->\n"


class About(NamedTuple):
    when: str
    fields: dict[str, str]
    """Of each field, by its wire name, what it means."""
    examples: tuple[Event, ...]


CALL_ID = "of the `tool_call`"
ID, CALL = "s_report-7", "c_332f8b12-2408-4fd2-ab90-2f8911e81818"
STATS = {"durationMs": 1264.5, "toolCallCount": 2, "stdoutBytes": 8}
ERROR = {
    "message": "there is no order 99",
    "code": "NO_SUCH_ORDER",
    "stack": "Error: there is no order 99\n    at script.js:1:20",
}
SHAPES = {
    ("session_init", "encryption"): "_Encryption",
    ("partial_result", "error"): "_ErrorPayload",
    ("final", "error"): "_ErrorInfo",
    ("final", "errors"): "_ErrorPayload",
    ("final", "stats"): "_Stats",
}
"""The structs that types/wire.py holds objects within a payload to."""
TYPES = {str: "text", bool: "boolean", int: "integer", float: "number", Any: "any", dict: "object"}


def at(seq: int) -> Any:
    return {"session_id": ID, "seq": seq}


EVENTS = [
    About(
        "The first of a session.",
        {
            "cancelUrl": "where a POST cancels the run; for clients over HTTP",
            "expiresAt": "when its `timeout` would be used up if it were active all the time",
            "encryption": "there is none: `enabled` is false",
            "replayUrl": "not sent today",
        },
        (events.SessionInitEvent(**at(1), cancel_url=f"/sessions/{ID}/cancel", expires_at="2026-01-31T12:01:00.000Z"),),
    ),
    About(
        "`console.log` and `console.info`.",
        {"chunk": "the line with its newline, as the console formats it"},
        (events.StdoutEvent(**at(2), chunk="copying\n"),),
    ),
    About(
        "`console.debug`, `console.warn` and `console.error`; a tool's `context.log`; a rejection that nobody awaited.",
        {
            "level": "how serious it is",
            "message": "one line or more, without a newline at the end",
            "data": "what a tool's `context.log` was given by name",
        },
        (events.LogEvent(**at(3), level="info", message="copied", data={"name": "a.txt"}),),
    ),
    About(
        "The script has called a tool.",
        {
            "callId": "`c_` and at least one character; the call's name in everything that follows",
            "toolName": "as the script called it, also when there is no such tool",
            "args": "the argument object as it was sent, before it is checked",
        },
        (events.ToolCallEvent(**at(4), call_id=CALL, tool_name="files:copy", args={"name": "a.txt"}),),
    ),
    About(
        "How far a call is. `connecting`: it has a place among those that run, and once more when a "
        "[person](../how-to/approvals.md) is asked; `sending`: the answer is there. `processing`: its handler starts; "
        "a call that is refused has none. `receiving`: the handler's `context.progress`.",
        {
            "callId": CALL_ID,
            "phase": "how far it is",
            "elapsedMs": "since the call was made",
            "bytesReceived": "what the handler says it has done",
            "totalBytes": "of how much",
        },
        (
            events.ToolProgressEvent(
                **at(7), call_id=CALL, phase="receiving", elapsed_ms=12.5, bytes_received=512, total_bytes=1024
            ),
        ),
    ),
    About(
        "The call has its outcome, good or bad, and the script goes on. Neither result nor error is in the stream.",
        {"callId": CALL_ID},
        (events.ToolResultAppliedEvent(**at(9), call_id=CALL),),
    ),
    About(
        "A sign of life: every `heartbeat_interval` while somebody follows a stream over HTTP and something runs.",
        {"ts": "the server's time"},
        (events.HeartbeatEvent(**at(10), ts="2026-01-31T12:00:15.000Z"),),
    ),
    About(
        "Before the `final` of a run that is past its `deadline`.",
        {"elapsedMs": "since the run began", "budgetMs": "its deadline"},
        (events.DeadlineExceededEvent(**at(11), elapsed_ms=131.5, budget_ms=100.0),),
    ),
    About(
        "The last of an execution, exactly one, whatever fails.",
        {
            "ok": "whether the script came to its end",
            "result": "its value; absent for undefined and for a failure",
            "error": "of a failure: the code is one of [these](errors.md#codes), or the script's or a tool's own",
            "errors": "not sent today",
            "stats": "how long it took, calls made, bytes printed",
        },
        (
            events.FinalEvent(**at(12), ok=True, result={"bytes": 1024}, stats=STATS),
            events.FinalEvent(**at(12), ok=False, error=ERROR, stats=STATS),
        ),
    ),
    About(
        "Not made today.",
        {"message": "what went wrong", "code": "which error", "recoverable": "whether the run goes on"},
        (events.ErrorEvent(**at(13), message="the store is slow", code="STORE_SLOW", recoverable=True),),
    ),
    About(
        "Not made today.",
        {
            "path": "where in the result it belongs",
            "data": "the part of it",
            "error": "why there is none",
            "hasNext": "whether more of it comes",
        },
        (events.PartialResultEvent(**at(14), path=["orders", "0"], data={"id": 1}, has_next=True),),
    ),
    About(
        "Tools have come or gone during the run; those that the session may call.",
        {
            "version": "of `GET /code/actions`",
            "addedActions": "tools that are new",
            "removedActions": "tools that are gone",
        },
        (events.CatalogChangedEvent(**at(15), version="2", added_actions=["files:move"], removed_actions=[]),),
    ),
]


def generated() -> str:
    """All of it, as it stands between the marks."""
    missing = set(EVENT_TYPES) ^ {about.examples[0].type for about in EVENTS}
    if missing:
        raise ValueError(f"described or defined, not both: {', '.join(sorted(missing))}")
    return "\n".join(section(about) for about in EVENTS)


def section(about: About) -> str:
    kind = type(about.examples[0])
    own = msgspec.structs.fields(kind)[len(Event.__struct_fields__) :]
    hints = get_type_hints(kind)
    if {field.encode_name for field in own} != set(about.fields):
        raise ValueError(f"{kind.type} has the fields {', '.join(field.encode_name for field in own)}")
    rows = [
        f"| `{field.encode_name}`{'?' if field.default in {None, msgspec.UNSET} else ''} "
        f"| {type_name(hints[field.name], SHAPES.get((kind.type, field.encode_name)))} "
        f"| {about.fields[field.encode_name]} |"
        for field in own
    ]
    return "\n".join(
        [
            f"### {kind.type}",
            "",
            textwrap.fill(f"`{kind.__name__}`. {about.when}", 120, break_on_hyphens=False),
            "",
            "| field | type | |",
            "|---|---|---|",
            *rows,
            "",
            "```json",
            *(encode_event(example).decode().rstrip("\n") for example in about.examples),
            "```",
            "",
        ]
    )


def type_name(hint: Any, shape: str | None, plural: str = "") -> str:
    """A type of Python as one of JSON; `shape` names the struct that an object is held to."""
    if get_origin(hint) in {Union, types.UnionType}:
        (hint,) = [option for option in get_args(hint) if option is not type(None)]
    if get_origin(hint) is Literal:
        return ", ".join(f"`{option}`" for option in get_args(hint))
    if get_origin(hint) is list:
        return f"list of {type_name(get_args(hint)[0], shape, 's')}"
    name = TYPES[get_origin(hint) or hint] + plural
    if shape is None:
        return name
    fields = msgspec.structs.fields(cast("type[msgspec.Struct]", vars(wire)[shape]))
    return f"{name} with {', '.join(f'`{field.encode_name}`' + ('' if field.required else '?') for field in fields)}"


def with_generated(page: str) -> str:
    """The page with what is between the marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} has no {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{generated()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

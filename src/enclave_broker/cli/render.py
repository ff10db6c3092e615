"""A run as people and as programs read it: the records of its log in, lines on the screen out.

`Lines` shows calls when they have their outcome and prints at once; `EventStream` prints the wire's events. Both follow
one execution to its end. cli/run.py feeds them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from enclave_broker.broker.store.records import CallRequested, CallSettled, Ended, HandlerStarted, Record
from enclave_broker.cli.screen import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Screen
from enclave_broker.cli.text import (
    count,
    cut,
    duration,
    excerpt,
    inline,
    json_text,
    safe_json,
    size,
    summary,
    visible,
    width,
)
from enclave_broker.types.events import LogEvent, StdoutEvent
from enclave_broker.types.messages import CallFulfilled
from enclave_broker.types.results import ExecutionStats, ScriptError

__all__ = ["EventStream", "Lines", "Source", "show_error"]

_MIN_ARGS_COLUMNS = 24
_MAX_FRAMES = 8
"""Of a stack trace this much is shown."""
_LEVEL_STYLES = {"debug": DIM, "info": DIM, "warn": YELLOW, "error": RED}


class Source(NamedTuple):
    """The script and what to call it."""

    code: str
    name: str


class _Call:
    __slots__ = ("args", "asked", "name", "started")

    def __init__(self, fact: CallRequested, asked: float) -> None:
        self.name = cut(inline(fact.name[:200]), 80)
        self.args = json_text(msgspec.json.decode(fact.args), compact=True)
        self.asked = asked
        self.started = False


class EventStream:
    """One wire event a line on stdout, and nothing else."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, record: Record) -> None:
        if record.public is not None:
            self._screen.result(safe_json(msgspec.json.encode(record.public.to_wire()).decode()) + "\n")


class Lines:
    """What the script prints and its value on stdout; calls, logs, errors and costs on stderr."""

    def __init__(self, screen: Screen, source: Source, *, costs: bool) -> None:
        self._screen = screen
        self._source = source
        self._costs = costs
        self._open: dict[str, _Call] = {}

    def show(self, record: Record) -> None:
        match record.public:
            case StdoutEvent(chunk=chunk):
                self._screen.result(visible(chunk))
            case LogEvent(level=level, message=message, data=data):
                text = f"[{level}] {visible(message)}{f' {json_text(data)}' if data else ''}"
                self._screen.note(self._screen.err.paint(text, _LEVEL_STYLES[level]))
            case _:
                pass
        match record.fact:
            case CallRequested() as fact:
                self._open[fact.call_id] = _Call(fact, record.at)
            case HandlerStarted() as fact if (call := self._open.get(fact.call_id)) is not None:
                call.started = True
            case CallSettled() as fact if (call := self._open.pop(fact.call_id, None)) is not None:
                self._show_settled(call, fact, record.at - call.asked)
            case Ended() as fact:
                self._show_end(fact)
                return
            case _:
                return
        self._screen.status(self._under_way())

    # -- calls -----------------------------------------------------------------------------------------------------

    def _under_way(self) -> str:
        if not self._open:
            return ""
        last = next(reversed(self._open.values()))
        others = f"  and {count(len(self._open) - 1, 'other call')}" if len(self._open) > 1 else ""
        return f"  {last.name} {cut(last.args, 60)} …{others}"

    def _show_settled(self, call: _Call, fact: CallSettled, seconds: float) -> None:
        if fact.error is not None:
            outcome = f"{inline(fact.error.code)}  {inline(fact.error.message)}"
            self._call_line(call, outcome, RED, duration(seconds))
            return
        detail = size(fact.result_bytes)
        if isinstance(fact.input, CallFulfilled):
            raw = bytes(fact.input.value)
            detail = summary(msgspec.json.decode(raw)) if raw else ""
        self._call_line(call, "ok", GREEN, "  ".join(part for part in (detail, duration(seconds)) if part))

    def _call_line(self, call: _Call, outcome: str, style: str, rest: str) -> None:
        err = self._screen.err
        used = 2 + width(call.name) + 1 + 2 + width(outcome) + 2 + width(rest)
        args = cut(call.args, max(_MIN_ARGS_COLUMNS, self._screen.columns - used))
        words = f"  {err.paint(call.name, CYAN)} {err.paint(args, DIM)}  {err.paint(outcome, style)}"
        self._screen.note(f"{words}  {err.paint(rest, DIM)}" if rest else words)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _show_end(self, ended: Ended) -> None:
        self._screen.status("")
        for call in self._open.values():
            what = "in doubt: it had started, and nobody knows how it ended" if call.started else "not run"
            self._call_line(call, what, YELLOW, "")
        self._open.clear()
        if ended.error is not None:
            show_error(self._screen, ended.error, self._source)
        elif ended.value is not msgspec.UNSET:
            self._show_value(ended.value)
        if self._costs:
            self._show_costs(ended.stats)

    def _show_value(self, value: Any) -> None:
        text = json_text(value)
        if self._screen.out.is_terminal and width(text) > self._screen.columns:
            text = json_text(value, indent=2)
        self._screen.result(text + "\n")

    def _show_costs(self, stats: ExecutionStats) -> None:
        parts = [
            duration(stats.duration),
            f"{duration(stats.cpu_time)} CPU",
            count(stats.tool_call_count, "call"),
            f"{size(stats.stdout_bytes)} printed",
        ]
        self._screen.note(self._screen.err.paint(" · ".join(parts), DIM))


def show_error(screen: Screen, error: ScriptError, source: Source | None = None) -> None:
    """`error CODE: message`, and where in the script it came up."""
    err = screen.err
    kind = f"{error.name}: " if error.name not in {"Error", "ToolError", "SyntaxError"} else ""
    message = visible(f"{kind}{error.message}").replace("\n", "\n  ")
    screen.note(f"{err.paint(f'error {inline(error.code)}:', RED)} {err.paint(message, BOLD)}")
    if source is None or error.line is None:
        return
    column = f":{error.column}" if error.column is not None else ""
    screen.note(f"  {inline(source.name)}:{error.line}{column}")
    for row in excerpt(source.code, error.line, error.column):
        screen.note(row)
    frames = [line for line in (error.stack or "").splitlines() if line.startswith("    at ")]
    for frame in frames[1:_MAX_FRAMES]:  # the first is the place above
        screen.note(err.paint(visible(frame), DIM))

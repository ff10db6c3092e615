from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from pydantic import BaseModel, field_validator

from enclave_broker import Broker, ExecutionResult, SessionLimits, ToolContext, ToolError
from enclave_broker.broker.wheel import TICK
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.types.errors import RESERVED_CODES
from enclave_broker.types.events import Event

pytestmark = pytest.mark.asyncio(loop_scope="module")

Run = Callable[..., Awaitable[ExecutionResult[Any]]]

CANARY = "canary-7f3a at /srv/private.db"
HASTY = SessionLimits(tool_timeout=0.1, timeout=5)
release = asyncio.Event()
release_thread = threading.Event()
kept: list[int] = [1]


class EvilError(Exception):
    def __str__(self) -> str:
        raise RuntimeError(CANARY)

    __repr__ = __str__


class EvilText:
    def __str__(self) -> str:
        raise RuntimeError(CANARY)


class Checked(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def check(cls, value: int) -> int:
        raise SystemExit(CANARY) if value else RuntimeError(CANARY)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def blocks(then: Callable[[], Any]) -> Callable[..., Any]:
    """Holds the event loop until its time is over, and as long after it as the time-out may ring late."""

    async def handler(context: ToolContext) -> Any:
        while datetime.now(UTC) <= context.deadline + timedelta(seconds=2 * TICK):
            pass
        return then()

    return handler


def raises(error: BaseException) -> Callable[..., Any]:
    async def handler() -> Any:
        raise error

    return handler


def raises_in_thread(error: BaseException) -> Callable[..., Any]:
    def handler() -> Any:
        raise error

    return handler


def gives(value: Any) -> Callable[..., Any]:
    async def handler() -> Any:
        return value

    return handler


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


def hang_in_thread() -> None:
    release_thread.wait()


async def resist() -> int:
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue
    return 5


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.get_running_loop().create_future()


async def give_kept() -> list[int]:
    return kept


async def refuse_kept() -> None:
    raise ToolError("kept", code="KEPT", details={"kept": kept})


async def change_kept(args: dict[str, Any]) -> None:
    kept.append(len(kept) + 1)
    args.clear()
    args["changed"] = object()


async def check(args: Checked) -> int:
    return args.a


def late_error() -> Any:
    raise ValueError(CANARY)


def late_exit() -> Any:
    raise SystemExit(CANARY)


def late_refusal() -> Any:
    raise ToolError("late", code="LATE")


SECRETIVE = {
    "ValueError": raises(ValueError(CANARY)),
    "SystemExit": raises(SystemExit(CANARY)),
    "KeyboardInterrupt": raises(KeyboardInterrupt(CANARY)),
    "GeneratorExit": raises(GeneratorExit(CANARY)),
    "CancelledError": raises(asyncio.CancelledError(CANARY)),
    "StopIteration": raises(StopIteration(CANARY)),
    "a group": raises(BaseExceptionGroup(CANARY, [SystemExit(CANARY), ValueError(CANARY)])),
    "an error without text": raises(EvilError()),
    "ValueError in a thread": raises_in_thread(ValueError(CANARY)),
    "SystemExit in a thread": raises_in_thread(SystemExit(CANARY)),
    "KeyboardInterrupt in a thread": raises_in_thread(KeyboardInterrupt(CANARY)),
    "CancelledError in a thread": raises_in_thread(asyncio.CancelledError(CANARY)),
    "StopIteration in a thread": raises_in_thread(StopIteration(CANARY)),
}
UNSENDABLE = {
    "bytes that are no text": b"\xff",
    "10**400": 10**400,
    "10**5000": [10**5000],
    "a cycle": cycle(),
    "an object": object(),
    "a generator": iter([1]),
    "a lone surrogate": "\ud800",
    "deep nesting": nested(5_000),
}
SENDABLE = {
    "a set": ({1}, [1]),
    "bytes": (b"ab", "ab"),
    "NaN": ([math.nan, math.inf, -math.inf], [None, None, None]),
    "a date": (datetime(2025, 1, 2, tzinfo=UTC), "2025-01-02T00:00:00Z"),
    "nesting": (nested(150), nested(150)),
    "special names": ({"__proto__": {"a": 1}, "then": 1}, {"__proto__": {"a": 1}, "then": 1}),
    "an int beyond 2**53": (2**60, 1152921504606847000),
}


def shared(levels: int) -> list[Any]:
    """Small in memory, and gigabytes as text."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


DETAILS = {
    "a set": {1},
    "an object": object(),
    "NaN and 10**400": [math.nan, 10**400],
    "10**5000": 10**5000,
    "a cycle": cycle(),
    "a lone surrogate": {"a": "\ud800"},
    "a lone surrogate as name": {"\ud800": 1},
    "much text": "y" * 10**6,
    "special names": {"__proto__": {"a": 1}, "then": 1},
    "shared structure": shared(45),
}
ODD_CODES: list[Any] = ["", "two words", "x" * 1_000, "\ud800", "\0", "é", 5, b"CODE"]
NAMED: dict[str, Callable[..., Any]] = {
    "check": check,
    "hang": hang,
    "hang_in_thread": hang_in_thread,
    "resist": resist,
    "cancel_itself": cancel_itself,
    "give_kept": give_kept,
    "refuse_kept": refuse_kept,
    "change_kept": change_kept,
    "block": blocks(lambda: 1),
    "block_and_raise": blocks(late_error),
    "block_and_refuse": blocks(late_refusal),
    "block_and_exit": blocks(late_exit),
    "long": raises(ToolError("x" * 10**7)),
    "no_text": raises(ToolError(EvilText())),  # pyright: ignore[reportArgumentType] what a handler may do
    "surrogate": raises(ToolError("a\ud800b", code="MINE")),
}
TOOLS = (
    NAMED
    | {f"secretive{place}": handler for place, handler in enumerate(SECRETIVE.values())}
    | {f"unsendable{place}": gives(value) for place, value in enumerate(UNSENDABLE.values())}
    | {f"sendable{place}": gives(value) for place, (value, _) in enumerate(SENDABLE.values())}
    | {f"details{place}": raises(ToolError("m", code="MINE", details=d)) for place, d in enumerate(DETAILS.values())}
    | {code: raises(ToolError("m", code=code)) for code in RESERVED_CODES}
    | {f"code{place}": raises(ToolError("m", code=code)) for place, code in enumerate(ODD_CODES)}
    | {f"nested{n}": raises(ToolError("m", code="MINE", details=nested(n))) for n in range(900, 1_000)}
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> ProcessPool:
    return ProcessPool(workers=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(pool: ProcessPool) -> AsyncIterator[Broker]:
    async with Broker(tools=TOOLS, runtimes=[pool]) as started:
        yield started
        release.set()
        release_thread.set()


@pytest_asyncio.fixture(loop_scope="module")
async def run(house: Broker, pool: ProcessPool, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Run]:
    """Runs a script; after the test the same worker still runs others, and no secret went out."""
    pids = pool.pids
    seen: list[bytes] = []
    caplog.set_level(logging.WARNING)

    def note(event: Event) -> None:
        seen.append(msgspec.json.encode(event.to_wire()))

    async def execute(code: str, limits: SessionLimits = HASTY) -> ExecutionResult[Any]:
        result = await house.execute(code, limits=limits, on_event=note)
        errors = [result.error, *(call.error for call in result.calls)]
        seen.extend(str(error).encode() for error in errors)
        return result

    yield execute
    assert (await house.execute("return 1 + 1")).value == 2
    assert pool.pids == pids
    assert not [text for text in seen if b"canary" in text or b"Traceback" in text]
    assert not [record for record in caplog.records if record.name == "asyncio"]  # nobody's exception was lost


async def outcome(run: Run, tool: str) -> Any:
    """[value], or [name, code, message, details, whether it is an Error] of what the script caught."""
    result = await run(
        f"try {{ return [await callTool('{tool}', {{}})] }}"
        "catch (e) { return [e.name, e.code, e.message, e.details, e instanceof Error] }"
    )
    assert result.error is None, result.error
    return result.value


# -- what a handler raises ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [f"secretive{place}" for place in range(len(SECRETIVE))], ids=SECRETIVE.keys())
async def test_the_script_sees_only_an_error_id_and_the_log_the_rest(
    run: Run, tool: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, code, message, details, is_error = await outcome(run, tool)
    assert (name, code, details, is_error) == ("ToolError", "EXECUTION_ERROR", None, True)
    found = re.fullmatch(rf"tool '?{tool}'? failed \(error id (\w+)\)", message)
    assert found is not None
    [record] = [record for record in caplog.records if found[1] in record.getMessage()]
    assert record.exc_info is not None


@pytest.mark.parametrize("value", [0, 1])
async def test_a_validator_that_fails_badly_is_an_error_id_too(run: Run, value: int) -> None:
    result = await run(
        f"try {{ await callTool('check', {{ a: {value} }}) }} catch (e) {{ return [e.code, e.message] }}"
    )
    assert result.value[0] == "EXECUTION_ERROR"
    assert "error id" in result.value[1]


async def test_a_handler_that_cancels_itself_fails_alone(run: Run) -> None:
    assert (await outcome(run, "cancel_itself"))[1] == "EXECUTION_ERROR"


@pytest.mark.parametrize("code", sorted(RESERVED_CODES))
async def test_a_handler_can_not_take_a_code_of_the_broker(run: Run, code: str) -> None:
    assert await outcome(run, code) == ["ToolError", "EXECUTION_ERROR", "m", None, True]


@pytest.mark.parametrize("place", range(len(ODD_CODES)))
async def test_a_code_that_is_no_word_is_an_execution_error(run: Run, place: int) -> None:
    assert (await outcome(run, f"code{place}"))[1] == "EXECUTION_ERROR"


@pytest.mark.parametrize("place", range(len(DETAILS)), ids=DETAILS.keys())
async def test_details_of_any_kind_reach_the_script_as_json_or_not_at_all(run: Run, place: int) -> None:
    name, code, message, details, _ = await outcome(run, f"details{place}")
    assert (name, code, message) == ("ToolError", "MINE", "m")
    mended: list[Any] = [{"a": "\ufffd"}, {"\ufffd": 1}]
    assert details in (None, [1], [None, None], {"__proto__": {"a": 1}, "then": 1}, *mended)


async def test_details_of_any_depth_settle_the_call(run: Run) -> None:
    code = """const codes = new Set();
        for (let n = 900; n < 1000; n++) await callTool(`nested${n}`, {}).catch((e) => codes.add(e.code));
        return codes"""
    result = await run(code, SessionLimits(max_tool_calls=100, timeout=10))
    assert (result.error, result.value) == (None, ["MINE"])
    for levels in (900, 950, 970, 980, 985, 986, 987, 988, 990):
        uncaught = await run(f"await callTool('nested{levels}', {{}})")
        assert uncaught.error is not None
        assert (uncaught.error.code, uncaught.error.message) == ("MINE", "m")


@pytest.mark.parametrize(
    ("tool", "code", "message"),
    [
        ("long", "EXECUTION_ERROR", re.compile("x{1000,20000}…?")),
        ("surrogate", "MINE", re.compile("a.+b")),
        ("no_text", "EXECUTION_ERROR", re.compile(".*")),
    ],
)
async def test_a_message_of_any_kind_reaches_the_script(
    run: Run, tool: str, code: str, message: re.Pattern[str]
) -> None:
    caught = await outcome(run, tool)
    assert caught[1] == code
    assert message.fullmatch(caught[2])


# -- what a handler returns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(len(UNSENDABLE)), ids=UNSENDABLE.keys())
async def test_a_result_that_is_no_json_is_the_tool_s_failure(run: Run, place: int) -> None:
    _, code, message, _, _ = await outcome(run, f"unsendable{place}")
    assert code == "EXECUTION_ERROR"
    assert "error id" in message


@pytest.mark.parametrize("place", range(len(SENDABLE)), ids=SENDABLE.keys())
async def test_a_result_that_pydantic_can_write_arrives(run: Run, place: int) -> None:
    [value] = await outcome(run, f"sendable{place}")
    assert value == list(SENDABLE.values())[place][1]


async def test_what_a_handler_changes_later_changes_nothing(run: Run) -> None:
    kept[:] = [1]
    result = await run("""
        const first = await callTool("give_kept", {});
        const refused = await callTool("refuse_kept", {}).catch((e) => e);
        await callTool("change_kept", { a: 1 });
        return [first, refused.details, await callTool("give_kept", {})]""")
    assert result.value == [[1], {"kept": [1]}, [1, 2]]
    assert [call.args for call in result.calls] == [{}, {}, {"a": 1}, {}]
    assert result.calls[1].error is not None
    assert result.calls[1].error.details == {"kept": [1]}


# -- handlers that don't come back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["hang", "hang_in_thread", "resist"])
async def test_a_handler_that_does_not_end_is_timed_out_again_and_again(run: Run, tool: str) -> None:
    for _ in range(2):
        name, code, message, _, is_error = await outcome(run, tool)
        assert (name, code, is_error) == ("ToolError", "TOOL_TIMEOUT", True)
        assert tool in message


async def test_a_handler_that_is_left_behind_counts_for_nothing(run: Run) -> None:
    result = await run(
        "try { await callTool('resist', {}) } catch (e) { await callTool('give_kept', {}); return e.code }"
    )
    assert result.value == "TOOL_TIMEOUT"
    assert [(call.name, call.outcome) for call in result.calls] == [("resist", "unknown"), ("give_kept", "done")]


@pytest.mark.parametrize("tool", ["block", "block_and_raise", "block_and_refuse", "block_and_exit"])
async def test_a_handler_that_blocked_the_loop_is_timed_out_and_named_in_the_log(
    run: Run, tool: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await outcome(run, tool))[1] == "TOOL_TIMEOUT"
    assert [record for record in caplog.records if tool in record.getMessage() and "block" in record.getMessage()]

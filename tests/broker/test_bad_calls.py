from __future__ import annotations

import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from enclave_broker import Broker, ExecutionResult, SessionLimits, ToolError
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.types.events import Event

pytestmark = pytest.mark.asyncio(loop_scope="module")

Run = Callable[..., Awaitable[ExecutionResult[Any]]]

MIB = 1 << 20
HUGE = "x" * (100 * MIB)
SPECIAL = {"__proto__": {"polluted": 1}, "constructor": 1, "then": "no", "toJSON": 2, "length": -1, "": 0, "0": 0}
handled: list[str] = []


def doubled(levels: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


async def search(args: dict[str, Any]) -> dict[str, Any]:
    handled.append("orders:search")
    return args


async def secret(args: dict[str, Any]) -> int:
    handled.append("orders:secret")
    return 1


async def typed(id: int, tags: list[Any] | None = None) -> int:
    handled.append("typed")
    return id


async def huge() -> str:
    return HUGE


async def shared() -> Any:
    return doubled(45)


async def repeated() -> list[str]:
    return [HUGE] * 1000


async def special() -> dict[str, Any]:
    return SPECIAL


async def refuse() -> int:
    raise ToolError("refused", code="MINE", details=SPECIAL)


TOOLS = {
    "orders:search": search,
    "orders:secret": secret,
    "typed": typed,
    "huge": huge,
    "shared": shared,
    "repeated": repeated,
    "special": special,
    "refuse": refuse,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> ProcessPool:
    return ProcessPool(workers=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(pool: ProcessPool) -> AsyncIterator[Broker]:
    async with Broker(tools=TOOLS, runtimes=[pool]) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def run(house: Broker, pool: ProcessPool) -> AsyncIterator[Run]:
    """Runs a script; after the test the same worker still runs others, and each event went out as JSON."""
    handled.clear()
    pids = pool.pids
    events: list[Event] = []

    async def execute(code: str, **options: Any) -> ExecutionResult[Any]:
        return await house.execute(code, on_event=events.append, **options)

    yield execute
    assert (await house.execute("return 1 + 1")).value == 2
    assert pool.pids == pids
    for event in events:
        msgspec.json.encode(event.to_wire())


async def caught(run: Run, call: str, **options: Any) -> Any:
    """What the script sees of the error: [name, code, message], or the value where there is none."""
    result = await run(
        f"try {{ return {{ value: {call} }} }} catch (e) {{ return [e.name, e.code, e.message] }}", **options
    )
    assert result.ok, result.error
    return result.value


def quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()


# -- names -------------------------------------------------------------------------------------------------------------

ODD_NAMES = [
    "",
    " ",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "x" * 10_240,
    "orders:search" * 1_000,
    "\0",
    "orders:search\0",
    "orders:search ",
    " orders:search",
    "orders:search\n",
    "orders:search\u200b",
    "orders\u202e:search",
    "ORDERS:SEARCH",
    "Orders:search",
    "\uff4frders:search",
    "o\u0301rders:search",
    "\u00f3rders:search",
    "order\u017f:search",
    "orders\uff1asearch",
    "orders;search",
    "orders.search",
    "orders/search",
    "orders::search",
    ":orders:search",
    "*",
    "orders:*",
    "orders:searc?",
    "orders:[s]earch",
    "{orders:search}",
    "orders\\:search",
    "orders:search,typed",
    "../orders:search",
    "orders%3Asearch",
    "\ufefforders:search",
    "😀",
    "tools:orders:search",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name[:30]))
async def test_no_odd_name_reaches_a_tool(run: Run, name: str) -> None:
    for call in (f"await callTool({quoted(name)}, {{}})", f"await tools[{quoted(name)} || 'none']({{}})"):
        error_name, code, message = await caught(run, call)
        assert (error_name, code) == ("ToolError", "UNKNOWN_TOOL")
        assert message.startswith("unknown tool ")
        assert len(message) < 500
    assert handled == []


@pytest.mark.parametrize(
    "name",
    [
        "orders:serch",
        "orders.search",
        "ordersSearch",
        "ORDERS:SEARCH",
        "orders:search ",
        "orders:searc?",
        "orders:search\0",
    ],
)
@pytest.mark.parametrize("allowed", [None, ["orders:search", "typed"], ["orders:s[e]arch"]])
async def test_a_name_that_misses_is_told_the_nearest(run: Run, name: str, allowed: list[str] | None) -> None:
    _, _, message = await caught(run, f"await callTool({quoted(name)}, {{}})", allowed_tools=allowed)
    assert "did you mean orders:search" in message
    assert ("orders:secret" in message) <= (allowed is None)


@pytest.mark.parametrize("name", ["orders:secre", "orders.secret", "orders:secret ", "ORDERS:SECRET"])
async def test_a_tool_that_the_session_may_not_call_is_never_named(run: Run, name: str) -> None:
    _, code, message = await caught(run, f"await callTool({quoted(name)}, {{}})", allowed_tools=["orders:search", "t*"])
    assert code == "UNKNOWN_TOOL"
    assert "orders:secret" not in message.removeprefix(f"unknown tool {name!r}")


async def test_a_tool_off_the_allow_list_never_runs(run: Run) -> None:
    result = await run(
        "const seen = []; for (const name of ['orders:secret', 'typed']) "
        "await callTool(name, { id: 1 }).catch((e) => seen.push(e.code)); return seen",
        allowed_tools=["orders:search", "orders:secre?x", "TYPED"],
    )
    assert (result.value, handled) == (["TOOL_NOT_ALLOWED"] * 2, [])
    assert [call.outcome for call in result.calls] == ["denied", "denied"]


@pytest.mark.parametrize(
    "name", ["5", "null", "undefined", "{ toString() { return 'typed' } }", "['typed']", "Symbol('typed')"]
)
async def test_a_name_that_is_no_string_is_an_error_and_no_call(run: Run, name: str) -> None:
    result = await run(f"try {{ await callTool({name}, {{ id: 1 }}) }} catch (e) {{ return e.name }}")
    assert (result.value, result.calls, handled) == ("TypeError", [], [])


# -- arguments ---------------------------------------------------------------------------------------------------------


NO_OBJECTS = """5|0|''|'{}'|null|true|[]|[{ id: 1 }]|() => 1|Symbol('s')|10n|NaN|new Date(0)|new Set()|class {}|callTool
new Map([[1, 2]])|{ toJSON() { return 5 } }|new Uint8Array(2)|new String('s')|tools"""


@pytest.mark.parametrize("args", NO_OBJECTS.replace("\n", "|").split("|"))
async def test_arguments_that_are_no_object_are_invalid(run: Run, args: str) -> None:
    error_name, code, message = await caught(run, f"await callTool('orders:search', {args})")
    assert (error_name, code) == ("ToolError", "VALIDATION_ERROR")
    assert "invalid" in message
    assert len(message) < 500
    assert handled == []


UNFIT = """{}|{ id: '5' }|{ id: 1.5 }|{ id: NaN }|{ id: null }|{ id: true }|{ id: 1, idd: 2 }|{ ID: 1 }|undefined|[].x
JSON.parse('{"id": 1, "__proto__": {}}')|{ id: 1, tags: {} }|{ id: 1n }|{ id: { valueOf: () => 1 } }
{ id: Promise.resolve(1) }|Object.create({ id: 1 })|{ id: 1, ['x'.repeat(1e5)]: 1 }|{ id: 'x'.repeat(1e6) }
{ id: 1, tags: JSON.parse('['.repeat(300) + ']'.repeat(300)) }|{ id: 1, constructor: 1 }"""


@pytest.mark.parametrize("args", UNFIT.replace("\n", "|").split("|"))
async def test_arguments_that_do_not_fit_are_invalid_and_the_message_is_short(run: Run, args: str) -> None:
    _, code, message = await caught(run, f"await callTool('typed', {args})")
    assert code == "VALIDATION_ERROR"
    assert "invalid" in message
    assert len(message) < 1_000
    assert handled == []


@pytest.mark.parametrize(
    ("args", "name", "message"),
    [
        ("{ get a() { throw new Error('getter') } }", "Error", "getter"),
        ("{ toJSON() { throw new TypeError('json') } }", "TypeError", "json"),
        ("new Proxy({}, { ownKeys() { throw new Error('keys') } })", "Error", "keys"),
        ("(() => { const r = Proxy.revocable({}, {}); r.revoke(); return r.proxy })()", "TypeError", "revoked proxy"),
        (
            "(() => { const a = {}; a.b = { a }; return a })()",
            "TypeError",
            "args.b.a is circular: it refers back to args",
        ),
    ],
)
async def test_arguments_that_throw_reject_the_call(run: Run, args: str, name: str, message: str) -> None:
    assert await caught(run, f"await callTool('orders:search', {args})") == [name, None, message]
    assert handled == []


@pytest.mark.parametrize(
    ("args", "seen"),
    [
        ('JSON.parse(\'{"__proto__": {"a": 1}, "constructor": 2}\')', {"__proto__": {"a": 1}, "constructor": 2}),
        ("{ then(r) { r(1) }, a: 1 }", {"a": 1}),
        ("{ a: { then(r) { r(1) } }, b: undefined, c: [undefined, () => 1] }", {"a": {}, "c": [None, None]}),
        ("{ get a() { return 5 } }", {"a": 5}),
        (
            "{ a: -0, b: Infinity, c: new Date(0), d: 10n }",
            {"a": 0, "b": None, "c": "1970-01-01T00:00:00.000Z", "d": "10"},
        ),
        ("{ a: '\\ud800', '\\udfff': 1, '\\0': '\\0' }", {"a": "\ufffd", "\ufffd": 1, "\0": "\0"}),
        ("new Proxy({ a: 1 }, {})", {"a": 1}),
        ("Object.freeze({ a: Object.freeze([1]) })", {"a": [1]}),
    ],
)
async def test_odd_arguments_arrive_as_plain_json(run: Run, args: str, seen: Any) -> None:
    result = await run(f"return await callTool('orders:search', {args})")
    assert result.error is None
    assert result.value == seen
    assert result.calls[0].args == seen


async def test_arguments_beyond_their_limit_can_be_caught_and_were_no_call(run: Run) -> None:
    for args in ("{ a: 'x'.repeat(6e6) }", "{ ['x'.repeat(6e6)]: 1 }", "{ a: new Array(3e6) }"):
        code = f"try {{ await callTool('orders:search', {args}) }} catch (e) {{ return e.code }}"
        result = await run(code, limits=SessionLimits(max_memory_bytes=256 * MIB))
        assert (result.value, result.calls) == ("ARGUMENTS_TOO_LARGE", [])
    small = SessionLimits(max_tool_args_bytes=100)
    assert (await caught(run, "await callTool('orders:search', { a: 'x'.repeat(100) })", limits=small))[
        1
    ] == "ARGUMENTS_TOO_LARGE"
    uncaught = await run("await callTool('orders:search', { a: 'x'.repeat(6e6) })")
    assert uncaught.error is not None
    assert uncaught.error.code == "ARGUMENTS_TOO_LARGE"
    assert handled == []


@pytest.mark.parametrize("catch", ["", ".catch(() => {})"])
async def test_a_flood_of_calls_is_stopped_at_its_limit(run: Run, catch: str) -> None:
    code = f"for (let i = 0; i < 1e4; i++) callTool('orders:search', {{ i }}){catch}; await 0; return 'over'"
    result = await run(code, limits=SessionLimits(max_tool_calls=5))
    assert (result.value, len(result.calls), len(handled)) == ("over", 5, 5)


async def test_large_arguments_one_after_the_other_come_out_alike_on_replay(run: Run) -> None:
    code = """const a = 'x'.repeat(4e6);
        for (let i = 0; i < 16; i++) await callTool('typed', { id: i, a }).catch(() => {}); return 1"""
    assert (await run(code, limits=SessionLimits(max_memory_bytes=32 * MIB, max_log_bytes=1 << 30))).value == 1


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["huge", "shared", "repeated"])
async def test_a_result_beyond_its_limit_is_an_error_that_costs_no_memory(run: Run, tool: str) -> None:
    tracemalloc.start()
    try:
        error_name, code, message = await caught(run, f"await callTool('{tool}', {{}})")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (error_name, code) == ("ToolError", "TOOL_RESULT_TOO_LARGE")
    assert tool in message
    assert peak < 16 * MIB


async def test_a_result_that_the_script_has_no_memory_for_ends_it(run: Run) -> None:
    limits = SessionLimits(max_memory_bytes=8 * MIB, max_tool_result_bytes=200 * MIB, max_log_bytes=1 << 30)
    result = await run("try { await callTool('huge', {}) } catch { return 'caught' }", limits=limits)
    assert result.error is not None
    assert result.error.code == "MEMORY_LIMIT"


async def test_a_result_is_data_whatever_its_names_are(run: Run) -> None:
    code = """
        const r = await callTool("special", {});
        const e = await callTool("refuse", {}).catch((e) => e);
        return [r, {}.polluted ?? null, Object.getPrototypeOf(r) === Object.prototype, e.details, e.code, e.message]"""
    result = await run(code)
    assert result.error is None
    assert result.value == [SPECIAL, None, True, SPECIAL, "MINE", "refused"]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("{ then(resolve) { resolve(5) } }", 5),
        ("{ then(resolve) { resolve({ then(r) { r(6) } }) } }", 6),
        ("{ then(resolve, reject) { resolve(7); reject(8); throw 9 } }", 7),
        ("{ then: 5 }", {"then": 5}),
        ("{ a: { then(r) { r(1) } } }", {"a": {}}),
        ("{ get a() { return [1, undefined] } }", {"a": [1, None]}),
        ("{ toJSON() { return { b: 1 } } }", {"b": 1}),
        ("new Proxy([1, 2], {})", [1, 2]),
    ],
)
async def test_a_script_may_end_on_a_thenable_or_getters(run: Run, value: str, seen: Any) -> None:
    result = await run(f"return {value}")
    assert (result.error, result.value) == (None, seen)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{ then() { throw new Error('thrown') } }", "thrown"),
        ("{ then(_, reject) { reject('rejected') } }", "rejected"),
        ("{ get then() { throw new Error('got') } }", "got"),
        ("{ get a() { throw new Error('a') } }", "a"),
        ("{ toJSON() { throw 'json' } }", "json"),
        ("{ then() { } }", "the script waits for a promise that nothing can settle any more"),
        ("new Proxy({}, { get() { throw new Error('trap') } })", "trap"),
        ("new Proxy([], { get(t, k) { return k === 'length' ? 2 ** 53 - 1 : t[k] } })", "larger than 5242880 bytes"),
        ("(() => { const a = []; a.push(a); return a })()", "result[0] is circular: it refers back to result"),
    ],
)
async def test_a_value_that_throws_fails_the_script_with_that_error(run: Run, value: str, message: str) -> None:
    result = await run(f"return {value}")
    assert result.error is not None
    assert result.error.code == "EXECUTION_ERROR"
    assert message in result.error.message


async def test_a_script_s_own_failure_never_holds_what_a_tool_gave_it_twice(run: Run) -> None:
    result = await run("throw await callTool('orders:search', { message: 'x'.repeat(4e6) })")
    assert result.error is not None
    assert result.error.code == "EXECUTION_ERROR"
    assert sys.getsizeof(result.error.message) < 100_000

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from enclave_broker import Broker, ExecutionResult, SessionClosedError, SessionLimits
from enclave_broker.broker.sessions.log import Log
from enclave_broker.runtime.pool import ProcessPool
from enclave_broker.types.events import Event

pytestmark = pytest.mark.asyncio(loop_scope="module")

Run = Callable[..., Awaitable[ExecutionResult[Any]]]

MIB = 1 << 20
SMALL = SessionLimits(cpu_time=0.3, max_memory_bytes=16 * MIB, timeout=20, max_stdout_bytes=100_000)
ROOMY = SessionLimits(max_memory_bytes=256 * MIB)
SHARED = "let x = [1]; for (let i = 0; i < 45; i++) x = [x, x];"
DETAILED = "throw Object.assign(new Error('e'), { details: x })"
DEEP = {
    "arrays": "let x = []; for (let i = 0; i < 1e4; i++) x = [x];",
    "objects": "let x = {}; for (let i = 0; i < 1e4; i++) x = { x };",
    "maps": "let x = new Map(); for (let i = 0; i < 1e4; i++) x = new Map([['x', x]]);",
    "toJSON without end": "const more = () => ({ toJSON: () => ({ a: more() }) }); let x = more();",
    "proxies without end": """const more = () => new Proxy({}, { ownKeys: () => ["a"],
        get: (_, key) => key === "a" ? more() : undefined,
        getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true }) }); let x = more();""",
}
waiting = asyncio.Event()


async def wait() -> int:
    waiting.set()
    return await asyncio.get_running_loop().create_future()


async def echo(args: dict[str, Any]) -> dict[str, Any]:
    return args


async def blob() -> str:
    return "x" * 20_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> ProcessPool:
    return ProcessPool(workers=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(pool: ProcessPool) -> AsyncIterator[Broker]:
    async with Broker(tools={"wait": wait, "echo": echo, "blob": blob}, runtimes=[pool]) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def run(house: Broker, pool: ProcessPool) -> AsyncIterator[Run]:
    """Runs a script; after the test the same worker still runs others, and each event went out as JSON."""
    pids = pool.pids
    events: list[Event] = []

    async def execute(code: str, limits: SessionLimits = SMALL, **options: Any) -> ExecutionResult[Any]:
        return await house.execute(code, limits=limits, on_event=events.append, **options)

    yield execute
    assert (await house.execute("return [1 + 1, typeof callTool, typeof tools]")).value == [2, "function", "function"]
    assert pool.pids == pids
    for event in events:
        msgspec.json.encode(event.to_wire())


def error_of(result: ExecutionResult[Any]) -> tuple[str, str]:
    """Code and message of a script that failed."""
    assert (result.ok, result.status, result.value) == (False, "failed", None)
    assert result.error is not None
    return result.error.code, result.error.message


# -- what doesn't compile, what throws ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("let x = ;", 1),
        ("return 1\nreturn )", 2),
        ("'open", 1),
        ("`${", 1),
        ("/(/", 1),
        ("return 1\0", 1),
        ("\n\nimport x from 'y'", 3),
        ("\ud800", 1),
        ("\u2028\u2028)", 3),
    ],
)
async def test_code_that_does_not_compile_is_a_syntax_error_with_its_line(run: Run, code: str, line: int) -> None:
    result = await run(code, ROOMY)
    assert error_of(result)[0] == "SYNTAX_ERROR"
    assert result.error is not None
    assert result.error.line == line


@pytest.mark.parametrize("token", ["(", "[", "{", "!", "x=>", "1?", "${`", "class extends ", "f(", "-", "new "])
async def test_code_nested_too_deep_to_be_read_is_an_error_of_that_script(run: Run, token: str) -> None:
    assert error_of(await run(token * (250_000 // len(token)), ROOMY))[0] in {"SYNTAX_ERROR", "EXECUTION_ERROR"}


ODDLY_THROWN = """Object.create({ message: 'inherited' })|Object.create(null)|{ message: {} }
{ get message() { throw 1 } }|{ get message() { return this.message } }
Object.defineProperty(new Error('e'), 'message', { get() { throw 1 } })|new Proxy({}, { get() { throw 1 } })
new Proxy(new Error('e'), { get() { throw 1 }, getPrototypeOf() { throw 1 } })
(() => { const r = Proxy.revocable({}, {}); r.revoke(); return r.proxy })()|{ then() { throw 1 } }
new Promise(() => {})|callTool|[1, [2]]|10n ** 300n"""


@pytest.mark.parametrize(
    ("thrown", "message"),
    [
        *((thrown, None) for thrown in ODDLY_THROWN.replace("\n", "|").split("|")),
        ("'text'", "text"),
        ("null", "null"),
        ("undefined", "undefined"),
        ("Symbol('q')", "Symbol(q)"),
        ("Object.freeze({ message: 'frozen' })", "frozen"),
        ("Object.defineProperty(new Error('e'), 'name', { get() { throw 1 } })", "e"),
        ("Object.defineProperty(new Error('e'), 'code', { get() { throw 1 } })", "e"),
        ("Object.defineProperty(new Error('e'), 'stack', { get() { throw 1 } })", "e"),
        ("Object.assign(new Error('e'), { toString() { throw 1 }, toJSON() { throw 1 } })", "e"),
        ("[...Array(1e4)].reduce((cause) => new Error('caused', { cause }), 0)", "caused"),
        ("new Error('\\ud800')", "\ufffd"),
    ],
)
async def test_a_script_may_throw_anything(run: Run, thrown: str, message: str | None) -> None:
    for code in (f"throw {thrown}", f"await Promise.reject({thrown})", f"await 0; setTimeout; throw {thrown}"):
        code_of_error, text = error_of(await run(code))
        assert code_of_error == "EXECUTION_ERROR"
        assert message is None or text == message


@pytest.mark.parametrize("field", ["message", "name", "code", "stack", "details"])
async def test_a_thrown_error_of_any_size_stays_small(run: Run, field: str) -> None:
    result = await run(f"throw Object.assign(new Error('e'), {{ {field}: 'x'.repeat(2e7) }})", ROOMY)
    assert error_of(result)[0]
    assert len(msgspec.json.encode(result.error)) < 100_000


@pytest.mark.parametrize("code", ["MEMORY_LIMIT", "CPU_LIMIT", "SESSION_EXPIRED", "RUNTIME_LOST", "INTERNAL_ERROR"])
async def test_a_script_can_not_throw_a_verdict(run: Run, code: str) -> None:
    assert error_of(await run(f"throw {{ message: 'm', code: '{code}' }}")) == ("EXECUTION_ERROR", "m")


# -- what never ends or grows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "for (;;) { }",
        "for (;;) { try { for (;;) { } } catch { } finally { continue } }",
        "const again = () => { Promise.resolve().then(again) }; again(); return 1",
        "async function f() { for (;;) await 0 } f(); f(); await new Promise(() => {})",
        "return /^(a+)+$/.test('a'.repeat(40) + 'b')",
        "return { get a() { for (;;) { } } }",
        "const t = { then(resolve) { resolve(t) } }; return t",
        "callTool('echo', {}).then(() => { for (;;) { } }); return 1",
        "console.log({ get a() { for (;;) { } } }, new Proxy({}, { ownKeys() { for (;;) { } } })); for (;;) { }",
        "for (;;) await callTool('none', {}).catch(() => {})",
    ],
)
async def test_what_never_ends_ends_with_the_cpu_limit(run: Run, code: str) -> None:
    assert error_of(await run(code))[0] == "CPU_LIMIT"


@pytest.mark.parametrize(
    "code",
    [
        "const all = []; for (;;) { try { all.push(new Array(1e5).fill(1)) } catch { } }",
        "try { return 'x'.repeat(1e8) } catch { return 'caught' }",
        "try { return new Array(1e9) + '' } catch { return 'caught' }",
        "try { await callTool('echo', { a: 'x'.repeat(1e8) }) } catch { return 'caught' }",
        "const all = []; for (;;) { try { throw 1 } catch { all.push([...Array(1e5)]) } finally { continue } }",
    ],
)
async def test_a_memory_bomb_ends_with_the_memory_limit_whatever_it_catches(run: Run, code: str) -> None:
    limits = SessionLimits(max_memory_bytes=16 * MIB)
    assert error_of(await run(code, limits))[0] == "MEMORY_LIMIT"


@pytest.mark.parametrize("code", ["setTimeout(f, 1e6)", "setInterval(f, 1e6)", "await Promise.race([sleep(1e6), 0])"])
async def test_too_many_timers_can_be_caught(run: Run, code: str) -> None:
    script = f"const f = () => {{}}; try {{ for (;;) {code} }} catch (e) {{ return e.code }}"
    if code.startswith("await"):
        script = "try { await Promise.all(Array.from({ length: 1001 }, () => sleep(1e6))) } catch (e) { return e.code }"
    assert (await run(script)).value == "TIMER_LIMIT"


FLOODS = {
    "timers": "const f = () => setTimeout(f, 0); for (let i = 0; i < 900; i++) f(); await new Promise(() => {})",
    "empty lines": "for (;;) { for (let i = 0; i < 1000; i++) console.log(); await sleep(0) }",
    "sleeps": "for (;;) await Promise.all(Array.from({ length: 500 }, () => sleep(0)))",
}


@pytest.mark.parametrize("code", FLOODS.values(), ids=FLOODS.keys())
async def test_small_records_count_for_the_log_limit_what_they_take(
    run: Run, code: str, replays_every_session: list[Log]
) -> None:
    limits = SessionLimits(max_log_bytes=MIB // 8, timeout=20)
    assert error_of(await run(code, limits))[0] == "LOG_LIMIT"
    [log] = replays_every_session
    assert sum(map(sys.getsizeof, log.records)) <= MIB // 4  # of each record only its outermost object


@pytest.mark.parametrize("code", ["for (;;) clearTimeout(setTimeout(() => {}, 0))", "for (;;) console.log()"])
async def test_what_a_script_says_in_one_step_keeps_the_host_s_memory_bounded(run: Run, code: str) -> None:
    tracemalloc.start()
    try:
        assert not (await run(code, SessionLimits(max_memory_bytes=64 * MIB))).ok
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= (64 + 64) * MIB  # the script's cap and 64 MiB


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("try { 'x'.repeat(2 ** 30) } catch (e) { return e.name }", "RangeError"),
        ("const a = [3, 2, 1]; a.sort(() => { a.length = 0; return NaN }); return a", []),
        ("try { [3, 2, 1].sort(() => { throw 'evil' }) } catch (e) { return e }", "evil"),
        (
            "const a = [...Array(99).keys()]; a.sort(() => { a.push(1); return a.length % 3 - 1 }); return a[0] >= 0",
            True,
        ),
        ("const a = [2, 1]; try { a.sort(() => (Object.freeze(a), 1)) } catch (e) { return e.name }", "TypeError"),
    ],
)
async def test_an_evil_comparator_or_length_harms_only_itself(run: Run, code: str, value: Any) -> None:
    assert (await run(code)).value == value


# -- shared and deep structure -----------------------------------------------------------------------------------------


async def test_shared_structure_is_bounded_wherever_it_goes(run: Run) -> None:
    limits = SessionLimits()
    caught = SHARED + "try { await callTool('echo', { x }) } catch (e) { return [e.code, e instanceof Error] }"
    assert (await run(caught, limits)).value == ["ARGUMENTS_TOO_LARGE", True]
    code, message = error_of(await run(SHARED + "return x", limits))
    assert (code, "larger than 5242880 bytes" in message) == ("EXECUTION_ERROR", True)
    assert len((await run(SHARED + "console.log(x); console.error({ x })", limits)).stdout) < 10_000
    assert error_of(await run(SHARED + "JSON.stringify(x)"))[0] in {"MEMORY_LIMIT", "CPU_LIMIT"}
    assert error_of(await run(SHARED + "throw x"))[0] == "EXECUTION_ERROR"


@pytest.mark.parametrize("make", DEEP.values(), ids=DEEP.keys())
async def test_what_is_nested_too_deep_is_an_error_of_that_script(run: Run, make: str) -> None:
    result = await run(make + "return x", ROOMY)
    assert error_of(result)[0] == "EXECUTION_ERROR"
    assert result.error is not None
    assert result.error.name == "RangeError"
    caught = await run(make + "try { await callTool('echo', { x }) } catch (e) { return e.name } return 'sent'", ROOMY)
    assert (caught.value, caught.calls) == ("RangeError", [])
    assert (await run(make + "console.log(x); console.warn({ x }); return 1", ROOMY)).value == 1
    assert error_of(await run(make + "throw x", ROOMY))[0] == "EXECUTION_ERROR"
    assert error_of(await run(make + DETAILED, ROOMY)) == ("EXECUTION_ERROR", "e")


@pytest.mark.parametrize("levels", [150, 250, 450, 498, 499, 500, 501, 700, 900, 950, 990, 1100])
async def test_every_depth_is_taken_or_refused_with_an_error(run: Run, levels: int) -> None:
    make = f"let x = 1; for (let i = 0; i < {levels}; i++) x = [x];"
    returned = await run(make + "return x")
    assert returned.ok or error_of(returned)[0] == "EXECUTION_ERROR"
    called = await run(
        make + "try { await callTool('echo', { x }); return 'sent' } catch (e) { return e.code ?? e.name }"
    )
    assert called.value in {"sent", "RangeError", "VALIDATION_ERROR"}
    assert error_of(await run(make + DETAILED)) == ("EXECUTION_ERROR", "e")


@pytest.mark.parametrize(
    "code",
    [
        "JSON.parse('['.repeat(1e5))",
        "const o = { toJSON() { return JSON.stringify({ o }) } }; JSON.stringify(o)",
        "new RegExp('(?:'.repeat(5e4) + ')'.repeat(5e4)).test('a')",
        "eval('let ' + '['.repeat(2e4) + 'a' + ']'.repeat(2e4) + '=1')",
        "let p = {}; for (let i = 0; i < 1e4; i++) p = new Proxy(p, {}); p.x",
        "const o = { toString() { return '' + o } }; '' + o",
        "const f = async () => await f(); await f()",
    ],
)
async def test_recursion_of_any_kind_can_be_caught_and_the_script_goes_on(run: Run, code: str) -> None:
    result = await run(f"try {{ {code} }} catch (e) {{ await callTool('echo', {{}}); return e.name }}", ROOMY)
    assert result.value in {"RangeError", "SyntaxError", "InternalError"}


# -- intrinsics and globals tampered with ------------------------------------------------------------------------------

TAMPERED = {
    "JSON": "JSON.stringify = JSON.parse = () => { throw 1 }; JSON = 5",
    "then": "Promise.prototype.then = () => { throw 1 }",
    "the iterator": "Array.prototype[Symbol.iterator] = () => { throw 1 }",
    "setters": """for (const name of ["code", "message", "name", "details", "value", "a", "0", "get", "then", "toJSON"])
        Object.defineProperty(Object.prototype, name, { __proto__: null, set() { throw 1 }, get() { } })""",
    "species": "Object.defineProperty(Array, Symbol.species, { get() { throw 1 } })",
    "constructors": "Promise = Error = TypeError = RangeError = Proxy = Array = Map = undefined",
    "callTool": "callTool = () => 'fake'; delete globalThis.callTool",
    "console": "console = new Proxy({}, { get() { throw 1 } })",
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED.keys())
async def test_a_script_that_tampers_breaks_nothing_but_itself(run: Run, tamper: str) -> None:
    code = "try { await tools.none({ a: [1] }) } catch (e) { return [await tools.echo({ a: [1] }), e.code, e.message] }"
    result = await run(f"{tamper}; {code}")
    assert result.value == [{"a": [1]}, "UNKNOWN_TOOL", "unknown tool 'none'; this session may call blob, echo, wait"]
    assert [(call.name, call.args) for call in result.calls] == [("none", {"a": [1]}), ("echo", {"a": [1]})]


async def test_a_replaced_global_is_the_script_s_own(run: Run) -> None:
    result = await run(
        "callTool = tools = () => 5; console = { log() {} }; console.log(1); return [callTool('a'), tools()]"
    )
    assert (result.value, result.calls, result.stdout) == ([5, 5], [], "")


# -- verdicts ----------------------------------------------------------------------------------------------------------

VERDICTS = {
    "CPU_LIMIT": ("for (;;) { }", SessionLimits(cpu_time=0.1)),
    "MEMORY_LIMIT": ("for (const a = []; ; ) a.push([...Array(1e4)])", SessionLimits(max_memory_bytes=8 * MIB)),
    "STDOUT_LIMIT": ("for (;;) console.log('line')", SessionLimits(max_stdout_bytes=1000)),
    "LOG_LIMIT": ("for (;;) await callTool('blob', {})", SessionLimits(max_log_bytes=50_000)),
    "SESSION_EXPIRED": ("await callTool('wait', {})", SessionLimits(timeout=0.2)),
    "DEADLINE_EXCEEDED": ("await callTool('wait', {})", SessionLimits(deadline=0.2)),
    "SESSION_CANCELLED": ("await callTool('wait', {})", SessionLimits()),
}


@pytest.mark.parametrize(("verdict", "case"), VERDICTS.items(), ids=VERDICTS.keys())
async def test_a_verdict_can_not_be_caught_and_closes_the_session(
    run: Run, house: Broker, verdict: str, case: tuple[str, SessionLimits]
) -> None:
    do, limits = case
    code = f"try {{ {do} }} catch {{ callTool('echo', {{}}) }} finally {{ callTool('echo', {{}}); for (;;) {{ }} }}"
    waiting.clear()
    session = await house.create_session(limits=limits)
    running = asyncio.ensure_future(session.execute(code))
    if verdict == "SESSION_CANCELLED":
        await waiting.wait()
        assert await session.cancel() is True
    result = await running
    assert result.error is not None
    assert (result.ok, result.error.code) == (False, verdict)
    assert "echo" not in {call.name for call in result.calls}
    assert session.state == ("cancelled" if verdict == "SESSION_CANCELLED" else "failed")
    with pytest.raises(SessionClosedError):
        await session.execute("return 1")


CATCHABLE = {
    "RangeError": "const f = () => f(); f()",
    "TIMER_LIMIT": "for (;;) setTimeout(() => {}, 1e6)",
    "ARGUMENTS_TOO_LARGE": "await callTool('echo', { a: 'x'.repeat(6e6) })",
    "MAX_TOOL_CALLS": "for (;;) await callTool('echo', {})",
    "UNKNOWN_TOOL": "await callTool('none', {})",
}


@pytest.mark.parametrize(("code", "script"), CATCHABLE.items(), ids=CATCHABLE.keys())
async def test_an_error_that_can_be_caught_lets_script_and_session_go_on(
    run: Run, house: Broker, code: str, script: str
) -> None:
    session = await house.create_session()
    async with session:
        caught = await session.execute(f"try {{ {script} }} catch (e) {{ return e.code ?? e.name }}")
        assert caught.value == code
        assert error_of(await session.execute(script))[0] == ("EXECUTION_ERROR" if code == "RangeError" else code)
        assert (await session.execute("return 2")).value == 2

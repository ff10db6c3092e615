from __future__ import annotations

import pytest

from enclave_broker.core.javascript import Engine
from enclave_broker.types.messages import Verdict
from tests.core.support import Limits, Script, fired, fulfilled, run, start_body, value_of

DOUBLING = "let x = [1]; for (let i = 0; i < 45; i++) x = [x, x];"


def test_shared_structure_is_stopped_while_the_arguments_are_made(engine: Engine) -> None:
    script = run(engine, DOUBLING + "try { await callTool('a', { x }) } catch (e) { return [e.code, e.message] }")
    assert script.value == ["ARGUMENTS_TOO_LARGE", "the call's arguments are larger than 5242880 bytes"]
    assert script.calls == []


def test_shared_structure_is_stopped_while_the_result_is_made(engine: Engine) -> None:
    error = run(engine, DOUBLING + "return x").error
    assert (error["code"], error["message"]) == ("EXECUTION_ERROR", "the script's result is larger than 5242880 bytes")


@pytest.mark.parametrize(
    "value", ["new Array(4e9)", "'x'.repeat(1001)", "new Set([1, 'x'.repeat(1000)])", "10n ** 2000n"]
)
def test_arguments_and_results_keep_to_their_own_limits(engine: Engine, value: str) -> None:
    limits: Limits = {"max_args_bytes": 1000, "max_result_bytes": 1000}
    code = f"const v = {value}; try {{ await callTool('a', {{ v }}) }} catch (e) {{ console.log(e.code) }} return v"
    script = run(engine, code, **limits)
    assert script.output == ["ARGUMENTS_TOO_LARGE"]
    assert "larger than 1000 bytes" in script.error["message"]


def test_a_limit_is_met_to_the_byte(engine: Engine) -> None:
    assert value_of(engine, "return 'x'.repeat(98)", max_result_bytes=100) == "x" * 98
    assert run(engine, "return 'x'.repeat(99)", max_result_bytes=100).of_kind(6)
    assert value_of(engine, "return 'é'.repeat(49)", max_result_bytes=100) == "é" * 49
    assert run(engine, "return 'é'.repeat(50)", max_result_bytes=100).of_kind(6)


def test_a_long_name_counts_as_arguments(engine: Engine) -> None:
    code = "try { await callTool('n'.repeat(2000)) } catch (e) { return e.code }"
    assert value_of(engine, code, max_args_bytes=1000) == "ARGUMENTS_TOO_LARGE"


def test_more_calls_than_allowed_are_rejected_and_can_be_caught(engine: Engine) -> None:
    code = """
        const all = await Promise.allSettled([1, 2, 3].map(() => tools.t()));
        return all.map((r) => r.reason?.code ?? r.value)"""
    script = Script(engine, code, max_calls=2)
    assert len(script.calls) == 2
    script.deliver(fulfilled(1, "a"), fulfilled(2, "b"))
    assert script.value == ["a", "b", "MAX_TOOL_CALLS"]


def test_an_uncaught_limit_is_the_script_s_failure_with_its_position(engine: Engine) -> None:
    error = run(engine, "\nawait callTool('a')", max_calls=0).error
    assert (error["code"], error["line"]) == ("MAX_TOOL_CALLS", 2)


def test_more_timers_than_allowed_can_be_caught(engine: Engine) -> None:
    code = """
        setTimeout(() => {}, 1); sleep(2);
        const seen = [];
        try { setTimeout(() => {}, 3) } catch (e) { seen.push(e.code) }
        try { setInterval(() => {}, 3) } catch (e) { seen.push(e.code) }
        await sleep(3).catch((e) => seen.push(e.code));
        return seen"""
    script = run(engine, code, max_timers=2)
    assert script.value == ["TIMER_LIMIT"] * 3
    assert script.of_kind(3) == [[3, 1, 1], [3, 2, 2]]


def test_timers_set_in_one_step_are_bounded_even_if_they_are_cleared(engine: Engine) -> None:
    code = """
        const flood = () => {
            for (let i = 0; ; i++)
                try { clearTimeout(setTimeout(() => {}, 0)) } catch (e) { return [i, e.code, e.message] }
        };
        const first = flood(), again = flood();
        await callTool("a");
        return [first, again[0], flood()[0]]"""
    script = Script(engine, code, max_timers=2)
    assert len(script.of_kind(3)) == len(script.of_kind(4)) == 32
    script.deliver(fulfilled(1))
    message = "more than 16 x max_timers (2) timers set in one step"
    assert script.value == [[32, "TIMER_LIMIT", message], 0, 32]


def test_inputs_that_come_together_are_steps_of_their_own(engine: Engine) -> None:
    code = """
        const each = async () => {
            await callTool("a");
            for (let i = 0; i < 30; i++) clearTimeout(setTimeout(() => {}, 0)), Promise.reject(i);
        };
        await Promise.all([each(), each()]); return "done" """
    script = Script(engine, code, max_timers=2)
    script.deliver(fulfilled(1), fulfilled(2))
    assert script.value == "done"
    assert [text for _, text in script.of_kind(8)].count("and 10 more") == 2


@pytest.mark.parametrize("argument", ["", "1", "99", "'x'", "{}", "-1", "NaN", "id"])
def test_clearing_what_is_no_timer_any_more_makes_no_record(engine: Engine, argument: str) -> None:
    code = (
        f"const id = setTimeout(() => {{}}, 5); clearTimeout(id); for (let i = 0; i < 9; i++) clearTimeout({argument})"
    )
    assert run(engine, code).of_kind(4) == [[4, 1]]


def test_a_timer_that_has_fired_makes_room(engine: Engine) -> None:
    script = Script(engine, "for (let i = 0; i < 3; i++) await sleep(i); return 'done'", max_timers=1)
    for id in (1, 2, 3):
        script.deliver(fired(id))
    assert script.value == "done"


def test_output_beyond_its_limit_ends_the_script_with_what_fitted(engine: Engine) -> None:
    code = "try { for (let i = 0; ; i++) console.log('0123456789') } catch { } finally { console.log('never') }"
    script = run(engine, code, max_stdout_bytes=25)
    assert (script.verdict, script.ended) == (Verdict.STDOUT_LIMIT, True)
    assert script.output == ["0123456789", "012345678"]


@pytest.mark.parametrize(("text", "kept"), [("abcé", "abc"), ("abc😀", "abc"), ("abcd😀", "abcd")])
def test_output_is_cut_between_characters(engine: Engine, text: str, kept: str) -> None:
    assert run(engine, f"console.error('{text}')", max_stdout_bytes=4).output == [kept]


def test_output_may_fill_its_limit_with_its_newline(engine: Engine) -> None:
    assert run(engine, "console.log('x'.repeat(19))", max_stdout_bytes=20).verdict == Verdict.NONE
    assert run(engine, "console.log('x'.repeat(20))", max_stdout_bytes=20).verdict == Verdict.STDOUT_LIMIT


@pytest.mark.parametrize("text", ["", "a", "x" * 15])
def test_a_short_line_counts_as_much_as_one_of_sixteen_bytes(engine: Engine, text: str) -> None:
    script = run(engine, f"for (;;) console.log('{text}')", max_stdout_bytes=160)
    assert (script.verdict, script.output) == (Verdict.STDOUT_LIMIT, [*[text] * 10, ""])


def test_rejections_that_nobody_awaits_are_reported_up_to_twenty_a_step_and_end_no_run(engine: Engine) -> None:
    code = """
        for (let i = 0; i < 1e4; i++) callTool("a", { i });
        await callTool("b").catch(() => {});
        for (let i = 0; i < 21; i++) Promise.reject(new Error("x".repeat(5000) + i));
        return "over" """
    script = run(engine, code, max_calls=0, max_stdout_bytes=10)
    assert (script.value, script.verdict) == ("over", Verdict.NONE)
    texts = [text for _, text in script.of_kind(8)]
    assert texts[:20] == ["ToolError: a script may make 0 tool calls, no more"] * 20
    assert texts[20:] == ["and 10001 more"]


@pytest.mark.parametrize(
    "code",
    [
        "const x = 'x'.repeat(5e8); console.log([x, x])",
        "for (;;) console.log()",
        "let x = [1]; for (let i = 0; i < 45; i++) x = { x, y: x }; for (;;) console.log(x)",
        "for (;;) Promise.reject(new Error('x'.repeat(1000)))",
        "console.log(new Array(4e9))\nfor (;;) console.log(new Array(4e9))",
    ],
)
def test_no_output_gets_round_its_limit(engine: Engine, code: str) -> None:
    script = run(engine, code)
    assert script.verdict in {Verdict.STDOUT_LIMIT, Verdict.MEMORY_LIMIT}
    assert sum(map(len, script.raw)) < 4 << 20


@pytest.mark.parametrize(
    "code",
    [
        "const all = []; for (;;) { try { all.push(new Array(1e5).fill(1)) } catch { } }",
        "let s = 'x'; for (;;) { try { s += s } catch { s = s + 'y'.repeat(1e8) } }",
        "const all = []; for (;;) { try { all.push(new ArrayBuffer(1e8)) } catch { } }",
        "const all = []; for (;;) all.push(new Uint8Array(1e6).fill(1))",
        "const m = new Map(); for (let i = 0; ; i++) m.set(i, { i })",
        "let p = {}; for (;;) p = { p, x: 'y'.repeat(100) }",
        "for (;;) { try { new Array(2 ** 28).fill(0) } catch { } }",
        "for (;;) setTimeout(() => {}) && clearTimeout(0), callTool('x', { a: 'x'.repeat(1e6) })",
        "const all = []; for (;;) all.push('ab'.repeat(1e5).match(/a|b/g), [...'x'.repeat(1e5)])",
        "/^(a|ab)*$/.test('ab'.repeat(5e6))",
        "async function f() { await f() } f(); for (const all = []; ;) all.push(new Promise((r) => r([...Array(9)])))",
    ],
)
def test_memory_beyond_the_limit_ends_the_script_whatever_it_catches(engine: Engine, code: str) -> None:
    script = run(engine, "console.log('begun');" + code, max_memory_bytes=16 << 20, max_calls=1 << 30)
    assert (script.verdict, script.ended) == (Verdict.MEMORY_LIMIT, True)
    assert script.output == ["begun"]


def test_an_input_too_large_for_the_memory_ends_the_script(engine: Engine) -> None:
    script = Script(engine, "await callTool('a')", max_memory_bytes=8 << 20)
    script.deliver(fulfilled(1, "x" * (16 << 20)))
    assert (script.verdict, script.ended) == (Verdict.MEMORY_LIMIT, True)


def test_memory_never_grows_beyond_the_limit(engine: Engine) -> None:
    instance = engine.instantiate(8 << 20)
    step = instance.start(
        start_body("const a = new Array(3e5).fill(1); await callTool('a')", {"max_memory_bytes": 8 << 20})
    )
    while step is None:
        step = instance.resume()
    assert step.verdict == Verdict.NONE
    assert 4 << 20 < instance.memory_bytes() <= 8 << 20
    instance.close()


def test_a_host_that_has_less_memory_than_allowed_is_told_apart(engine: Engine) -> None:
    instance = engine.instantiate(8 << 20)
    step = instance.start(
        start_body("const all = []; for (;;) all.push(new Array(1e4).fill(1))", {"max_memory_bytes": 64 << 20})
    )
    while step is None:
        step = instance.resume()
    assert (step.verdict, step.ended) == (Verdict.HOST_MEMORY, True)


def test_what_was_done_before_a_trap_is_kept_and_valid(engine: Engine) -> None:
    code = "console.log('a'); tools.t({ n: 1 }); setTimeout(() => {}, 5); for (const a = []; ;) a.push('x'.repeat(1e5))"
    script = run(engine, code, max_memory_bytes=16 << 20)
    assert script.effects == [[2, 0, "a"], [1, 1, "t", {"n": 1}], [3, 1, 5]]


def test_a_limit_below_the_image_s_own_memory_still_starts(engine: Engine) -> None:
    assert value_of(engine, "return 1", max_memory_bytes=1) == 1

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.terminal import COMMAND, command, environment


def test_the_value_is_json_on_stdout_and_the_calls_are_on_stderr(shop: Path) -> None:
    code = 'const o = await tools.orders.search({ region: "EU" }); return { n: o.length, sum: o[0].total + o[1].total }'
    done = command("run", "-e", code, folder=shop)
    assert (done.code, done.out) == (0, '{"n": 2, "sum": 165}\n')
    assert done.err.startswith('  orders:search {"region":"EU"}  ok  2 items  ')
    assert done.err.count("\n") == 1


def test_what_a_script_prints_is_on_stdout_before_its_value(folder: Path) -> None:
    done = command("run", "-e", 'console.log("one\\ntwo", { a: 1 }); console.info("three"); return null', folder=folder)
    assert done.out.splitlines()[0] == "one"
    assert done.out.splitlines()[-2:] == ["three", "null"]
    assert (done.code, done.err) == (0, "")


def test_warnings_and_errors_that_a_script_prints_are_on_stderr(folder: Path) -> None:
    done = command("run", "-e", 'console.debug("d"); console.warn("w"); console.error("e")', folder=folder)
    assert (done.code, done.out, done.err) == (0, "", "[debug] d\n[warn] w\n[error] e\n")


def test_undefined_prints_nothing(folder: Path) -> None:
    done = command("run", "-e", "const a = 1", folder=folder)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_failing_script_shows_its_place_and_exits_with_1(folder: Path) -> None:
    (folder / "report.js").write_text("const n = 1;\n\treturn n.total.sum;\n", encoding="utf-8")
    done = command("run", "report.js", folder=folder)
    assert (done.code, done.out) == (1, "")
    first, place, line, caret = done.err.splitlines()
    assert first.startswith("error EXECUTION_ERROR: TypeError: ")
    name, column = place.rsplit(":", 1)
    assert (name, line) == ("  report.js:2", "    2 |  return n.total.sum;")
    assert caret == "      | " + " " * (int(column) - 1) + "^"


def test_a_syntax_error_shows_its_place(folder: Path) -> None:
    done = command("run", "-e", "return 1;\nlet a = ;", folder=folder)
    assert done.code == 1
    assert done.err.splitlines()[0].startswith("error SYNTAX_ERROR: ")
    assert done.err.splitlines()[1:] == ["  script.js:2:9", "    2 | let a = ;", "      |         ^"]


def test_an_error_in_a_function_shows_who_called_it(folder: Path) -> None:
    done = command("run", "-e", 'function inner() { throw new Error("boom") }\ninner()', folder=folder)
    assert done.err.splitlines()[0] == "error EXECUTION_ERROR: boom"
    assert done.err.splitlines()[-1].startswith("    at script.js:2:")


def test_a_limit_ends_the_run_and_shows_which_calls_are_in_doubt(shop: Path) -> None:
    code = "tools.hang({}); await tools.whoami({}); const held = []; for (;;) held.push(new Uint8Array(1 << 20))"
    done = command("run", "-e", code, folder=shop)
    assert done.code == 1
    first, second, error = done.err.splitlines()
    assert first.startswith("  whoami {}  ok  ")
    assert second == "  hang {}  in doubt: it had started, and nobody knows how it ended"
    assert error.startswith("error MEMORY_LIMIT: ")


def test_a_failed_call_shows_its_code_and_message(shop: Path) -> None:
    done = command("run", "-e", "try { await tools.orders.get({ id: 9 }) } catch (e) { return e.code }", folder=shop)
    assert (done.code, done.out) == (0, '"NO_SUCH_ORDER"\n')
    assert '  orders:get {"id":9}  NO_SUCH_ORDER  no order 9  ' in done.err


def test_a_bug_in_a_tool_shows_the_apps_own_traceback(shop: Path) -> None:
    done = command("run", "-e", "await tools.crash({})", folder=shop)
    assert done.code == 1
    assert "ValueError: a bug of the app's" in done.err
    files = [line.split('"')[1] for line in done.err.splitlines() if line.startswith('      File "')]
    assert files == [str(shop / "app.py")]


def test_what_the_app_prints_does_not_come_between_script_and_reader(shop: Path) -> None:
    done = command("run", "-e", "return await tools.orders.get({ id: 2 })", folder=shop)
    assert done.out == "2\n"
    assert "looking for 2\n" in done.err


def test_a_script_comes_from_stdin(folder: Path) -> None:
    done = command("run", "-", folder=folder, stdin="\ufeffreturn 'Grüße'".encode())
    assert (done.code, done.out) == (0, '"Grüße"\n')


def test_only_allowed_tools_can_be_called(shop: Path) -> None:
    code = "try { await tools.crash({}) } catch (e) { console.log(e.code) } return await tools.orders.get({ id: 1 })"
    done = command("run", "-e", code, "--allow", "orders:*", "--allow", "x", folder=shop)
    assert (done.code, done.out) == (0, "TOOL_NOT_ALLOWED\n1\n")


def test_tools_see_who_is_asking(shop: Path) -> None:
    done = command(
        "run", "-e", "return await tools.whoami({})", "--as", "bob", "--role", "b", "--role", "a", folder=shop
    )
    assert done.out == '["bob", "a", "b"]\n'


def test_a_seed_fixes_randomness_and_ids(shop: Path) -> None:
    code = "await tools.whoami({}); return [Math.random(), Math.random()]"

    def outcome(*options: str) -> tuple[object, str]:
        events = [
            json.loads(line) for line in command("run", "-e", code, "--json", *options, folder=shop).out.splitlines()
        ]
        call = next(event["payload"]["callId"] for event in events if event["type"] == "tool_call")
        return events[-1]["payload"]["result"], call

    first = outcome("--seed", "7")
    assert outcome("--seed", "7") == first
    assert outcome("--seed", "8") != first
    assert outcome() != first


def test_json_prints_each_event_of_the_wire_and_nothing_else(shop: Path) -> None:
    done = command("run", "--json", "-e", 'console.log("\\u009bx"); await tools.orders.get({ id: 1 })', folder=shop)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events if event["type"] != "tool_progress"] == [
        "session_init",
        "stdout",
        "tool_call",
        "tool_result_applied",
        "final",
    ]
    assert events[1]["payload"] == {"chunk": "\x9bx\n"}
    assert "\x9b" not in done.out
    assert (done.code, done.err) == (0, "looking for 1\n")


def test_a_failure_shows_in_json_and_in_the_exit_code(folder: Path) -> None:
    done = command("run", "--json", "-e", "throw new Error('x')", folder=folder)
    assert json.loads(done.out.splitlines()[-1])["payload"]["ok"] is False
    assert (done.code, done.err) == (1, "")


def test_nothing_that_a_script_or_a_tool_says_can_drive_a_terminal(shop: Path) -> None:
    evil = "\\u001b]0;x\\u0007\\r\\u009b2J\\u202e"
    prints = f'console.log("{evil}"); console.warn("{evil}"); await tools.talk({{}})'
    calls = f'try {{ await callTool("{evil}", {{ "{evil}": 1 }}) }} catch {{}}'
    code = f'{prints}; {calls}\nthrow new Error("{evil}")'
    done = command("run", "-e", code, folder=shop)
    value = command("run", "-e", f'return {{ "{evil}": "{evil}" }}', folder=shop)
    assert json.loads(value.out) == {"\x1b]0;x\x07\r\x9b2J\u202e": "\x1b]0;x\x07\r\x9b2J\u202e"}
    assert "evil \\x1b[2J" in done.err
    for text in (done.out, done.err, value.out):
        assert text
        assert not set(text) & set("\x1b\x07\r\x9b\u202e")


def test_a_weak_sandbox_may_be_asked_for(shop: Path) -> None:
    done = command("run", "--weak-sandbox", "-e", "return await tools.orders.get({ id: 1 })", folder=shop)
    assert (done.code, done.out) == (0, "1\n")


def test_costs_are_told_when_asked_for(folder: Path) -> None:
    done = command("run", "-v", "-e", 'console.log("hi")', folder=folder)
    assert done.err.endswith(" CPU · 0 calls · 3 bytes printed\n")


def test_a_reader_that_goes_away_ends_the_run_without_a_traceback(folder: Path) -> None:
    code = 'for (;;) { console.log("x".repeat(1000)); await sleep(1) }'
    with subprocess.Popen(
        [*COMMAND, "run", "-e", code], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"x" * 1000 + b"\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run takes a script"),
        (["a.js", "-e", "1"], "run takes a script"),
        (["nowhere.js"], "nowhere.js: No such file"),
        (["latin.js"], "latin.js:2: a script is UTF-8, and byte 0xff here isn't"),
        (["app.py"], "app.py is Python"),
        (["-e", "1", "--role", "admin"], "--as SUBJECT"),
        (["-e", "1", "--as", ""], "subject"),
        (["-e", "1", "--timeout", "0"], "timeout must be more than 0"),
        (["-e", "1", "--timeout", "soon"], "invalid float value: 'soon'"),
        (["-e", "1", "--seed", "x"], "invalid int value: 'x'"),
        (["-e", "1", "--allow", "[a"], "[a"),
        (["-e", "1", "--language", "python"], "language 'python' is not here"),
        (["-e", "1", "--colour"], "--colour"),
    ],
)
def test_what_cannot_be_done_as_given_exits_with_2_and_says_why(shop: Path, arguments: list[str], message: str) -> None:
    (shop / "latin.js").write_bytes(b"return\n'\xff'")
    done = command("run", *arguments, folder=shop)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""

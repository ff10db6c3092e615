from __future__ import annotations

import re
from pathlib import Path

from tests.cli.terminal import terminal

CALL = "await tools.orders.search({ region: 'EU' })"


def test_a_terminal_gets_colours(shop: Path) -> None:
    with terminal("run", "-e", f"{CALL}; throw new Error('no')", folder=shop) as screen:
        assert screen.end() == 1
    assert "\x1b[32mok\x1b[0m" in screen.shown
    assert "\x1b[31merror EXECUTION_ERROR:\x1b[0m" in screen.shown


def test_no_color_is_honoured(shop: Path) -> None:
    with terminal("run", "-e", f"{CALL}; throw new Error('no')", folder=shop, environ={"NO_COLOR": "1"}) as screen:
        assert screen.end() == 1
    assert not re.search(r"\x1b\[[0-9;]*m", screen.shown)


def test_a_dumb_terminal_gets_no_control_sequence(shop: Path) -> None:
    with terminal("run", "-e", CALL, folder=shop, environ={"TERM": "dumb"}) as screen:
        assert screen.end() == 0
    assert "\x1b" not in screen.shown


def test_a_terminal_shows_calls_output_value_and_costs_in_their_order(shop: Path) -> None:
    with terminal("run", "-e", f"console.log('before'); const o = {CALL}; return o.length", folder=shop) as screen:
        assert screen.end() == 0
    lines = screen.lines
    assert lines[0] == "before"
    assert lines[1].startswith('  orders:search {"region":"EU"}  ok  2 items  ')
    assert lines[2] == "2"
    assert lines[3].endswith(" CPU · 1 call · 7 bytes printed")
    assert len(lines) == 4


def test_a_call_under_way_is_shown_until_it_has_its_outcome(shop: Path) -> None:
    code = "await Promise.all([tools.hang({}), tools.hang({}), tools.whoami({})])"
    with terminal("run", "-e", code, folder=shop) as screen:
        screen.wait_for("  hang {} …  and 1 other call")
        screen.wait_for("\x1b[32mok")
        screen.press(b"\x03")
        assert screen.end() == 130
    assert [line.split("  ")[1] for line in screen.lines if line.startswith("  ")] == [
        "whoami {}",
        "hang {}",
        "hang {}",
    ]
    assert not any("…" in line for line in screen.lines)


def test_ctrl_c_cancels_the_run_and_says_so(shop: Path) -> None:
    with terminal("run", "-e", "await tools.hang({})", folder=shop) as screen:
        screen.wait_for("  hang {} …")
        screen.press(b"\x03")
        assert screen.end() == 130
    assert "error SESSION_CANCELLED: interrupted at the terminal (Ctrl-C)" in screen.lines
    assert any(line.startswith("  hang {}  in doubt: ") for line in screen.lines)
    assert "Traceback" not in screen.shown


def test_ctrl_c_ends_a_script_that_computes_for_ever(folder: Path) -> None:
    with terminal("run", "-e", "console.log('up'); await sleep(1); for (;;) {}", folder=folder) as screen:
        screen.wait_for("up")
        screen.press(b"\x03")
        assert screen.end() == 130
    assert "error SESSION_CANCELLED: interrupted at the terminal (Ctrl-C)" in screen.lines


def test_ctrl_c_ends_a_call_of_a_tool(shop: Path) -> None:
    app = shop / "app.py"
    app.write_text(
        app.read_text("utf-8").replace("await asyncio.Event", "print('hanging'); await asyncio.Event"), "utf-8"
    )
    with terminal("tools", "call", "hang", folder=shop) as screen:
        screen.wait_for("hanging\r\n")
        screen.press(b"\x03")
        assert screen.end() == 130
    assert screen.lines == ["hanging", "interrupted"]


def test_ctrl_c_while_an_app_is_loaded_ends_it_without_a_traceback(folder: Path) -> None:
    app = "import threading\nprint('loading', flush=True)\nthreading.Event().wait()\n"
    (folder / "app.py").write_text(app, encoding="utf-8")
    with terminal("run", "-e", "1", folder=folder) as screen:
        screen.wait_for("loading\r\n")
        screen.press(b"\x03")
        assert screen.end() == 130
    assert screen.lines[-1] == "interrupted"
    assert "Traceback" not in screen.shown


def test_a_value_too_wide_for_the_terminal_is_laid_out_in_lines(folder: Path) -> None:
    code = "return { long: 'x'.repeat(60), list: [1] }"
    with terminal("run", "-e", code, folder=folder, environ={"COLUMNS": "60"}) as screen:
        assert screen.end() == 0
    assert screen.lines[:6] == ["{", '  "long": "' + "x" * 60 + '",', '  "list": [', "    1", "  ]", "}"]

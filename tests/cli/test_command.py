from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.terminal import command, environment


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["tools"], ["tools", "list"], ["tools", "describe"], ["tools", "call"], ["doctor"]]
)
def test_every_command_has_a_help(folder: Path, arguments: list[str]) -> None:
    done = command(*arguments, "--help", folder=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: {' '.join(['enclave-broker', *arguments])}")
    assert "exit codes:" in done.out


def test_help_loads_nothing_that_takes_time(folder: Path) -> None:
    code = (
        "import sys, enclave_broker.cli\n"
        "try:\n    enclave_broker.cli.main(['run', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "slow = {'asyncio', 'pydantic', 'rich', 'wasmtime'} & set(sys.modules)\n"
        "print(sorted(slow), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, check=True, text=True
    )
    assert done.stderr == "[]\n"


def test_without_a_command_the_help_is_shown_and_it_fails(folder: Path) -> None:
    done = command(folder=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: enclave-broker")


def test_version_is_one_line(folder: Path) -> None:
    done = command("--version", folder=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("enclave-broker ")
    assert done.out.count("\n") == 1


def test_an_unknown_command_exits_with_2(folder: Path) -> None:
    done = command("walk", folder=folder)
    assert done.code == 2
    assert "'walk'" in done.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ENCLAVE_BROKER_TIMEOUT=soon", ".env: ENCLAVE_BROKER_TIMEOUT is a number of seconds, not 'soon'"),
        ("ENCLAVE_BROKER_MAX_TOOL_CALLS=1.5", ".env: ENCLAVE_BROKER_MAX_TOOL_CALLS is a whole number, not '1.5'"),
        ("ENCLAVE_BROKER_LOG_LEVEL=loud", ".env: ENCLAVE_BROKER_LOG_LEVEL is one of DEBUG, "),
    ],
)
def test_a_setting_that_is_wrong_says_where_it_stands(folder: Path, setting: str, message: str) -> None:
    (folder / ".env").write_text(setting, encoding="utf-8")
    done = command("run", "-e", "1", folder=folder)
    assert done.code == 2
    assert message in done.err


def test_settings_bound_a_run_and_a_flag_goes_first(shop: Path) -> None:
    environ = {"ENCLAVE_BROKER_TIMEOUT": "0.1", "ENCLAVE_BROKER_MAX_TOOL_CALLS": "1"}
    assert "timeout of 0.1 s" in command("run", "-e", "await tools.hang({})", folder=shop, environ=environ).err
    code = "await tools.whoami({}); await tools.whoami({})"
    done = command("run", "--timeout", "60", "-e", code, folder=shop, environ=environ)
    assert "error MAX_TOOL_CALLS" in done.err

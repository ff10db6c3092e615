from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import SHOP, Finished, command

BROKER = "from enclave_broker import Broker\n"


def run(folder: Path, *options: str, environ: dict[str, str] | None = None) -> Finished:
    return command("tools", "list", *options, folder=folder, environ=environ)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def one_tool(name: str) -> str:
    return f'{BROKER}broker = Broker()\n\n@broker.tool\ndef {name}() -> None:\n    """It is {name}."""\n'


@pytest.mark.parametrize(
    "spec", ["shop.py", "shop.py:broker", "shop:broker", "./shop.py", "sub/other.py", "sub.other:broker"]
)
def test_an_app_is_a_file_a_name_in_a_file_or_a_name_in_a_module(folder: Path, spec: str) -> None:
    (folder / "sub").mkdir()
    write(folder, shop=one_tool("ping"))
    write(folder / "sub", other=one_tool("ping"))
    done = run(folder, "--app", spec)
    assert (done.code, done.out, done.err) == (0, "ping  write       It is ping.\n", "")


def test_an_app_is_found_by_flag_then_environment_then_dotenv_then_here(folder: Path) -> None:
    write(folder, app=one_tool("here"), dotenv=one_tool("dotenv"), variable=one_tool("variable"), flag=one_tool("flag"))

    def found(*options: str, environ: dict[str, str] | None = None) -> str:
        return run(folder, *options, environ=environ).out.split()[0]

    assert found() == "here"
    (folder / ".env").write_text(
        "OTHER=1\n# ENCLAVE_BROKER_APP=no.py\nexport ENCLAVE_BROKER_APP='dotenv.py'\n", "utf-8"
    )
    assert found() == "dotenv"
    assert found(environ={"ENCLAVE_BROKER_APP": "variable:broker"}) == "variable"
    assert found("--app", "flag.py", environ={"ENCLAVE_BROKER_APP": "variable:broker"}) == "flag"


def test_without_an_app_a_script_runs_without_tools(folder: Path) -> None:
    done = command("run", "-e", "return 1 + 1", folder=folder)
    assert (done.code, done.out) == (0, "2\n")


def test_without_an_app_there_are_no_tools_to_tell_about(folder: Path) -> None:
    done = run(folder)
    assert done.code == 2
    assert "no app: name one with --app" in done.err


def test_an_app_is_imported_as_python_would_run_it(folder: Path) -> None:
    away = folder / "away"
    away.mkdir()
    write(away, neighbour="import app\nname = app.__name__\n")
    asserts = "import sys\nassert sys.argv == ['away/app.py'], sys.argv\nassert __name__ == 'app'\n"
    write(away, app=asserts + one_tool("ping") + "import neighbour\nassert neighbour.app is sys.modules[__name__]\n")
    done = run(folder, "--app", "away/app.py")
    assert (done.code, done.err) == (0, "")


def test_a_file_may_be_called_like_a_module_of_the_standard_library(folder: Path) -> None:
    write(folder, code=one_tool("ping"))
    assert run(folder, "--app", "code.py").out.startswith("ping")


def test_what_an_app_prints_while_it_is_loaded_stays_off_stdout(folder: Path) -> None:
    write(folder, app="print('hello')\n" + one_tool("ping"))
    done = run(folder)
    assert (done.out, done.err) == ("ping  write       It is ping.\n", "hello\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = (1,\n", "app.py:1: SyntaxError: '(' was never closed\n    1 | x = (1,\n      |     ^\n"),
        ("a = 1\nb = a.nope\n", "app.py:2: AttributeError: 'int' object has no attribute 'nope'\n    2 | b = a.nope\n"),
        ("import broken\n", "broken.py:2: NameError: name 'y' is not defined\n    2 |     return y\n"),
        ("import missing_thing\n", "app.py:1: ModuleNotFoundError: No module named 'missing_thing'\n"),
        (
            "import sys\nsys.exit(0)\n",
            "app.py ends while it is imported: put what it does as a program below `if __name__",
        ),
        (f"{BROKER}b = Broker()\n\n@b.tool('a b')\ndef x() -> None: ...\n", "app.py:4: 'a b' can't be a tool's name: "),
        (f"{BROKER}b = Broker(limit=1)\n", "app.py:2: TypeError: "),
        ("x = 1\n", "app.py has no Broker: `broker = Broker()` is what it needs"),
        (f"{BROKER}a = Broker()\nb = Broker()\n", "more than one Broker: say which, as app.py:a or app.py:b"),
    ],
)
def test_a_broken_app_is_told_by_its_own_file_and_line(folder: Path, source: str, message: str) -> None:
    write(folder, app=source, broken="def f():\n    return y\nf()\n")
    done = run(folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "Traceback" not in done.err
    assert "enclave_broker/" not in done.err


def test_a_broken_app_shows_the_whole_traceback_when_asked_for(folder: Path) -> None:
    write(folder, app="1 / 0\n")
    done = run(folder, "-v")
    assert done.code == 2
    assert "Traceback" in done.err


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nope.py", "nope.py: no such file; APP is file.py, file.py:name or module:name"),
        ("folder.py", "folder.py: a folder, not a file"),
        ("shop", "not 'shop'; did you mean shop.py?"),
        ("shop.py:", "APP is file.py, file.py:name or module:name, not 'shop.py:'"),
        ("nope:broker", "there is no module nope in "),
        ("shop.nope:broker", "there is no module shop.nope in "),
        ("shop.py:broke", "shop.py:broke isn't there; a Broker is in: broker"),
        ("shop:search", "shop:search is of type function, not a Broker; a Broker is in: broker"),
    ],
)
def test_an_app_that_is_not_there_says_what_would_be_right(folder: Path, spec: str, message: str) -> None:
    (folder / "folder.py").mkdir()
    write(folder, shop=SHOP)
    done = run(folder, "--app", spec)
    assert done.code == 2
    assert message in done.err


def test_an_app_that_has_used_its_broker_already_can_be_run(folder: Path) -> None:
    app = one_tool("ping") + "assert broker.execute_sync('return 1').value == 1\n"
    write(folder, app=app)
    done = command("run", "-e", "await tools.ping({}); return 2", folder=folder)
    assert (done.code, done.out) == (0, "2\n")
    assert "  ping {}  ok  null  " in done.err


def test_an_app_that_is_no_text_is_told(folder: Path) -> None:
    (folder / "app.py").write_bytes(b"x = '\xff'\n")
    done = run(folder)
    assert done.code == 2
    assert done.err.startswith("error: app.py")
    assert "Traceback" not in done.err

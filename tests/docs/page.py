"""Does what a page of the documentation shows, in the current folder: `python page.py PAGE APP_PAGE`.

Blocks run in their order. A python block that begins `# app.py` is written to that file; others share one namespace,
and what they print has to be what stands behind `print(...)  # ` or in `# prints …` lines. A js block is a script for
the page's app, or for that of APP_PAGE: `// → ` begins its value's JSON, a jsonl block behind it is its events. Of a
console block every command is run, and the output compared, durations aside (commands.py); a javascript block is a
client's. Tables with known heads are run row by row. `…` stands for anything.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from enclave_broker import Broker, ExecutionResult, SessionLimits
from tests.docs.commands import Commands, demand

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\|(.*)\|$")
TIMES = re.compile(r'(?<=(?:elapsedM|urationM)s": )[\d.]+')
SHOWN = re.compile(r"^\s*print\(.*\)  # (.+)$|^# prints (.+)$", re.MULTILINE)


class Block(NamedTuple):
    language: str
    text: str
    line: int
    """Of its first line in the page."""


def blocks(page: str) -> Iterator[Block]:
    for match in FENCE.finditer(page):
        yield Block(match[1], match[2], page.count("\n", 0, match.start(2)) + 1)


def tables(page: str) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Each table's head and rows, cells without their backquotes."""
    rows: list[tuple[str, ...]] = []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|---"):
            continue
        if match := ROW.match(line):
            cells = re.split(r"(?<!\\)\|", match[1])
            rows.append(tuple(cell.strip().strip("`").replace(r"\|", "|") for cell in cells))
        elif rows:
            yield rows[0], rows[1:]
            rows = []


class Page:
    """What is shared by the blocks of one page."""

    def __init__(self, app: str, runner: asyncio.Runner) -> None:
        self._namespace: dict[str, Any] = {"__name__": "page"}
        self._app = app
        self._runner = runner
        self._last_script = ""
        self.commands = Commands()

    @property
    def broker(self) -> Broker:
        self._write_app()
        return importlib.import_module("app").broker

    def _write_app(self) -> None:
        if not Path("app.py").exists():
            Path("app.py").write_text(self._app, encoding="utf-8")

    def do(self, block: Block) -> None:
        match block.language:
            case "python" if named := re.match(r"# (\w+\.py)\n", block.text):
                Path(named[1]).write_text(block.text, encoding="utf-8")
            case "python":
                self._python(block)
            case "js":
                self._last_script = block.text
                self._script(block.text)
            case "jsonl":
                self._events(block.text)
            case "console":
                self._write_app()
                self.commands.run(block.text)
            case "javascript":
                self.commands.javascript(block.text)
            case _:
                pass

    def _python(self, block: Block) -> None:
        _ = self.broker
        padded = "\n" * (block.line - 1) + self.commands.here(block.text)
        code = compile(padded, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            waiting = eval(code, self._namespace)
            if inspect.iscoroutine(waiting):
                self._runner.run(waiting)
        lines = iter([line for line in printed.getvalue().splitlines() if line])
        for shown in SHOWN.finditer(block.text):
            demand(shown[1] or shown[2], next(lines, "nothing more"))

    def _script(self, code: str) -> None:
        if re.match("// limits: ", code):
            return  # its events are what it is for
        result = self.run(code)
        value = re.search(r"^// → (.*)$", code, re.MULTILINE)
        if result.error is not None:
            raise AssertionError(f"{result.error}\n{code}")
        if value is not None and json.loads(value[1]) != result.value:
            demand(value[1], json.dumps(result.value))

    def _events(self, expected: str) -> None:
        """The events of the script above, whose times may be others."""
        code = self._last_script
        limits = re.match("// limits: (.*)", code)
        lines: list[str] = []

        def keep(event: Any) -> None:
            lines.append(json.dumps(event.to_wire(), ensure_ascii=False))

        async def once() -> None:
            async with self.broker as broker, broker.override(seed=7, now=1_700_000_000.0):
                options: dict[str, Any] = json.loads(limits[1]) if limits else {}
                await broker.execute(code, limits=SessionLimits(**options), on_event=keep)

        self._runner.run(once())
        demand(TIMES.sub("0", expected), TIMES.sub("0", "".join(f"{line}\n" for line in lines)))

    def run(self, code: str, **limits: Any) -> ExecutionResult[Any]:
        """Run a script on a broker that is started for it."""

        async def once() -> ExecutionResult[Any]:
            async with self.broker as broker:
                return await broker.execute(code, limits=SessionLimits(**limits))

        return self._runner.run(once())

    def check(self, head: tuple[str, ...], row: tuple[str, ...]) -> None:
        """A row of a table that shows what comes of a script."""
        match head:
            case ("script", "error"):
                demand(row[1], str(self.run(row[0]).error))
            case ("limits", "script", "error"):
                demand(row[2], str(self.run(row[1], **json.loads(row[0])).error))
            case ("JavaScript", "JSON"):
                demand(row[1], json.dumps(self.run(f"return {row[0]}").value))
            case _:
                pass


def app_of(page: str) -> str:
    """The text of the page's app.py; empty without one."""
    return next((block.text for block in blocks(page) if block.text.startswith("# app.py\n")), "")


def main(page_path: str, app_path: str) -> None:
    page = Path(page_path).read_text(encoding="utf-8")
    app = app_of(page) or app_of(Path(app_path).read_text(encoding="utf-8"))
    sys.path.insert(0, str(Path.cwd()))
    with asyncio.Runner() as runner:
        here = Page(app, runner)
        with contextlib.closing(here.commands):
            for block in blocks(page):
                try:
                    here.do(block)
                except BaseException as error:
                    raise AssertionError(f"{page_path}:{block.line}: the {block.language} block") from error
        wrong: list[str] = []
        for head, rows in tables(page):
            for row in rows:
                try:
                    here.check(head, row)
                except AssertionError as error:
                    wrong.append(f"{row[-2]}: {error}")
        if wrong:
            raise AssertionError("\n".join([page_path, *wrong]))


def give_up(*_: object) -> None:
    raise AssertionError("the page has taken too long")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(50)  # seconds: before whoever runs this gives up, so that nothing of it stays behind
    main(*sys.argv[1:3])

"""The log on the screen: what went wrong in an app's own code is told to whoever develops it.

A message is one line, whatever it says; the lines of a traceback are indented. So nobody's text can begin a line of
its own, colour it or move the cursor.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

from enclave_broker.cli.screen import DIM, Screen
from enclave_broker.cli.text import inline, visible

__all__ = ["show_logs"]

_OURS = str(Path(__file__).parent.parent)
_INDENT = "    "


def show_logs(screen: Screen, level: str, *, verbose: bool) -> None:
    """Show what the package logs from `level` on, and warnings of all others, unless the app has set up logging.

    `verbose`: our own frames, too.
    """
    root, ours = logging.getLogger(), logging.getLogger("enclave_broker")
    if not root.handlers and not ours.handlers:
        root.addHandler(_ScreenHandler(screen, verbose=verbose))
        ours.setLevel(level)


class _ScreenHandler(logging.Handler):
    def __init__(self, screen: Screen, *, verbose: bool) -> None:
        super().__init__()
        self._screen = screen
        self.setFormatter(_Lines() if verbose else _AppsFrames())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._screen.note(self._screen.err.paint(self.format(record), DIM))
        except Exception:  # noqa: BLE001 - a log never ends what it tells about
            self.handleError(record)


class _Lines(logging.Formatter):
    """See the module."""

    def format(self, record: logging.LogRecord) -> str:
        lines = [f"[{inline(record.name)}] {inline(record.getMessage())}"]
        if record.exc_info:
            trace = visible(self.formatException(record.exc_info))
            lines += [_INDENT + line for line in trace.split("\n")]
        return "\n".join(lines)


class _AppsFrames(_Lines):
    """Of a traceback only what isn't ours: a tool's author looks for his own line."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        whole = traceback.TracebackException(*ei)
        part: traceback.TracebackException | None = whole
        while part is not None:
            own = [frame for frame in part.stack if not frame.filename.startswith(_OURS)]
            part.stack = traceback.StackSummary.from_list(own)
            part = part.__cause__ or part.__context__
        return "".join(whole.format()).rstrip()

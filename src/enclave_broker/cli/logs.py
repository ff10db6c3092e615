"""The package's log on the screen: what went wrong in an app's own code is told to whoever develops it."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

from enclave_broker.cli.screen import DIM, Screen
from enclave_broker.cli.text import visible

__all__ = ["show_logs"]

_OURS = str(Path(__file__).parent.parent)


def show_logs(screen: Screen, level: str, *, verbose: bool) -> None:
    """Show what the package logs, unless the app has set up logging by itself. `verbose`: our own frames, too."""
    logger = logging.getLogger("enclave_broker")
    if not logging.getLogger().handlers and not logger.handlers:
        logger.addHandler(_ScreenHandler(screen, verbose=verbose))
        logger.setLevel(level)


class _ScreenHandler(logging.Handler):
    def __init__(self, screen: Screen, *, verbose: bool) -> None:
        super().__init__()
        self._screen = screen
        line = "[%(name)s] %(message)s"
        self.setFormatter(logging.Formatter(line) if verbose else _AppsFrames(line))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._screen.note(self._screen.err.paint(visible(self.format(record)), DIM))
        except Exception:  # noqa: BLE001 - a log never ends what it tells about
            self.handleError(record)


class _AppsFrames(logging.Formatter):
    """Of a traceback only what isn't ours: a tool's author looks for his own line."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        whole = traceback.TracebackException(*ei)
        part: traceback.TracebackException | None = whole
        while part is not None:
            own = [frame for frame in part.stack if not frame.filename.startswith(_OURS)]
            part.stack = traceback.StackSummary.from_list(own)
            part = part.__cause__ or part.__context__
        return "".join(whole.format()).rstrip()

"""The two streams that a command writes to: what the user asked for on stdout, everything about it on stderr.

Colour goes only to a terminal, and not with NO_COLOR. On a terminal the last line of stderr may be a status that
disappears before anything else is written. Lines are escaped by whoever makes them (text.py).
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO

from enclave_broker.cli.text import cut

__all__ = ["BOLD", "CYAN", "DIM", "GREEN", "RED", "YELLOW", "Channel", "Screen"]

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
_ERASE = "\r\x1b[K"
_PIPE_COLUMNS = 160
"""Where there is no terminal, lines are cut as if there were one of this width."""


class Channel:
    """One stream. Its encoding may lack a character: then that is escaped, too."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty() and environ.get("TERM") != "dumb"
        self._coloured = self.is_terminal and not environ.get("NO_COLOR")
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._coloured and text else text

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Screen:
    """See the module. Used from one thread."""

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str]) -> None:
        self.out = Channel(out, environ)
        self.err = Channel(err, environ)
        self._status = ""

    @property
    def columns(self) -> int:
        return shutil.get_terminal_size().columns if self.err.is_terminal else _PIPE_COLUMNS

    def result(self, text: str) -> None:
        """Write whole lines to stdout."""
        self._write(self.out, text)

    def note(self, text: str) -> None:
        """Write one line to stderr."""
        self._write(self.err, text + "\n")

    def status(self, text: str) -> None:
        """What goes on just now; "" for nothing."""
        if self.err.is_terminal and text != self._status:
            self._status = text
            self._show_status()

    def interrupted(self) -> None:
        """Ctrl-C was pressed: wipe the `^C` that the terminal has shown."""
        if self.err.is_terminal:
            self.err.write(_ERASE)

    def _write(self, channel: Channel, text: str) -> None:
        if self._status:
            self.err.write(_ERASE)
        channel.write(text)
        if self._status:
            self._show_status()

    def _show_status(self) -> None:
        # The cursor goes back to the start, so that what an app prints by itself stands in no line of ours.
        shown = self.err.paint(cut(self._status, self.columns - 1), DIM)
        self.err.write(f"{_ERASE}{shown}\r" if shown else _ERASE)


def discard_output() -> None:
    """Nobody reads stdout any more: let the interpreter's last flush go nowhere instead of failing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

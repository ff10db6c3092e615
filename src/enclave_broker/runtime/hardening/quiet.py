"""What the interpreter may not do any more: look for a file, and make callbacks for C.

An exception's traceback, a lazy import or a first warning would open files, which the filter answers with death. After
this they are a short traceback or ModuleNotFoundError. (os.cpu_count() still asks the C library, which opens one.)
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import os
import sys
import threading
import traceback
import warnings
from importlib.machinery import BuiltinImporter, FrozenImporter
from pathlib import Path
from types import TracebackType

from enclave_broker.runtime.hardening.syscalls import call, must

__all__ = ["seal_closures", "silence"]

_IMPORTED_LATE = (ast, warnings)
"""By traceback for its first exception, and by the interpreter for its first warning."""

_LAST_WORDS_BYTES = 16384
"""Of one traceback. Less than a pipe holds, so that a broker that is slow to read doesn't block the worker."""

_PROT_READ, _PROT_EXEC = 1, 4


def silence() -> None:
    """Import what would be imported late, show no source lines, forget where modules come from."""
    linecache.clearcache()
    linecache.checkcache = _check_nothing
    linecache.updatecache = _no_lines
    linecache.lazycache = _not_lazy
    # The interpreter's own, written in C, open the source file.
    sys.excepthook = _show
    sys.unraisablehook = _show_unraisable
    threading.excepthook = _show_in_thread
    sys.path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter]


def seal_closures() -> None:
    """Take the write permission from pages that are executable too: ctypes keeps its callbacks in one.

    None can be made or freed afterwards: that would be a segmentation fault. Raises OSError if such a page remains.
    """
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        span, permissions = line.split(maxsplit=2)[:2]
        if "w" in permissions and "x" in permissions:
            start, end = (int(word, 16) for word in span.split("-"))
            must("mprotect", call("mprotect", start, end - start, _PROT_READ | _PROT_EXEC))


def _check_nothing(filename: str | None = None) -> None:
    pass


def _no_lines(filename: str, module_globals: dict[str, object] | None = None) -> list[str]:  # noqa: ARG001 - linecache's
    return []


def _not_lazy(filename: str, module_globals: dict[str, object]) -> bool:  # noqa: ARG001 - linecache's
    return False


def _show(kind: type[BaseException], value: BaseException | None, trace: TracebackType | None) -> None:
    try:
        text = "".join(traceback.format_exception(kind, value, trace))
    except Exception:  # noqa: BLE001 - a traceback that can't be made must not lead to the interpreter's own
        text = f"{kind.__name__}, and its traceback can't be shown\n"
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(2, text.encode("utf-8", "replace")[-_LAST_WORDS_BYTES:])


def _show_in_thread(failed: threading.ExceptHookArgs) -> None:
    _show(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _show_unraisable(failed: sys.UnraisableHookArgs) -> None:
    _show(failed.exc_type, failed.exc_value, failed.exc_traceback)

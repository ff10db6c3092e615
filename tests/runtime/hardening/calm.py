"""The program that tests start: behind all walls, does harmless things that would look for a file; prints JSON.

Threads as a worker has them, one of which fails within the walls.
"""

from __future__ import annotations

import codecs
import gc
import importlib
import json
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable

from enclave_broker.runtime.hardening import enter


def _raise(depth: int) -> None:
    if depth:
        _raise(depth - 1)
    raise ValueError("from the depths")


def _format() -> str:
    try:
        _raise(3)
    except ValueError:
        return traceback.format_exc()
    return ""


def _recursion() -> str:
    def forever() -> None:
        forever()

    try:
        forever()
    except RecursionError:
        return traceback.format_exc()
    return ""


def _lazy_import() -> str:
    try:
        importlib.import_module("wave")
    except ModuleNotFoundError as error:
        return str(error)
    return "imported"


def _codec() -> str:
    try:
        b"x".decode("cp437")
    except LookupError as error:
        return str(error)
    return "decoded"


def _time() -> str:
    try:
        time.strptime("2020", "%Y")
    except ModuleNotFoundError as error:
        return str(error)
    return "parsed"


def _warn() -> str:
    warnings.simplefilter("always")
    warnings.warn("the first warning", stacklevel=1)
    return ""


class _Failing:
    def __del__(self) -> None:
        raise KeyError("in a finaliser")


def _unraisable() -> str:
    failing = _Failing()
    del failing
    gc.collect()
    return ""


def _hook() -> str:
    try:
        _raise(0)
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    return ""


def _local_time() -> str:
    return str(time.localtime(0).tm_year)


HARMLESS: dict[str, Callable[[], str]] = {
    "format": _format,
    "recursion": _recursion,
    "lazy import": _lazy_import,
    "codec": _codec,
    "known codec": lambda: codecs.lookup("utf-8").name,
    "time": _time,
    "local time": _local_time,
    "warn": _warn,
    "unraisable": _unraisable,
    "hook": _hook,
}


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[2]))
    go = threading.Event()

    def fail() -> None:
        go.wait()
        _raise(1)

    failing = threading.Thread(target=fail, name="failing", daemon=True)
    enter(channel=channel.fileno(), image=int(sys.argv[3]), parent=os.getppid(), start_threads=failing.start)
    said = {name: act() for name, act in HARMLESS.items()}
    go.set()
    failing.join()
    channel.sendall(json.dumps(said).encode())
    os._exit(0)

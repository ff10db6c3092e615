"""Secrets by name: where their values come from, and when. A tool gets those that it declares, for one start.

Owns the sources and the rules for names and values. A value is asked for at each start of a handler and nothing is
kept, so that a new one counts at the next call. What a handler must not say of it is scrub.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from enclave_broker.broker.calls.scrub import MIN_CHARACTERS, Needle, Scrubber
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.types.errors import ConfigurationError, SecretError

__all__ = ["Env", "File", "Revealed", "Secrets", "Source"]

log = logging.getLogger("enclave_broker.calls")

MAX_CHARACTERS = 4_096  # a private key of 4,096 bits has 3,272; looking for a value takes memory for each of them
SOURCE_SECONDS = 10.0
"""How long all the secrets of one start may take."""
_MAX_FILE_BYTES = 4 * MAX_CHARACTERS + 3  # in UTF-8, with a line end
_REMEMBERED = 4  # values of one name, newest first, that are looked for though another one counts by now
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class Env:
    """The value of an environment variable of the broker's process, read at each call."""

    def __init__(self, name: str) -> None:
        """Raises ConfigurationError for what can't be a variable's name."""
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"Env: the name of an environment variable, not {name!r}")
        self.name = name

    def __repr__(self) -> str:
        return f"Env({self.name!r})"


class File:
    """The text of a file, as UTF-8 without the line end after it, read at each call in a thread.

    A relative path is one below the folder that the process is in now.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads nothing. Raises ConfigurationError for what is no path."""
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"File: the path of a file, not {path!r}")
        self.path = Path(path).absolute()

    def __repr__(self) -> str:
        return f"File({str(self.path)!r})"


Source = str | Env | File | Callable[[], str | Awaitable[str]]
"""A function is called once for each start of a handler: `async def` in the loop, `def` in a thread."""


class _UnavailableError(Exception):
    """A value can't be had. For the log: the message holds no value, and nothing that a source has said."""


@dataclass(frozen=True, slots=True)
class Revealed:
    """The secrets of one start of a handler."""

    values: Mapping[str, str] = field(repr=False)
    scrubber: Scrubber


class Secrets:
    """A broker's secrets. No value is in a repr or a message."""

    def __init__(self, sources: Mapping[str, Source] | None, threads: HandlerThreads) -> None:
        """Reads nothing.

        Raises ConfigurationError for a name that isn't 1 to 64 ASCII letters, digits, `_`, `.` or `-` with a letter
        or `_` first, for what is no source, and for a plain str of less than 8 or more than 4,096 characters.
        """
        self._sources = dict(_checked(sources))
        self._threads = threads
        self._needles: dict[str, dict[str, Needle]] = {}
        """Of each name, by value; the newest last."""

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._sources)})"

    @contextlib.contextmanager
    def replaced(self, sources: Mapping[str, Source]) -> Generator[None]:
        """Take values from these sources instead, as long as the block runs. Raises ConfigurationError."""
        before = self._sources
        self.check("override", _checked(sources))
        self._sources = {**before, **sources}
        try:
            yield
        finally:
            self._sources = before

    def check(self, subject: str, names: Collection[str]) -> None:
        """Raises ConfigurationError if one of the names is none of the broker's."""
        unknown = [name for name in names if name not in self._sources]
        if unknown:
            known = f"known are {', '.join(self._sources)}" if self._sources else "the broker has none"
            raise ConfigurationError(f"{subject}: no secret is called {', '.join(map(repr, unknown))}; {known}")

    async def reveal(self, tool_name: str, names: Collection[str], before: Scrubber | None = None) -> Revealed:
        """The values for one start, and a scrubber for them.

        It finds the values that counted before, too: the last of each name, and all that `before` finds. Raises
        SecretError, whose message and log line hold no value. Cancelling is safe.
        """
        values: dict[str, str] = {}
        name, reason = "", ""
        try:
            async with asyncio.timeout(SOURCE_SECONDS):
                for name in names:
                    values[name] = await self._value(name)
        except TimeoutError:
            reason = f"nothing came within {SOURCE_SECONDS:g} s"
        except _UnavailableError as error:
            reason = str(error)
        if reason:  # raised out here: it has no context that anybody could log
            log.error("tool %s needs the secret %s: %s", tool_name, name, reason)
            raise SecretError(f"tool {tool_name!r} needs the secret {name!r}, and it can't be had")
        needles = [needle for name in values for needle in self._remembered(name, values[name])]
        return Revealed(MappingProxyType(values), Scrubber([*needles, *(before.needles if before else ())]))

    async def _value(self, name: str) -> str:
        source: Any = self._sources.get(name)
        match source:
            case str():
                return source
            case Env():
                value = os.environ.get(source.name)
                if value is None:
                    raise _UnavailableError(f"the environment variable {source.name} is not set")
            case File():
                value = await self._called(partial(_read, source.path))
            case None:
                raise _UnavailableError("the broker has no secret of this name")
            case _:
                value = await self._called(source)
        fault = _fault(value)
        if fault:
            raise _UnavailableError(fault)
        return value

    async def _called(self, source: Callable[[], Any]) -> Any:
        """What a function gives. What it raises may hold anything, so that only its type is told."""
        try:
            if not inspect.iscoroutinefunction(source):
                value = await self._threads.run(source)
                return await value if inspect.isawaitable(value) else value
            return await source()
        except _UnavailableError:
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise _UnavailableError(
                f"its function raised {type(error).__name__} at {at.filename}:{at.lineno}"
            ) from None

    def _remembered(self, name: str, value: str) -> list[Needle]:
        known = self._needles.setdefault(name, {})
        known[value] = known.pop(value, None) or Needle.of(name, value)
        while len(known) > _REMEMBERED:
            del known[next(iter(known))]
        return list(known.values())


def _checked(sources: Any) -> Mapping[str, Source]:
    if sources is None:
        return {}
    if not isinstance(sources, Mapping):
        raise ConfigurationError("secrets are a mapping from names to str, Env, File or functions")
    for name, source in sources.items():  # pyright: ignore[reportUnknownVariableType] checked here
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"a secret's name is 1 to 64 ASCII letters, digits, '_', '.' or '-', first no digit, not {name!r}"
            )
        if isinstance(source, str):
            fault = _fault(source)
            if fault:
                raise ConfigurationError(f"the secret {name!r}: {fault}")
        elif not isinstance(source, Env | File) and not callable(source):  # pyright: ignore[reportUnknownArgumentType]
            kind = type(source).__name__  # pyright: ignore[reportUnknownArgumentType] bytes may hold the value
            raise ConfigurationError(f"the secret {name!r} is a str, Env, File or a function, not {kind}")
    return sources  # pyright: ignore[reportUnknownVariableType]


def _fault(value: Any) -> str:
    """Why a value is refused, empty if it isn't. Says nothing of what is in it."""
    if not isinstance(value, str):
        return f"it is a str, not {type(value).__name__}"
    if len(value) < MIN_CHARACTERS:
        return f"it has less than {MIN_CHARACTERS} characters, which can't be told from other text"
    if len(value) > MAX_CHARACTERS:
        return f"it has more than {MAX_CHARACTERS:,} characters"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return ""


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise _UnavailableError(f"the file {path} can't be read: {error.strerror}") from None
    if len(data) == _MAX_FILE_BYTES:
        raise _UnavailableError(f"the file {path} is too long for a secret")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _UnavailableError(f"the file {path} is not UTF-8") from None

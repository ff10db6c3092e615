"""Settings of the command line: a flag, else the environment, else `.env` in this folder; all begin ENCLAVE_BROKER_.

Only what the CLI reads stands here; a Broker reads neither environment nor file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from enclave_broker.cli.failure import UsageError

__all__ = ["PREFIX", "Settings"]

PREFIX = "ENCLAVE_BROKER_"
_NUMBERS = {"TIMEOUT": float, "MAX_TOOL_CALLS": int, "PORT": int}
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Settings:
    """Values by name without the prefix. An empty value counts as none."""

    def __init__(self, environ: Mapping[str, str], file: Path) -> None:
        self._values = {**_read(file), **{name: value for name, value in environ.items() if value}}
        self._environ = environ
        self._file = file

    def text(self, name: str) -> str | None:
        return self._values.get(PREFIX + name) or None

    def number(self, name: str) -> float | int | None:
        """Raises UsageError that says where the value stands."""
        value = self.text(name)
        if value is None:
            return None
        kind = _NUMBERS[name]
        try:
            return kind(value)
        except ValueError:
            what = "a whole number" if kind is int else "a number of seconds"
            raise UsageError(f"{self._origin(name)}: {PREFIX}{name} is {what}, not {value!r}") from None

    def log_level(self) -> str:
        value = (self.text("LOG_LEVEL") or "WARNING").upper()
        if value not in _LOG_LEVELS:
            raise UsageError(f"{self._origin('LOG_LEVEL')}: {PREFIX}LOG_LEVEL is one of {', '.join(_LOG_LEVELS)}")
        return value

    def _origin(self, name: str) -> str:
        return "the environment" if self._environ.get(PREFIX + name) else str(self._file)


def _read(file: Path) -> dict[str, str]:
    """The lines NAME=VALUE of a file that need not be there, quotes around a value gone; only those that are ours."""
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}") from None
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or not name.strip().startswith(PREFIX):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values

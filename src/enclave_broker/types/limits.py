"""The limits of a session: one frozen dataclass, every limit finite by default, checked where it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from enclave_broker.types.errors import ConfigurationError

__all__ = ["SessionLimits", "seconds", "whole"]

MIB = 1 << 20
MAX_MEMORY_BYTES = 256 * MIB
"""The engine's linear memory can't grow beyond this: it is the maximum that the module was linked with."""
MIN_MEMORY_BYTES = 4 * MIB
"""The engine's own image takes about half of this before the first line of a script."""
MAX_SECONDS = 10 * 365 * 86400.0
MAX_COUNT = 2**31 - 1


def seconds(value: Any, name: str) -> float:
    """A positive, finite duration in seconds from a number or a timedelta.

    Raises ConfigurationError that names the option.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name} must be seconds as a number or a timedelta, not {value!r}")
    if not 0 < value <= MAX_SECONDS or not math.isfinite(value):
        raise ConfigurationError(f"{name} must be more than 0 and at most {MAX_SECONDS:.0f} seconds, not {value!r}")
    return float(value)


def whole(value: Any, name: str, *, least: int) -> int:
    """A whole number that is not below `least`. Raises ConfigurationError that names the option."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ConfigurationError(f"{name} must be at least {least}, not {value}")
    return value


def _count(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, not {value!r}")
    if not least <= value <= MAX_COUNT:
        raise ConfigurationError(f"{name} must be from {least} to {MAX_COUNT}, not {value}")
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """What one execution may use. Durations are seconds (a timedelta is taken too), sizes bytes.

    `timeout` is active time: script, timers and handlers; it stands while only a person or a client is awaited.
    `deadline` is wall clock, None for none. `tool_timeout` bounds one attempt of a call, `per_tool_deadline` the call
    with its retries. `cpu_time` is the script's own CPU time. `max_memory_bytes` is the engine's whole linear memory
    and ends at 256 MiB. Raises ConfigurationError for a value of the wrong type or range.
    """

    timeout: float = 60.0
    deadline: float | None = None
    tool_timeout: float = 30.0
    per_tool_deadline: float = 30.0
    cpu_time: float = 10.0
    heartbeat_interval: float = 15.0
    max_tool_calls: int = 50
    max_concurrent_calls: int = 16
    max_timers: int = 1000
    cancel_on_first_error: bool = False
    max_memory_bytes: int = 64 * MIB
    max_stdout_bytes: int = 256 * 1024
    max_tool_args_bytes: int = 5 * MIB
    max_tool_result_bytes: int = 5 * MIB
    max_code_bytes: int = 256 * 1024
    max_log_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        for name in ("timeout", "tool_timeout", "per_tool_deadline", "cpu_time", "heartbeat_interval"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))
        if self.deadline is not None:
            object.__setattr__(self, "deadline", seconds(self.deadline, "deadline"))
        for field in fields(self):
            if field.name.startswith("max_"):
                _count(getattr(self, field.name), field.name, 0 if field.name in _MAY_BE_ZERO else 1)
        if not MIN_MEMORY_BYTES <= self.max_memory_bytes <= MAX_MEMORY_BYTES:
            raise ConfigurationError(
                f"max_memory_bytes must be from {MIN_MEMORY_BYTES} (4 MiB) to {MAX_MEMORY_BYTES} (256 MiB), "
                f"not {self.max_memory_bytes}"
            )
        if not isinstance(self.cancel_on_first_error, bool):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"cancel_on_first_error must be True or False, not {self.cancel_on_first_error!r}")

    def override(self, **changes: Any) -> SessionLimits:
        """These limits with every change that isn't None."""
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **given) if given else self


_MAY_BE_ZERO = {"max_tool_calls", "max_timers", "max_stdout_bytes"}

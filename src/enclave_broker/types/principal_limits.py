"""What the sessions of one principal may take together: one frozen dataclass, every limit finite by default."""

from __future__ import annotations

from dataclasses import dataclass

from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.limits import seconds, whole

__all__ = ["PrincipalLimits"]

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PrincipalLimits:
    """Caps on the sum of all sessions of a principal (tenant and subject), so that opening many evades nothing.

    `max_sessions` are open at a time. No further one is opened while `max_waiting` of them only wait for a person or a
    client, or while the logs of the open ones and of those that stay readable hold `max_bytes` (the principal's oldest
    readable ones make room first). `max_streams` answers are being read at a time. `cpu_time` is the scripts' CPU
    seconds in `cpu_window` seconds: once so much is used no session is opened until enough time has passed, and what
    open ones use beyond it is paid back. `anonymous`: whether all who are not known have these limits, as one
    principal; they are the host's own runs, and everybody where nobody is asked for a key.
    Raises ConfigurationError for a value of the wrong type or range.
    """

    max_sessions: int = 500
    max_waiting: int = 250
    max_bytes: int = 256 * MIB
    max_streams: int = 1000
    cpu_time: float = 60.0
    cpu_window: float = 60.0
    anonymous: bool = False

    def __post_init__(self) -> None:
        for name in ("max_sessions", "max_waiting", "max_bytes", "max_streams"):
            whole(getattr(self, name), name, least=1)
        for name in ("cpu_time", "cpu_window"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))
        if not isinstance(self.anonymous, bool):  # pyright: ignore[reportUnnecessaryIsInstance] input
            raise ConfigurationError(f"anonymous must be True or False, not {self.anonymous!r}")

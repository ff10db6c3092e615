"""What telemetry is told of a call: it sees calls of the rooms above, and imports none of them."""

from __future__ import annotations

from typing import Protocol

from enclave_broker.types.principal import Principal
from enclave_broker.types.results import Outcome

__all__ = ["EndedCall", "Outcome"]


class _Asker(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def principal(self) -> Principal: ...


class EndedCall(Protocol):
    """A call that has its outcome, or gets none."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str:
        """As the script called it: any text."""
        ...

    @property
    def caller(self) -> _Asker:
        """Its session."""
        ...

    @property
    def route(self) -> str | None:
        """The registered name or pattern that has taken it, if one has."""
        ...

    @property
    def attempt(self) -> int:
        """How often its handler was started."""
        ...

    @property
    def args_json(self) -> bytes: ...

    @property
    def engine_id(self) -> int:
        """0 for a call that the host made."""
        ...

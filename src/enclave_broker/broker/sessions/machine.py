"""The states of a session as a table. Time and events are arguments; nothing here waits or remembers."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["FINISHED", "State", "check"]


class State(StrEnum):
    """The wire's six states and one more, which is `waiting_for_tool` there."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING_FOR_TOOL = "waiting_for_tool"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

_ACTIVE = frozenset({State.RUNNING, State.WAITING_FOR_TOOL, State.WAITING_FOR_APPROVAL})
_AFTER: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    **dict.fromkeys(_ACTIVE, _ACTIVE | FINISHED),
    # A session is a sequence of executions: the next one begins where the last has ended.
    State.COMPLETED: frozenset({State.RUNNING, State.CANCELLED}),
    State.FAILED: frozenset({State.RUNNING, State.CANCELLED}),
    State.CANCELLED: frozenset[State](),
}


def check(before: State, after: State) -> State:
    """`after`, if a session may go there. Raises AssertionError otherwise: that is this package's own mistake."""
    assert after is before or after in _AFTER[before], f"a session went from {before} to {after}"
    return after

from __future__ import annotations

from typing import Any

import pytest

from enclave_broker.types.calls import ToolCall

CALL = ToolCall(id="c_1", name="orders:get", args={"id": 1}, session_id="s_1", effect="read", attempt=2)


def test_a_call_with_other_arguments_is_otherwise_the_same() -> None:
    changed = CALL.replace(args={"id": 2})
    assert changed.args == {"id": 2}
    assert CALL.args == {"id": 1}
    assert changed.replace(args={"id": 1}) == CALL
    assert CALL.replace() is CALL


@pytest.mark.parametrize("name", ["orders:all", "", "Orders:get"])
def test_a_call_can_not_take_another_name(name: str) -> None:
    with pytest.raises(ValueError, match="renamed"):
        CALL.replace(name=name)
    assert CALL.replace(name="orders:get", args={}).args == {}


def test_a_call_is_frozen_and_by_default_an_anonymous_write() -> None:
    call = ToolCall(id="c_1", name="x", args={})
    assert (call.effect, call.principal.is_anonymous, call.attempt) == ("write", True, 0)
    changeable: Any = call
    with pytest.raises(AttributeError):
        changeable.name = "y"

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from enclave_broker.broker.tools.context import LogLine, Progress, Sink, ToolContext
from enclave_broker.types.principal import ANONYMOUS


def context_of(sink: Sink | None = None, **secrets: str) -> ToolContext:
    more: dict[str, Any] = {} if sink is None else {"sink": sink}
    return ToolContext(
        session_id="s_1",
        call_id="c_1",
        idempotency_key="c_1",
        tool_name="orders:get",
        principal=ANONYMOUS,
        deadline=datetime(2025, 1, 1, tzinfo=UTC),
        secrets=secrets,
        **more,
    )


async def test_progress_and_log_lines_go_to_the_sink_in_order() -> None:
    said: list[Progress | LogLine] = []

    async def sink(item: Progress | LogLine) -> None:
        said.append(item)

    context = context_of(sink)
    await context.progress(1)
    await context.progress(5, 10)
    await context.log("careful", "warn", order=7)
    await context.log("fine")
    assert said == [
        Progress(1, None),
        Progress(5, 10),
        LogLine("warn", "careful", {"order": 7}),
        LogLine("info", "fine", {}),
    ]


async def test_a_context_without_sink_swallows_what_is_said() -> None:
    await context_of().progress(1)
    await context_of().log("nobody hears")


@pytest.mark.parametrize(("done", "total"), [(-1, None), (float("nan"), None), (float("inf"), 2), (1, -1)])
async def test_progress_that_is_no_progress_is_an_error(done: float, total: float | None) -> None:
    with pytest.raises(ValueError, match="finite number"):
        await context_of().progress(done, total)


async def test_an_unknown_log_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="debug, info, warn, error"):
        await context_of().log("x", cast("Any", "warning"))


def test_secrets_are_in_no_repr_and_a_context_is_frozen() -> None:
    context = context_of(api_key="canary-1234")
    assert context.secrets["api_key"] == "canary-1234"
    assert "canary" not in repr(context)
    with pytest.raises(FrozenInstanceError):
        context.session_id = "s_2"  # pyright: ignore[reportAttributeAccessIssue] that is what is tested

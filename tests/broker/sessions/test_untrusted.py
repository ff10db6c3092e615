"""What comes from a runtime is held to form and limits, and an honest one never meets them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from enclave_broker import Broker, SessionLimits
from enclave_broker.broker.sessions.untrusted import StepGuard
from enclave_broker.runtime.runtime import StepTaken
from enclave_broker.types.messages import Verdict

LIMITS = SessionLimits(max_tool_calls=2, max_timers=1, max_stdout_bytes=10, max_tool_args_bytes=10)


def read(*effects: list[Any], inputs: int = 1) -> None:
    step = StepTaken(msgspec.json.encode(effects), 1, ended=False, verdict=Verdict.NONE, inputs=inputs)
    StepGuard(LIMITS).read(step, settled=False)


LIES: dict[str, tuple[list[Any], ...]] = {
    "a call out of order": ([1, 2, "t", {}],),
    "more calls than allowed": tuple([1, n, "t", {}] for n in (1, 2, 3)),
    "a timer out of order": ([3, 2, 1.0],),
    "more timers than one input can set": tuple([3, n, 1.0] for n in range(1, 19)),
    "more output than allowed": ([2, 0, "x" * 6], [2, 4, "y" * 6]),
    "a level that isn't there": ([2, 9, "x"],),
    "two ends": ([5, 1], [7]),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_no_engine_makes_is_a_value_error(lie: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read(*LIES[lie])


def test_each_input_of_a_step_may_set_its_own_timers() -> None:
    read(*([3, n, 1.0] for n in range(1, 19)), inputs=2)


async def test_timers_that_fire_together_beside_a_call_are_no_lie(broker: Broker) -> None:
    """They are one step of many inputs, each of which may set as many timers as an input may."""

    async def slow() -> None:
        await asyncio.Event().wait()

    broker.tool("slow")(slow)
    code = """
      callTool("slow");
      let left = 9;
      await new Promise((done) => {
        const many = () => {
          for (let i = 0; i < 100; i++) clearTimeout(setTimeout(() => {}, 1000));
          if (--left === 0) done();
        };
        for (let i = 0; i < 9; i++) setTimeout(many, 1);
      });
      throw "enough";
    """
    limits = SessionLimits(max_timers=10, tool_timeout=0.3)
    result = await broker.execute(code, limits=limits)
    assert result.error is not None
    assert (result.error.code, result.error.message) == ("EXECUTION_ERROR", "enough")

"""Exactly one final an execution, whatever happens in which order: a model and the real session side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_broker import Broker, Session, SessionClosedError, SessionLimits
from enclave_broker.broker.sessions.log import Log
from enclave_broker.types.messages import Verdict
from tests.broker.sessions.support import HandRuntime, check_log, loop_sources, run_jumping, turns, twin_broker

LIMITS = SessionLimits(timeout=10, deadline=10, tool_timeout=3, max_concurrent_calls=2, max_log_bytes=4000)

happenings = st.lists(
    st.sampled_from(
        [
            "call",
            "two calls",
            "call and return",
            "print",
            "print much",
            "timer",
            "return",
            "throw",
            "stuck",
            "nothing",
            "memory verdict",
            "cpu verdict",
            "a lie",
            "lost",
            "cancel",
            "destroy",
            "handler ends",
            "handler fails",
            "time passes",
            "the tool's time passes",
            "the session's time passes",
            "host call",
            "execute again",
        ]
    ),
    min_size=1,
    max_size=14,
)


class Story:
    """One session on an engine moved by hand, and what a script may still do."""

    def __init__(self, broker: Broker, runtime: HandRuntime, session: Session) -> None:
        self.broker, self.runtime, self.session = broker, runtime, session
        self.handlers: list[asyncio.Future[int]] = []
        self.calls = self.timers = 0
        self.settled = False
        self.executions = 0
        self.waits: list[asyncio.Task[Any]] = []

    async def handler(self) -> int:
        self.handlers.append(asyncio.get_running_loop().create_future())
        return await self.handlers[-1]

    def execute(self) -> None:
        try:
            execution = self.session.begin("whatever")
        except SessionClosedError:
            return
        self.executions += 1
        self.calls = self.timers = 0
        self.settled = False
        self.waits.append(asyncio.ensure_future(self.session.result_of(execution)))

    def step(self, *effects: list[Any], verdict: Verdict = Verdict.NONE) -> None:
        run = self.runtime.runs[-1]
        if self.settled and any(effect[0] in {5, 6, 7} for effect in effects):
            effects = ()
        if run.listener is None or (run.started and not run.delivered):
            return
        for effect in effects:
            if effect[0] == 1:
                self.calls += 1
                effect[1] = self.calls
            elif effect[0] == 3:
                self.timers += 1
                effect[1] = self.timers
            elif effect[0] in {5, 6, 7}:
                self.settled = True
        run.step(list(effects), verdict=verdict)

    async def host_call(self) -> None:
        try:
            await self.broker.execute_tool_call(self.session.id, {"name": "tool", "args": {}})
        except Exception:  # noqa: BLE001 whatever it ends with
            return

    async def happen(self, what: str) -> None:  # noqa: C901, PLR0912 a list of what may happen
        call: list[Any] = [1, 0, "tool", {}]
        match what:
            case "call":
                self.step(call)
            case "two calls":
                self.step(call, [1, 0, "tool", {}])
            case "call and return":
                self.step(call, [5, 1])
            case "print":
                self.step([2, 0, "line"])
            case "print much":
                self.step([2, 0, "x" * 3000])
            case "timer":
                self.step([3, 0, 500.0])
            case "return":
                self.step([5, {"a": 1}])
            case "throw":
                self.step([6, {"name": "Error", "message": "thrown"}])
            case "stuck":
                self.step([7])
            case "nothing":
                self.step()
            case "memory verdict":
                self.step(call, [2, 0, "kept"], verdict=Verdict.MEMORY_LIMIT)
            case "cpu verdict":
                self.step(verdict=Verdict.CPU_LIMIT)
            case "a lie":
                # What a process does with a lying worker: the step is refused whole, and its runs are lost.
                with pytest.raises(ValueError, match="call 99"):
                    self.lie()
                self.runtime.runs[-1].lost()
            case "lost":
                self.runtime.runs[-1].lost()
            case "cancel":
                await self.session.cancel()
            case "destroy":
                await self.broker.sessions.destroy(self.session.id)
            case "handler ends" | "handler fails":
                for handler in self.handlers:
                    if not handler.done():
                        handler.set_result(1) if what == "handler ends" else handler.set_exception(OSError("x"))
            case "time passes":
                await asyncio.sleep(0.6)
            case "the tool's time passes":
                await asyncio.sleep(3.1)
            case "the session's time passes":
                await asyncio.sleep(10.1)
            case "host call":
                self.waits.append(asyncio.ensure_future(self.host_call()))
            case _:
                self.execute()
        await turns(5)

    def lie(self) -> None:
        run = self.runtime.runs[-1]
        if run.listener is None or (run.started and not run.delivered):
            raise ValueError("call 99 was not heard")
        listener, before = run.listener, list(self.session.log.records)
        try:
            run.step([[2, 0, "never"], [1, 99, "tool", {}]])
        finally:
            run.listener = listener
            assert self.session.log.records == before, "a refused step has left something"


async def live(story_of: list[str]) -> None:
    runtime = HandRuntime()
    async with Broker(runtimes=[runtime], limits=LIMITS, sources=loop_sources()) as broker:
        session = await broker.create_session()
        story = Story(broker, runtime, session)

        async def tool() -> int:
            return await story.handler()

        broker.tool("tool")(tool)
        story.execute()
        for what in story_of:
            await story.happen(what)
            records = session.log.records
            assert len([r for r in records if r.public is not None and r.public.type == "final"]) <= story.executions
        await story.happen("the session's time passes")
        await asyncio.sleep(60)
        check_log(session.log.records, story.executions) if not host_calls(session) else None
        finals = [r for r in session.log.records if r.public is not None and r.public.type == "final"]
        assert len(finals) == story.executions
        for handler in story.handlers:
            assert handler.done(), "a handler outlived its session"
        async with asyncio.timeout(1):
            await asyncio.gather(*story.waits)
        assert session.calls.running == {}


def host_calls(session: Session) -> bool:
    """A call by the host may end after the execution's final."""
    return any(call.by_host for call in session.history())


@settings(max_examples=150)
@given(happenings)
def test_each_execution_has_one_final_whatever_happens_in_which_order(story_of: list[str]) -> None:
    kept = Log.__init__
    try:
        # The made-up engine's logs can't be run again.
        Log.__init__ = getattr(kept, "__wrapped__", kept)
        run_jumping(lambda: live(story_of))
    finally:
        Log.__init__ = kept


LEAVES = ["return 1", "throw 1", "for (;;) {}", "await new Promise(() => {})", "await sleep(1e6)", "callTool('x')", ")"]


@pytest.mark.parametrize("code", LEAVES)
@pytest.mark.parametrize("turn", [0, 1, 2, 3, 5, 8])
def test_a_cancel_at_any_turn_of_a_real_engine_leaves_one_final(code: str, turn: int) -> None:
    async def scenario() -> None:
        async def x() -> None:
            await asyncio.get_running_loop().create_future()

        limits = SessionLimits(timeout=5, cpu_time=0.02)
        async with twin_broker(tools={"x": x}, limits=limits) as broker:
            session = await broker.create_session()
            run = asyncio.ensure_future(session.execute(code))
            await turns(turn + 1)
            await session.cancel()
            result = await run
            assert result.status in {"cancelled", "completed", "failed"}
            await asyncio.sleep(20)
            check_log(session.log.records)

    run_jumping(scenario)

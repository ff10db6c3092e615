from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from enclave_broker.broker.calls.rate_limit import RateLimit
from enclave_broker.broker.calls.tool_router import ToolRouter
from enclave_broker.broker.tools.client_tool import client_tool
from enclave_broker.broker.tools.context import ToolContext
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import (
    AccessDeniedError,
    ConfigurationError,
    RateLimitError,
    SecretError,
    ToolError,
    ToolResultTooLargeError,
    ToolTimeoutError,
    ToolValidationError,
    UnknownToolError,
)
from enclave_broker.types.principal import ANONYMOUS, Principal

ALICE = Principal("alice", roles=frozenset({"user"}))
Next = Callable[[ToolCall], Awaitable[Any]]


async def echo(name: str, args: dict[str, Any]) -> Any:
    return [name, args]


@pytest.fixture
def router() -> ToolRouter:
    router = ToolRouter()
    router.register("db:*", echo)
    return router


async def code_of(awaitable: Awaitable[Any]) -> str:
    with pytest.raises(ToolError) as caught:
        await awaitable
    return caught.value.code


# --- What is called, and with what -----------------------------------------------------------------------------------


async def test_a_handler_gets_the_called_name_and_the_arguments(router: ToolRouter) -> None:
    assert await router.execute("db:query", {"sql": "SELECT 1"}) == ["db:query", {"sql": "SELECT 1"}]


@pytest.mark.parametrize("name", ["api:x", "DB:query", "xdb:query", "db", "", "db:a b", "db:\x00", "d\uff42:x"])
async def test_a_name_that_no_route_takes_is_unknown(router: ToolRouter, name: str) -> None:
    with pytest.raises(UnknownToolError):
        await router.execute(name, {})


async def test_the_nearest_name_is_suggested() -> None:
    router = ToolRouter()
    router.register("orders:search", echo)
    with pytest.raises(UnknownToolError, match="did you mean orders:search"):
        await router.execute("orders:serach", {})


async def test_typed_arguments_are_validated_and_the_result_is_json() -> None:
    class Order(BaseModel):
        id: int
        at: datetime

    router = ToolRouter(prefix="orders:")

    @router.tool
    async def get(id: int) -> Order:
        return Order(id=id, at=datetime(2025, 1, 2, tzinfo=UTC))

    assert await router.execute("orders:get", {"id": 3}) == {"id": 3, "at": "2025-01-02T00:00:00Z"}
    with pytest.raises(ToolValidationError, match=r"invalid.*id"):
        await router.execute("orders:get", {"id": "3"})


@pytest.mark.parametrize("args", [None, [1], "x", {"a": object()}, {1.5j: 1}])
async def test_arguments_that_are_no_object_of_json_are_invalid(router: ToolRouter, args: Any) -> None:
    with pytest.raises(ToolValidationError, match="invalid arguments"):
        await router.execute("db:query", args)


async def test_arguments_that_are_too_large_are_refused(router: ToolRouter) -> None:
    assert await code_of(router.execute("db:query", {"a": "x" * (6 << 20)})) == "ARGUMENTS_TOO_LARGE"


async def test_a_function_runs_in_a_thread_and_a_context_names_the_call() -> None:
    router = ToolRouter()
    seen: list[Any] = []

    @router.tool
    def work(n: int, context: ToolContext) -> int:
        seen.append((threading.current_thread() is threading.main_thread(), context.tool_name, context.principal))
        assert context.call_id == context.idempotency_key
        return n + 1

    assert await router.execute("work", {"n": 1}, principal=ALICE) == 2
    assert seen == [(False, "work", ALICE)]


# --- Who may ---------------------------------------------------------------------------------------------------------


async def test_a_route_that_requires_auth_starts_for_nobody_who_is_anonymous() -> None:
    router, ran = ToolRouter(), list[str]()

    async def api(name: str, args: dict[str, Any]) -> str:
        ran.append(name)
        return "called"

    router.register("api:*", api, requires_auth=True)
    for principal in (None, ANONYMOUS, Principal("anonymous", tenant="t")):
        with pytest.raises(AccessDeniedError):
            await router.execute("api:x", {}, principal=principal)
    assert ran == []
    assert await router.execute("api:x", {}, principal=ALICE) == "called"
    with pytest.raises(ConfigurationError, match="a Principal"):
        await router.execute("api:x", {}, principal="alice")  # pyright: ignore[reportArgumentType] what untyped code may do


async def test_a_tool_that_only_a_broker_can_call_is_refused() -> None:
    router = ToolRouter()
    router.register("db:*", echo, secrets=["DB_KEY"])
    router.add(client_tool("ask", args=dict[str, Any], result=Any, timeout=1.0, description=""))
    with pytest.raises(SecretError, match="db:x"):
        await router.execute("db:x", {})
    with pytest.raises(ToolError, match="client"):
        await router.execute("ask", {})


# --- Limits ----------------------------------------------------------------------------------------------------------


async def test_all_names_of_a_route_share_its_limit_and_no_other_route_does() -> None:
    router = ToolRouter()
    router.register("db:*", echo, rate_limit=RateLimit(3, 60.0))
    router.register("db:admin:*", echo, rate_limit=RateLimit(3, 60.0))
    made = await asyncio.gather(*(router.execute(f"db:{i}", {}) for i in range(20)), return_exceptions=True)
    refused = [error for error in made if isinstance(error, RateLimitError)]
    assert len(refused) == 17
    assert all(0 < error.retry_after <= 60 for error in refused)
    assert await router.execute("db:admin:x", {}) == ["db:admin:x", {}]


async def test_invalid_and_refused_calls_are_charged_nothing() -> None:
    router = ToolRouter()

    @router.tool(rate_limit=RateLimit(1, 60.0), requires_auth=True)
    async def get(id: int) -> int:
        return id

    assert await code_of(router.execute("get", {"id": 1})) == "ACCESS_DENIED"
    assert await code_of(router.execute("get", {}, principal=ALICE)) == "VALIDATION_ERROR"
    assert await router.execute("get", {"id": 1}, principal=ALICE) == 1
    assert await code_of(router.execute("get", {"id": 1}, principal=ALICE)) == "RATE_LIMITED"


def not_async(call: Any, call_next: Any) -> Any: ...


@pytest.mark.parametrize("option", [{"rate_limit": 100}, {"middleware": [echo, 5]}, {"middleware": [not_async]}])
def test_what_is_no_limit_or_no_middleware_is_an_error(router: ToolRouter, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="route api"):
        router.register("api:*", echo, **option)
    assert router.match("api:x") is None


# --- Middleware ------------------------------------------------------------------------------------------------------


async def test_middleware_sees_the_call_outer_to_inner_and_may_change_arguments_and_result() -> None:
    seen: list[Any] = []

    async def outer(call: ToolCall, call_next: Next) -> Any:
        seen.append(("outer", call.name, call.args, call.principal, call.effect))
        return {"outer": await call_next(call)}

    async def inner(call: ToolCall, call_next: Next) -> Any:
        seen.append("inner")
        return await call_next(call.replace(args={"n": call.args["n"] + 1}))

    router = ToolRouter()

    @router.tool(middleware=[outer, inner], effect="read")
    async def double(n: int) -> int:
        return n * 2

    assert await router.execute("double", {"n": 2}, principal=ALICE) == {"outer": 6}
    assert seen == [("outer", "double", {"n": 2}, ALICE, "read"), "inner"]


async def test_arguments_that_middleware_changes_are_validated_again() -> None:
    async def spoil(call: ToolCall, call_next: Next) -> Any:
        return await call_next(call.replace(args={"n": "2"}))

    router, ran = ToolRouter(), list[int]()

    @router.tool(middleware=[spoil])
    async def double(n: int) -> int:
        ran.append(n)
        return n * 2

    assert await code_of(router.execute("double", {"n": 2})) == "VALIDATION_ERROR"
    assert ran == []


@pytest.mark.parametrize(("effect", "starts"), [("write", 1), ("read", 3), ("idempotent", 3)])
async def test_a_write_is_started_once_whatever_middleware_does(effect: Any, starts: int) -> None:
    async def insist(call: ToolCall, call_next: Next) -> Any:
        for _ in range(2):
            with contextlib.suppress(ToolError):
                await call_next(call)
        return await call_next(call)

    router, ran = ToolRouter(), list[int]()

    @router.tool(middleware=[insist], effect=effect)
    async def work() -> int:
        ran.append(1)
        return len(ran)

    if effect == "write":
        with pytest.raises(ToolError, match="second time"):
            await router.execute("work", {})
    else:
        assert await router.execute("work", {}) == 3
    assert len(ran) == starts


# --- Ends ------------------------------------------------------------------------------------------------------------


async def test_what_a_handler_raises_on_purpose_is_told_and_all_else_is_only_in_the_log(
    router: ToolRouter, caplog: pytest.LogCaptureFixture
) -> None:
    @router.tool
    async def fails(how: str) -> None:
        match how:
            case "own":
                raise ToolError("no such order", code="NO_ORDER", details={"id": 3})
            case "taken":
                raise ToolError("mine", code="RATE_LIMITED")
            case "exit":
                raise SystemExit(3)
            case _:
                raise RuntimeError("a secret of the host")

    with pytest.raises(ToolError) as caught:
        await router.execute("fails", {"how": "own"})
    assert (caught.value.code, caught.value.message, caught.value.details) == ("NO_ORDER", "no such order", {"id": 3})
    assert await code_of(router.execute("fails", {"how": "taken"})) == "EXECUTION_ERROR"
    for how in ("exit", "other"):
        with pytest.raises(ToolError, match=r"tool 'fails' failed \(error id [0-9a-f]{12}\)"):
            await router.execute("fails", {"how": how})
    assert "a secret of the host" in caplog.text


async def test_a_handler_ends_within_its_time() -> None:
    router = ToolRouter()
    cancelled = asyncio.Event()

    @router.tool(timeout=0.05)
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @router.tool
    async def own() -> None:
        raise TimeoutError("its own")

    with pytest.raises(ToolTimeoutError, match=r"0\.05 s"):
        await router.execute("hangs", {})
    assert cancelled.is_set()
    assert await code_of(router.execute("own", {})) == "EXECUTION_ERROR"


async def test_a_result_that_is_too_large_is_an_error_with_middleware_too() -> None:
    async def large(name: str, args: dict[str, Any]) -> str:
        return "x" * (6 << 20)

    async def enlarge(call: ToolCall, call_next: Next) -> Any:
        return "x" * (6 << 20)

    router = ToolRouter()
    router.register("big:*", large)
    router.register("small:*", echo, middleware=[enlarge])
    for name in ("big:x", "small:x"):
        with pytest.raises(ToolResultTooLargeError):
            await router.execute(name, {})


async def test_a_cancelled_call_cancels_its_handler() -> None:
    router = ToolRouter()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @router.tool
    async def hangs() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    call = asyncio.create_task(router.execute("hangs", {}))
    await asyncio.wait_for(begun.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert cancelled.is_set()


async def test_a_change_of_routes_touches_no_call_under_way(router: ToolRouter) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def old(name: str, args: dict[str, Any]) -> str:
        begun.set()
        await go_on.wait()
        return "old"

    async def new(name: str, args: dict[str, Any]) -> str:
        return "new"

    router.register("job:*", old)
    call = asyncio.create_task(router.execute("job:x", {}))
    await asyncio.wait_for(begun.wait(), 10)
    router.remove("job:*")
    assert await code_of(router.execute("job:x", {})) == "UNKNOWN_TOOL"
    router.register("job:*", new)
    assert await router.execute("job:x", {}) == "new"
    go_on.set()
    assert await asyncio.wait_for(call, 10) == "old"

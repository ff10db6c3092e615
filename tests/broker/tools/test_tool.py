"""Tools made from handlers of every shape: what they take, how they are called, what is refused."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from enclave_broker.broker.tools.context import ToolContext
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.tools.tool import HandlerAbortedError, Tool, tool_from_function, tool_from_router_handler
from enclave_broker.types.errors import ToolError
from enclave_broker.types.principal import ANONYMOUS


class Item(BaseModel):
    sku: str
    quantity: int = 1


class GetUser(TypedDict):
    id: int


def context_of(name: str = "x") -> ToolContext:
    return ToolContext(
        session_id="s_1",
        call_id="c_1",
        idempotency_key="c_1",
        tool_name=name,
        principal=ANONYMOUS,
        deadline=datetime(2025, 1, 1, tzinfo=UTC),
    )


async def call(tool: Tool, args: Any = None, name: str = "x") -> Any:
    """The result as a script would get it."""
    validated = tool.validate(json.dumps({} if args is None else args).encode())
    result = await tool.invoke(name, validated, context_of(name), HandlerThreads())
    return json.loads(tool.dump(result, 10_000))


# --- Shapes ----------------------------------------------------------------------------------------------------------


async def test_typed_parameters_are_the_arguments() -> None:
    async def search(region: str, limit: Annotated[int, Field(gt=0, description="rows")] = 10) -> list[str]:
        """Find orders.

        A page at a time.
        """
        return [region] * limit

    tool = tool_from_function(search, name="orders:search", effect="read")
    assert await call(tool, {"region": "EU", "limit": 2}) == ["EU", "EU"]
    assert (tool.name, tool.effect, tool.description) == ("orders:search", "read", "Find orders.\n\nA page at a time.")
    assert tool.input_schema == {
        "type": "object",
        "properties": {
            "region": {"type": "string"},
            "limit": {"type": "integer", "default": 10, "description": "rows", "exclusiveMinimum": 0},
        },
        "required": ["region"],
        "additionalProperties": False,
    }
    assert tool.output_schema == {"type": "array", "items": {"type": "string"}}


async def test_a_single_parameter_named_args_is_the_whole_object() -> None:
    async def as_dict(args: dict[str, Any]) -> Any:
        return args

    async def as_model(args: Item) -> int:
        return args.quantity

    async def as_typed_dict(args: GetUser) -> int:
        return args["id"]

    async def bare(args: Any) -> Any:
        return args

    del bare.__annotations__["args"]  # as untyped code writes it

    async def with_context(context: ToolContext, args: Mapping[str, Any]) -> Any:
        return [context.tool_name, dict(args)]

    assert await call(tool_from_function(as_dict), {"a": [1]}) == {"a": [1]}
    assert await call(tool_from_function(as_model), {"sku": "x"}) == 1
    assert await call(tool_from_function(as_typed_dict), {"id": 4}) == 4
    assert await call(tool_from_function(bare), {"a": 1}) == {"a": 1}
    assert await call(tool_from_function(with_context), {"a": 1}) == ["x", {"a": 1}]
    assert tool_from_function(as_dict).input_schema == {"type": "object", "additionalProperties": True}
    assert tool_from_function(as_model).input_schema["additionalProperties"] is False


async def test_a_parameter_args_beside_others_is_one_argument() -> None:
    def command(program: str, args: list[str]) -> list[str]:
        return [program, *args]

    assert await call(tool_from_function(command), {"program": "ls", "args": ["-l"]}) == ["ls", "-l"]


async def test_a_routers_handler_gets_the_called_name_and_the_arguments() -> None:
    async def database(name: str, args: dict[str, Any]) -> Any:
        return [name, args]

    async def with_context(operation: str, context: ToolContext, arguments: Item) -> Any:
        return [operation, context.call_id, arguments.sku]

    tool = tool_from_router_handler("db:*", database)
    assert tool.is_pattern
    assert tool.name == "db:*"
    assert await call(tool, {"sql": "select 1"}, "db:query") == ["db:query", {"sql": "select 1"}]
    assert await call(tool_from_router_handler("db:*", with_context), {"sku": "s"}, "db:x") == ["db:x", "c_1", "s"]


async def test_a_context_is_given_wherever_it_is_asked_for_and_is_in_no_schema() -> None:
    def first(ctx: ToolContext, id: int) -> Any:
        return [ctx.session_id, id]

    def last(id: int, *, ctx: Annotated[ToolContext, "the call"]) -> Any:
        return [ctx.session_id, id]

    def by_position(ctx: ToolContext, id: int, /) -> Any:
        return [ctx.session_id, id]

    def optional(id: int, ctx: ToolContext | None = None) -> Any:
        return [ctx.session_id if ctx else None, id]

    for handler in cast("list[Callable[..., Any]]", [first, last, by_position, optional]):
        tool = tool_from_function(handler)
        assert list(tool.input_schema["properties"]) == ["id"]
        assert await call(tool, {"id": 3}) == ["s_1", 3]


async def test_every_kind_of_parameter_and_default_is_understood() -> None:
    def handler(
        a: int, b: int = 2, /, c: int = 3, *, d: int, e: int = Field(default=5, ge=0), f: tuple[int, ...] = ()
    ) -> Any:
        return [a, b, c, d, e, f]

    tool = tool_from_function(handler)
    assert tool.input_schema["required"] == ["a", "d"]
    assert await call(tool, {"a": 1, "d": 4}) == [1, 2, 3, 4, 5, []]
    assert await call(tool, {"a": 1, "d": 4, "b": 9, "f": [6]}) == [1, 9, 3, 4, 5, [6]]


async def test_a_mutable_default_is_not_shared_between_calls() -> None:
    def handler(into: list[int] = []) -> list[int]:  # noqa: B006 that is what is tested
        into.append(1)
        return into

    tool = tool_from_function(handler)
    assert [await call(tool) for _ in range(3)] == [[1]] * 3


async def test_parameters_may_have_any_name() -> None:
    def handler(self_: int, json: int, model_config: int, schema: int, _private: int, copy: int) -> int:
        return self_ + json + model_config + schema + _private + copy

    names = ["self_", "json", "model_config", "schema", "_private", "copy"]
    assert await call(tool_from_function(handler), dict.fromkeys(names, 1)) == 6


async def test_an_alias_is_the_scripts_name() -> None:
    def handler(from_: Annotated[str, Field(alias="from")]) -> str:
        return from_

    tool = tool_from_function(handler)
    assert await call(tool, {"from": "a"}) == "a"
    assert tool.arguments(tool.validate(b'{"from": "a"}')) == {"from": "a"}


async def test_annotations_that_are_text_are_read_where_the_handler_is_written() -> None:
    class Local(BaseModel):
        n: int

    def handler(value: Local) -> Local:
        return Local(n=value.n + 1)

    assert await call(tool_from_function(handler), {"value": {"n": 1}}) == {"n": 2}


async def test_methods_objects_partials_and_decorated_functions_are_handlers() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        async def get(self, id: int) -> str:
            """Get one."""
            return f"{self.name} {id}"

        def __call__(self, id: int) -> str:
            return f"called {id}"

        @staticmethod
        def still(id: int) -> int:
            return id

        @classmethod
        def made(cls, id: int) -> str:
            return f"{cls.__name__} {id}"

    def plain(a: int, b: int, token: str = "t") -> str:
        return f"{a} {b} {token}"

    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    shop = Shop("shop")
    assert await call(tool_from_function(shop.get), {"id": 1}) == "shop 1"
    assert tool_from_function(shop.get).description == "Get one."
    assert await call(tool_from_function(shop, name="shop"), {"id": 1}) == "called 1"
    assert await call(tool_from_function(Shop.still), {"id": 1}) == 1
    assert await call(tool_from_function(shop.made), {"id": 1}) == "Shop 1"
    assert await call(tool_from_function(traced(shop.get)), {"id": 2}) == "shop 2"
    bound = tool_from_function(functools.partial(plain, 1, token="hidden"), name="bound")
    assert bound.input_schema["properties"] == {"b": {"type": "integer"}}
    assert await call(bound, {"b": 2}) == "1 2 hidden"
    assert await call(tool_from_function(functools.partial(shop.get, 7)), {}) == "shop 7"


# --- Calls -----------------------------------------------------------------------------------------------------------


async def test_a_def_handler_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    def blocking() -> int:
        return threading.get_ident()

    async def quick() -> int:
        return threading.get_ident()

    here = threading.get_ident()
    assert await call(tool_from_function(blocking)) != here
    assert await call(tool_from_function(quick)) == here
    assert await call(tool_from_function(blocking, run_in_thread=False)) == here


async def test_what_a_def_handler_returns_to_be_awaited_is_awaited() -> None:
    async def inner(id: int) -> int:
        return id + 1

    def outer(id: int) -> Awaitable[int]:
        return inner(id)

    def outer_coroutine(id: int) -> Coroutine[Any, Any, int]:
        return inner(id)

    for handler in (outer, outer_coroutine):
        tool = tool_from_function(handler)
        assert tool.output_schema == {"type": "integer"}
        assert await call(tool, {"id": 1}) == 2
    untyped = cast("Callable[..., Any]", lambda args: inner(args["id"]))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert await call(tool_from_function(untyped, name="x"), {"id": 1}) == 2


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_a_handler_can_not_take_the_loop_with_it(error: BaseException, in_thread: bool) -> None:
    def in_a_thread() -> None:
        raise error

    async def on_the_loop() -> None:
        raise error

    tool = tool_from_function(in_a_thread if in_thread else on_the_loop)
    with pytest.raises(HandlerAbortedError) as caught:
        await call(tool)
    assert caught.value.__cause__ is error


async def test_an_ordinary_error_comes_through_as_it_is() -> None:
    async def fail() -> None:
        raise ToolError("no such order", code="NO_SUCH_ORDER")

    with pytest.raises(ToolError, match="no such order") as caught:
        await call(tool_from_function(fail))
    assert caught.value.code == "NO_SUCH_ORDER"


async def test_a_cancelled_call_cancels_an_async_handler() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(call(tool_from_function(hang)))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_timeout_within_a_handler_is_the_handlers_own_error() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await call(tool_from_function(impatient))


def test_the_arguments_that_policy_judges_have_their_defaults() -> None:
    def pay(amount: float = 500.0, day: Literal["now", "later"] = "now", item: Item | None = None) -> None:
        """Pay."""

    tool = tool_from_function(pay)
    assert tool.arguments(tool.validate(b"{}")) == {"amount": 500.0, "day": "now", "item": None}
    validated = tool.validate(b'{"amount": 1, "item": {"sku": "s"}}')
    assert tool.arguments(validated) == {"amount": 1.0, "day": "now", "item": {"sku": "s", "quantity": 1}}


# --- Options ---------------------------------------------------------------------------------------------------------


def test_a_tool_keeps_what_policy_needs_and_is_frozen() -> None:
    def handler() -> None:
        """Do it."""

    tool = tool_from_function(
        handler,
        secrets=["KEY"],
        timeout=timedelta(seconds=5),
        requires_auth=True,
        requires_approval=True,
        description="Other words.",
    )
    assert (tool.name, tool.secrets, tool.timeout, tool.description) == ("handler", ("KEY",), 5.0, "Other words.")
    assert (tool.effect, tool.requires_auth, tool.requires_approval) == ("write", True, True)
    assert tool.handler is handler
    assert tool.output_schema == {"type": "null"}
    with pytest.raises(FrozenInstanceError):
        tool.effect = "read"  # pyright: ignore[reportAttributeAccessIssue] that is what is tested


def test_a_missing_result_type_is_warned_about_at_the_handlers_line_if_asked_for() -> None:
    def untyped(id: int):
        return id

    def typed(id: int) -> Any:
        return id

    with pytest.warns(UserWarning, match="untyped doesn't say what it returns") as caught:
        tool = tool_from_function(untyped, warn_without_result_type=True)
    assert caught[0].filename == __file__
    assert caught[0].lineno == untyped.__code__.co_firstlineno
    assert tool.output_schema is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tool_from_function(untyped)
        tool_from_function(typed, warn_without_result_type=True)

from __future__ import annotations

import asyncio
import functools
from typing import Any

import msgspec
import pytest

from enclave_broker import ConfigurationError, ToolCall
from enclave_broker.broker.calls.middleware.compose import CallNext, check_middleware, compose
from enclave_broker.broker.calls.middleware.timeout import Timeout
from tests.broker.calls.middleware.support import BOB, Handler, a_call, around, error_of


class Marking:
    """A middleware of the simplest kind: it writes down when it is entered and left."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.lines = lines

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        self.lines.append(f"into {self.name}")
        value = await call_next(call)
        self.lines.append(f"out of {self.name}")
        return value


async def test_the_first_middleware_is_the_outermost() -> None:
    lines: list[str] = []

    async def innermost(call: ToolCall) -> str:
        lines.append("handler")
        return call.name

    invoke = around(innermost, Marking("a", lines), Marking("b", lines))
    assert await invoke(a_call()) == "users:get"
    assert lines == ["into a", "into b", "handler", "out of b", "out of a"]


def test_without_middleware_nothing_is_put_around_the_innermost() -> None:
    handler = Handler(1)
    assert compose((), handler) is handler


async def test_a_middleware_may_answer_by_itself_change_arguments_and_result_and_call_on_twice() -> None:
    async def answers(call: ToolCall, call_next: CallNext) -> Any:
        return "kept" if call.args.get("kept") else await call_next(call)

    async def doubles(call: ToolCall, call_next: CallNext) -> Any:
        return [await call_next(call), await call_next(call.replace(args={"id": 8}))]

    handler = Handler("one", "two")
    invoke = around(handler, answers, doubles)
    assert await invoke(a_call(args={"kept": True})) == "kept"
    assert handler.calls == []
    assert await invoke(a_call()) == ["one", "two"]
    assert [call.args for call in handler.calls] == [{"id": 7}, {"id": 8}]


async def test_calls_at_the_same_time_do_not_mix() -> None:
    async def tags(call: ToolCall, call_next: CallNext) -> Any:
        await asyncio.sleep(0)
        return await call_next(call.replace(args={"id": call.id}))

    async def innermost(call: ToolCall) -> Any:
        await asyncio.sleep(0)
        return call.id, call.args["id"]

    invoke = around(innermost, tags, tags)
    got = await asyncio.gather(*(invoke(a_call(id=f"c_{n}")) for n in range(100)))
    assert got == [(f"c_{n}", f"c_{n}") for n in range(100)]


@pytest.mark.parametrize(
    "change",
    [{"name": "admin:wipe"}, {"id": "c_2"}, {"session_id": "s_2"}, {"principal": BOB}, {"effect": "idempotent"}],
)
async def test_a_middleware_can_change_nothing_of_a_call_but_its_arguments(change: dict[str, Any]) -> None:
    async def changes(call: ToolCall, call_next: CallNext) -> Any:
        return await call_next(msgspec.structs.replace(call, **change))

    lines: list[str] = []
    handler = Handler("ran")
    error = await error_of(around(handler, changes, Marking("inner", lines))(a_call()))
    assert isinstance(error, ValueError)
    assert next(iter(change)) in str(error)
    assert handler.calls == []
    assert lines == [], "no middleware further in may see the changed call"


async def test_an_error_passes_through_every_middleware_as_it_is() -> None:
    lines: list[str] = []
    fault = KeyError("x")
    invoke = around(Handler(fault), Marking("a", lines), Marking("b", lines))
    assert await error_of(invoke(a_call())) is fault
    assert lines == ["into a", "into b"]


async def good(call: ToolCall, call_next: CallNext) -> Any:
    return await call_next(call)


class Owner:
    async def method(self, call: ToolCall, call_next: CallNext) -> Any:
        return [await call_next(call)]


async def with_option(option: str, call: ToolCall, call_next: CallNext) -> Any:
    return [option, await call_next(call)]


async def test_functions_methods_objects_and_partials_are_middleware() -> None:
    given = [good, Owner().method, Timeout(5), functools.partial(with_option, "x")]
    assert check_middleware(given) == tuple(given)
    assert await around(Handler(1), *given)(a_call()) == [["x", 1]]


def plain(call: ToolCall, call_next: CallNext) -> Any:
    return call_next(call)


async def too_few(call: ToolCall) -> None: ...


async def too_many(call: ToolCall, call_next: CallNext, more: int) -> None: ...


async def keywords(*, call: ToolCall, call_next: CallNext) -> None: ...


async def generates(call: ToolCall, call_next: CallNext) -> Any:
    yield await call_next(call)


class Lazy:
    def __call__(self, call: ToolCall, call_next: CallNext) -> Any: ...


WRONG: list[tuple[Any, str]] = [
    (None, "async def"),
    ("Timeout", "async def"),
    (5, "async def"),
    (plain, "async def"),
    (lambda call, call_next: call_next(call), "async def"),  # pyright: ignore[reportUnknownLambdaType]
    (Lazy(), "async def"),
    (generates, "async def"),
    (Timeout, r"Timeout\(\.\.\.\)"),
    (too_few, "call, call_next"),
    (too_many, "more"),
    (keywords, "call, call_next"),
    (functools.partial(good, a_call(), Handler(1)), "call, call_next"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG)
def test_what_is_no_async_function_of_two_is_refused_when_it_is_loaded(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        check_middleware([good, wrong], "Broker: middleware")
    assert str(raised.value).startswith("Broker: middleware")


@pytest.mark.parametrize("wrong", [good, "text", {good}, None, iter([good])])
def test_middleware_comes_in_a_list_since_its_order_counts(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="is a list"):
        check_middleware(wrong)

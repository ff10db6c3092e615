"""Handlers and options that no tool can be made of: each is refused where it is registered."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from enclave_broker.broker.tools.context import ToolContext
from enclave_broker.broker.tools.tool import tool_from_function, tool_from_router_handler
from enclave_broker.types.errors import ConfigurationError


class Item(BaseModel):
    sku: str


async def async_generator() -> AsyncIterator[int]:
    yield 1


def generator() -> Iterator[int]:
    yield 1


def star(*ids: int) -> None: ...
def keywords(**ids: int) -> None: ...
def two_contexts(a: ToolContext, b: ToolContext) -> None: ...
def endless() -> Iterator[int]: ...  # pyright: ignore[reportReturnType]
def not_an_object(args: list[int]) -> None: ...
def maybe_an_object(args: Item | None) -> None: ...
def unknown_type(value: threading.Thread) -> None: ...
def unknown_result() -> threading.Thread: ...  # pyright: ignore[reportReturnType]
def unknown_name(value: Any) -> None: ...
def callback(value: Callable[[int], int]) -> None: ...


unknown_name.__annotations__["value"] = "Nowhere"


class Unbound:
    def get(self, id: int) -> int:
        return id


REFUSED: list[tuple[Any, str]] = [
    (async_generator, "return a list"),
    (generator, "return a list"),
    (endless, "return a list"),
    (star, "ids: list"),
    (keywords, "args: dict"),
    (two_contexts, "one is given"),
    (not_an_object, "another name"),
    (maybe_an_object, "another name"),
    (unknown_type, "the arguments"),
    (unknown_result, "the result"),
    (unknown_name, "Nowhere"),
    (callback, "the arguments"),
    (Unbound.get, "isn't bound"),
    (Unbound, "not the class Unbound"),
    (Item(sku="x"), "not 'Item'"),
    (5, "not 'int'"),
    (None, "not 'NoneType'"),
]


@pytest.mark.parametrize(("handler", "hint"), REFUSED)
def test_a_handler_that_can_not_be_called_safely_is_refused_with_what_to_write(handler: Any, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool_from_function(handler, name="orders:x")
    assert hint in caught.value.message
    assert "tool orders:x" in caught.value.message
    assert isinstance(caught.value, ValueError)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="<lambda>"):
        tool_from_function(lambda: None)


def only_args(args: dict[str, Any]) -> None: ...
def three(name: str, args: dict[str, Any], more: int) -> None: ...
def keyword_only(name: str, *, args: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("handler", [only_args, three, keyword_only])
def test_a_routers_handler_of_another_shape_is_refused(handler: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="name: str, args: dict"):
        tool_from_router_handler("db:*", handler)


def test_a_routers_pattern_has_to_be_one() -> None:
    with pytest.raises(ConfigurationError, match="without"):
        tool_from_router_handler("db:[", print)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"effect": "wriet"}, "read, idempotent, write"),
        ({"secrets": "KEY"}, "a list or tuple"),
        ({"secrets": [1]}, "a list or tuple"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"middleware": print}, "a list"),
        ({"name": "a b"}, "can't be a tool's name"),
        ({"name": "tools:x"}, "reserved"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        tool_from_function(only_args, **options)

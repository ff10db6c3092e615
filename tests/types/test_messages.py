from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.types.messages import (
    CallEffect,
    CallFulfilled,
    CallRejected,
    ConsoleEffect,
    Effect,
    Failed,
    Input,
    Returned,
    ScriptFailure,
    StartMessage,
    Stuck,
    TimerCleared,
    TimerFired,
    TimerSet,
    UnhandledRejection,
    Verdict,
    decode_effects,
    encode_inputs,
    encode_start,
    start_budget,
)

u32 = st.integers(0, 2**32 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)
starts = st.builds(
    StartMessage,
    code=st.text(),
    seed=st.integers(1, 2**64 - 1),
    now=finite,
    max_memory_bytes=u32,
    max_stdout_bytes=u32,
    max_args_bytes=u32,
    max_result_bytes=u32,
    max_calls=u32,
    max_timers=u32,
    cpu_ms=u32,
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


inputs = st.one_of(
    st.builds(CallFulfilled, u32, finite, st.builds(raw, json_values) | st.just(msgspec.Raw(b""))),
    st.builds(CallRejected, u32, finite, st.builds(raw, json_values)),
    st.builds(TimerFired, u32, finite),
)


@given(starts)
def test_a_start_is_a_header_of_48_bytes_and_the_code(message: StartMessage) -> None:
    body = encode_start(message)
    assert struct.unpack_from("<QdIIIIIIII", body) == (
        message.seed,
        message.now,
        message.max_memory_bytes,
        message.max_stdout_bytes,
        message.max_args_bytes,
        message.max_result_bytes,
        message.max_calls,
        message.max_timers,
        message.cpu_ms,
        0,
    )
    assert body[48:] == message.code.encode("utf-8", "replace")
    assert start_budget(body) == (message.max_memory_bytes, message.cpu_ms)


def plain(item: Input) -> tuple[int, int, float, bytes]:
    match item:
        case CallFulfilled(id, now, value):
            return 1, id, now, bytes(value)
        case CallRejected(id, now, error):
            return 2, id, now, bytes(error)
        case TimerFired(id, now):
            return 3, id, now, b""


def decoded(body: bytes) -> list[tuple[int, int, float, bytes]]:
    """What the shim makes of a delivery, written anew from the layout."""
    found: list[tuple[int, int, float, bytes]] = []
    at = 0
    while at < len(body):
        kind, id, now, length = struct.unpack_from("<IIdI", body, at)
        at += 20
        found.append((kind, id, now, body[at : at + length]))
        at += length
    assert at == len(body)
    return found


@given(st.lists(inputs, max_size=6))
def test_inputs_are_read_back_as_they_were_written(items: list[Input]) -> None:
    assert decoded(encode_inputs(items)) == [plain(item) for item in items]


@given(st.lists(inputs, max_size=6), st.integers(0, 6))
def test_inputs_in_one_body_are_the_bodies_of_each_after_the_other(items: list[Input], at: int) -> None:
    assert encode_inputs(items) == encode_inputs(items[:at]) + encode_inputs(items[at:])


EFFECTS: list[tuple[str, Effect]] = [
    ('[1,1,"t",{"a":[1]}]', CallEffect(1, "t", {"a": [1]})),
    ('[2,4,"x"]', ConsoleEffect(4, "x")),
    ("[3,2,0]", TimerSet(2, 0.0)),
    ("[3,2,1.5]", TimerSet(2, 1.5)),
    ("[4,2]", TimerCleared(2)),
    ("[5,null]", Returned(None)),
    ("[5]", Returned()),
    ('[6,{"name":"TypeError","message":"m","line":1}]', Failed(ScriptFailure("m", name="TypeError", line=1))),
    ("[7]", Stuck()),
    ('[8,"Error: m"]', UnhandledRejection("Error: m")),
]


@pytest.mark.parametrize(("wire", "effect"), EFFECTS)
def test_each_effect_is_what_the_engine_wrote(wire: str, effect: Effect) -> None:
    assert decode_effects(f"[{wire}]".encode()) == [effect]


def test_effects_keep_their_order() -> None:
    body = f"[{','.join(wire for wire, _ in EFFECTS)}]".encode()
    assert decode_effects(body) == [effect for _, effect in EFFECTS]
    assert decode_effects(memoryview(b"[]")) == []


def test_a_value_of_undefined_is_no_null() -> None:
    (undefined,) = decode_effects(b"[[5]]")
    assert isinstance(undefined, Returned)
    assert undefined.value is msgspec.UNSET


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[",
        b"[[1,1]]",
        b'[[1,"1","t",{}]]',
        b'[[1,1,"t",[]]]',
        b'[[1,1,"t",null]]',
        b"[[9]]",
        b"[[0]]",
        b'[["1",1,"t",{}]]',
        b"[[2,0]]",
        b"[[3,1,null]]",
        b"[[3,1,NaN]]",
        b"[[6,null]]",
        b"[[6,{}]]",
        b'[[2,0,"\xff"]]',
        b"[[7]] ]",
        b"\x00",
        b"[" * 100_000,
    ],
)
def test_what_no_engine_writes_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the contract is the type: the message is for the log
        decode_effects(body)


@given(st.binary(max_size=200))
def test_random_bytes_decode_or_are_a_value_error(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_effects(body)


@given(st.lists(json_values, max_size=3))
def test_random_json_decodes_to_effects_or_is_a_value_error(value: Any) -> None:
    try:
        found = decode_effects(json.dumps(value).encode())
    except ValueError:
        return
    assert all(type(item) in {type(effect) for _, effect in EFFECTS} for item in found)


def test_verdicts_have_the_numbers_that_the_shim_writes() -> None:
    assert {verdict.name: int(verdict) for verdict in Verdict} == {
        "NONE": 0,
        "MEMORY_LIMIT": 1,
        "CPU_LIMIT": 2,
        "STDOUT_LIMIT": 3,
        "ENGINE_FAULT": 4,
        "HOST_MEMORY": 5,
    }

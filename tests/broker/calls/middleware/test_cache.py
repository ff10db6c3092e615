from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable
from typing import Any, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from enclave_broker import ConfigurationError, Principal, ToolError
from enclave_broker.broker.calls.middleware.cache import ENTRY_BYTES, Cache, Kept
from enclave_broker.broker.calls.middleware.compose import CallNext
from tests.broker.calls.middleware.support import ALICE, BOB, Door, Handler, a_call, around, error_of, spawn
from tests.broker.sessions.support import jumping, turns

# --- What is answered, and for whom ----------------------------------------------------------------------------------


@jumping
async def test_the_same_question_is_asked_once_within_its_time() -> None:
    handler = Handler("first", "second")
    invoke = around(handler, Cache(60))
    assert [await invoke(a_call(id=f"c_{n}", session_id=f"s_{n}")) for n in range(3)] == ["first"] * 3
    await asyncio.sleep(59.9)
    assert await invoke(a_call()) == "first"
    await asyncio.sleep(0.2)
    assert await invoke(a_call()) == "second"
    assert len(handler.calls) == 2


@jumping
async def test_a_result_is_as_old_as_its_call_not_as_its_answer() -> None:
    async def slow() -> str:
        await asyncio.sleep(8)
        return "slow"

    handler = Handler(slow)
    invoke = around(handler, Cache(10))
    await invoke(a_call())
    await asyncio.sleep(2.1)
    await invoke(a_call())
    assert len(handler.calls) == 2


@pytest.mark.parametrize("effect", ["write", "idempotent"])
@jumping
async def test_only_reads_are_cached(effect: str) -> None:
    handler = Handler(1, 2, 3)
    cache = Cache(60)
    invoke = around(handler, cache)
    await invoke(a_call())
    assert [await invoke(a_call(effect=effect)) for _ in range(2)] == [2, 3], "neither answered nor kept"
    assert await invoke(a_call()) == 1


OTHERS = [
    Principal("bob", tenant="acme"),
    Principal("alice", tenant="other"),
    Principal("alice"),
    Principal("alice", tenant=""),
    Principal("alice", tenant="acme", roles=frozenset({"admin"})),
    Principal("acme", tenant="alice"),
    Principal("aliceacme"),
    Principal("anonymous"),
]


@pytest.mark.parametrize("other", OTHERS, ids=repr)
@jumping
async def test_nobody_gets_what_another_asked(other: Principal) -> None:
    invoke = around(Handler("Alice's", "the other's"), Cache(60))
    assert await invoke(a_call(principal=ALICE)) == "Alice's"
    assert await invoke(a_call(principal=other)) == "the other's"
    assert await invoke(a_call(principal=ALICE)) == "Alice's"


@jumping
async def test_claims_make_no_difference_since_tokens_differ_each_time() -> None:
    invoke = around(Handler(1, 2), Cache(60))
    principals = [Principal("alice", claims={"jti": str(n)}) for n in range(2)]
    assert [await invoke(a_call(principal=principal)) for principal in principals] == [1, 1]


@jumping
async def test_what_is_for_everyone_is_shared_if_the_host_says_so() -> None:
    invoke = around(Handler(1, 2), Cache(60, key="everyone"))
    assert [await invoke(a_call(principal=principal)) for principal in (ALICE, BOB, *OTHERS)] == [1] * 10


@jumping
async def test_tools_of_one_cache_do_not_answer_for_each_other() -> None:
    invoke = around(Handler(1, 2), Cache(60))
    assert [await invoke(a_call(name=name)) for name in ("a", "b", "a")] == [1, 2, 1]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
ARGS = st.dictionaries(st.text(max_size=3), JSON_VALUES, max_size=4)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same value of the same type; names of objects have no order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        names = list(cast("dict[str, Any]", one))
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in names)
    if isinstance(one, list):
        items = cast("list[Any]", one)
        return len(items) == len(other) and all(map(same, items, other))
    return repr(one) == repr(other)  # -0.0 isn't 0.0


def shuffled(value: Any, random: Any) -> Any:
    """The same value with the names of objects in another order."""
    if isinstance(value, dict):
        names = list(cast("dict[str, Any]", value))
        random.shuffle(names)
        return {name: shuffled(value[name], random) for name in names}
    return [shuffled(item, random) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def key_of(args: dict[str, Any]) -> Hashable:
    key = Cache(60).key(a_call(args=args))
    assert key is not None
    return key


@given(args=ARGS, random=st.randoms(use_true_random=False))
def test_the_order_of_names_makes_no_difference(args: dict[str, Any], random: Any) -> None:
    assert key_of(shuffled(args, random)) == key_of(args)
    assert key_of(json.loads(json.dumps(args))) == key_of(args)


@given(one=ARGS, other=ARGS)
def test_different_arguments_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (key_of(one) == key_of(other)) == same(one, other)


@given(args=ARGS, data=st.data())
def test_a_change_of_one_value_changes_the_key(args: dict[str, Any], data: st.DataObject) -> None:
    assume(args)
    name = data.draw(st.sampled_from(sorted(args)))
    value = data.draw(JSON_VALUES)
    assume(not same(args[name], value))
    assert key_of({**args, name: value}) != key_of(args)


ALIKE = [1, 1.0, True, "1", "true", [1], {"1": None}, None, "null", 0, False, 0.0, -0.0, "", [], {}, "é", "e\u0301"]


def test_values_that_look_alike_have_keys_of_their_own() -> None:
    assert len({key_of({"x": value}) for value in ALIKE} | {key_of({}), key_of({"y": 1})}) == len(ALIKE) + 2


@pytest.mark.parametrize("odd", [object(), {1: 2}, "\ud800", 2 + 1j], ids=repr)
@jumping
async def test_arguments_that_are_no_json_pass_untouched(odd: Any) -> None:
    handler = Handler(1, 2)
    invoke = around(handler, Cache(60))
    assert [await invoke(a_call(args={"x": odd})) for _ in range(2)] == [1, 2]


# --- What is kept ----------------------------------------------------------------------------------------------------


@jumping
async def test_errors_are_not_kept() -> None:
    fault = ToolError("busy")
    handler = Handler(fault, fault, "well", "never")
    invoke = around(handler, Cache(60))
    assert [await error_of(invoke(a_call())) for _ in range(2)] == [fault, fault]
    assert [await invoke(a_call()) for _ in range(2)] == ["well", "well"]


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, {"a": [1.5, 2**70, "é\u2028"]}], ids=repr)
@jumping
async def test_any_value_is_kept_as_it_is(value: Any) -> None:
    handler = Handler(value, "never")
    invoke = around(handler, Cache(60))
    assert [repr(await invoke(a_call())) for _ in range(3)] == [repr(value)] * 3
    assert len(handler.calls) == 1


@jumping
async def test_each_caller_gets_a_copy_that_it_may_change() -> None:
    async def spoils(call: Any, call_next: CallNext) -> Any:
        value = await call_next(call)
        before = json.dumps(value)
        value["rows"].append("spoilt")
        return before

    handler = Handler({"rows": [1, 2]})
    invoke = around(handler, spoils, Cache(60))
    assert [await invoke(a_call()) for _ in range(3)] == ['{"rows": [1, 2]}'] * 3
    assert len(handler.calls) == 1


@jumping
async def test_what_can_not_be_json_or_is_too_large_passes_and_is_not_kept() -> None:
    looped: list[Any] = []
    looped.append(looped)
    shared: list[Any] = ["x"]
    for _ in range(60):
        shared = [shared, shared]
    for value in (object(), looped, shared, "x" * 3_000):
        handler = Handler(value)
        invoke = around(handler, Cache(60, max_bytes=2_000))
        assert [(await invoke(a_call())) is value for _ in range(2)] == [True, True]
        assert len(handler.calls) == 2


class KeptModel(RuleBasedStateMachine):
    """What is kept is what was put last and used last, within both bounds."""

    max_entries, max_bytes = 4, 4 * ENTRY_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.kept = Kept(self.max_entries, self.max_bytes)
        self.model: dict[str, tuple[float, bytes]] = {}
        """In the order of use."""
        self.now = 0.0

    @rule(seconds=st.sampled_from([1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.sampled_from("abcdef"), size=st.sampled_from([1, 100, ENTRY_BYTES, 3 * ENTRY_BYTES + 1]))
    def put(self, key: str, size: int) -> None:
        self.kept.put(key, b"x" * size, self.now + 5)
        self.model.pop(key, None)
        if size + ENTRY_BYTES > self.max_bytes:
            return
        self.model[key] = self.now + 5, b"x" * size
        while len(self.model) > self.max_entries or self.size() > self.max_bytes:
            del self.model[next(iter(self.model))]

    @rule(key=st.sampled_from("abcdef"))
    def get(self, key: str) -> None:
        expires, text = self.model.pop(key, (0.0, b""))
        fresh = expires > self.now
        assert self.kept.get(key, self.now) == (text if fresh else None)
        if fresh:
            self.model[key] = expires, text

    def size(self) -> int:
        return sum(len(text) + ENTRY_BYTES for _, text in self.model.values())

    @invariant()
    def counts_what_it_holds(self) -> None:
        assert list(self.kept) == list(self.model)
        assert self.kept.size == self.size() <= self.max_bytes


TestKeptModel = settings(max_examples=60)(KeptModel).TestCase

# --- Equal calls at once ---------------------------------------------------------------------------------------------


@jumping
async def test_equal_calls_at_once_are_one() -> None:
    door = Door()
    invoke = around(door, Cache(60))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(5)]
    other = await spawn(invoke, a_call(id="c_other", principal=BOB))
    assert door.entered == ["c_0", "c_other"]
    door.open("c_0", {"rows": []})
    values = await asyncio.gather(*tasks)
    assert values == [{"rows": []}] * 5
    assert len(set(map(id, values))) == 5, "each has its own copy"
    door.open("c_other")
    await other


@jumping
async def test_who_waits_may_give_up_without_harm_to_the_others() -> None:
    door = Door()
    invoke = around(door, Cache(60))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(3)]
    tasks[1].cancel()
    await turns()
    assert tasks[1].cancelled()
    assert not tasks[0].done()
    assert not tasks[2].done()
    door.open("c_0", "result")
    assert await asyncio.gather(tasks[0], tasks[2]) == ["result"] * 2


@jumping
async def test_when_the_first_is_cancelled_the_next_asks_for_all() -> None:
    door = Door()
    invoke = around(door, Cache(60))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(4)]
    tasks[0].cancel()
    await turns()
    assert tasks[0].cancelled()
    assert door.entered == ["c_0", "c_1"]
    door.open("c_1", "result")
    assert await asyncio.gather(*tasks[1:]) == ["result"] * 3


@jumping
async def test_when_the_first_fails_the_others_ask_on_their_own() -> None:
    door = Door()
    invoke = around(door, Cache(60))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(3)]
    fault = ToolError("busy")
    door.open("c_0", fault)
    assert await error_of(tasks[0]) is fault
    await turns()
    assert door.inside == ["c_1", "c_2"]
    door.open("c_1", "one")
    door.open("c_2", "two")
    assert await asyncio.gather(*tasks[1:]) == ["one", "two"]


@jumping
async def test_a_result_that_can_not_be_kept_is_not_shared() -> None:
    door = Door()
    invoke = around(door, Cache(60))
    tasks = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(2)]
    odd = object()
    door.open("c_0", odd)
    assert await tasks[0] is odd
    await turns()
    door.open("c_1", "own")
    assert await tasks[1] == "own"


@jumping
async def test_nothing_of_a_call_that_is_over_is_held() -> None:
    cache = Cache(60)
    for outcome in ("value", KeyError("x"), asyncio.CancelledError()):
        invoke = around(Handler(outcome), cache)
        await asyncio.gather(invoke(a_call(args={"x": repr(outcome)})), return_exceptions=True)
    assert cache._asked == {}  # pyright: ignore[reportPrivateUsage] nothing else shows it


@pytest.mark.parametrize(
    "options",
    [{"ttl": 0}, {"ttl": None}, {"ttl": 1, "key": "nobody"}, {"ttl": 1, "max_entries": 0}, {"ttl": 1, "max_bytes": 1}],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Cache"):
        Cache(**options)

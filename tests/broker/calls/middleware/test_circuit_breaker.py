from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enclave_broker import ConfigurationError, RateLimitError, ToolError
from enclave_broker.broker.calls.middleware import circuit_breaker
from enclave_broker.broker.calls.middleware.circuit_breaker import Circuit, CircuitBreaker
from enclave_broker.broker.calls.middleware.concurrency_limit import ConcurrencyLimit
from enclave_broker.types.errors import StoreError, ToolTimeoutError, ToolValidationError
from tests.broker.calls.middleware.support import Door, Handler, a_call, around, error_of, own_log, spawn
from tests.broker.sessions.support import jumping, turns

# --- The state machine -----------------------------------------------------------------------------------------------


def taken(ticket: int | None) -> int:
    assert ticket is not None
    return ticket


def opened(failures: int = 2, reset_after: float = 10.0) -> Circuit:
    """One that was opened at 0."""
    circuit = Circuit(failures, reset_after)
    for _ in range(failures):
        circuit.failed(taken(circuit.admit(0.0)), 0.0)
    return circuit


def test_failures_in_a_row_open_a_circuit_and_a_success_between_them_starts_the_count_anew() -> None:
    circuit = Circuit(3, 10.0)
    for outcome in "FFSFFSFF":
        ticket = taken(circuit.admit(1.0))
        assert not (circuit.succeeded(ticket) if outcome == "S" else circuit.failed(ticket, 1.0))
    assert circuit.state(1.0) == "closed"
    assert circuit.failed(taken(circuit.admit(2.0)), 2.0)
    assert circuit.state(2.0) == "open"
    assert circuit.admit(11.9) is None
    assert circuit.retry_after(2.0) == 10.0
    assert circuit.retry_after(9.0) == 3.0


def test_a_half_open_circuit_lets_one_probe_through() -> None:
    circuit = opened()
    assert circuit.state(10.0) == "half_open"
    ticket = taken(circuit.admit(10.0))
    assert [circuit.admit(now) for now in (10.0, 11.0, 1000.0)] == [None] * 3
    assert circuit.retry_after(11.0) == 0
    assert circuit.succeeded(ticket)
    assert circuit.state(11.0) == "closed"
    assert not circuit.failed(taken(circuit.admit(12.0)), 12.0), "the count begins anew"


def test_a_probe_that_fails_opens_the_circuit_for_as_long_again() -> None:
    circuit = opened()
    assert circuit.failed(taken(circuit.admit(15.0)), 20.0)
    assert circuit.admit(29.9) is None
    assert circuit.admit(30.0) is not None


def test_a_probe_that_says_nothing_makes_room_for_the_next() -> None:
    circuit = opened()
    circuit.released(taken(circuit.admit(10.0)))
    assert circuit.state(10.0) == "half_open"
    assert circuit.admit(10.0) is not None
    assert circuit.admit(10.0) is None


def test_calls_of_an_earlier_state_neither_close_nor_open_nor_release() -> None:
    circuit = Circuit(2, 10.0)
    old = [taken(circuit.admit(0.0)) for _ in range(6)]
    circuit.failed(old[0], 0.0)
    circuit.failed(old[1], 0.0)
    assert not circuit.succeeded(old[2])
    assert not circuit.failed(old[3], 9.0)
    assert circuit.admit(9.9) is None
    probe = taken(circuit.admit(10.0))
    circuit.released(old[4])
    assert circuit.admit(10.0) is None, "the probe is still under way"
    assert circuit.succeeded(probe)
    circuit.failed(old[5], 11.0)
    circuit.failed(taken(circuit.admit(11.0)), 11.0)
    assert circuit.state(11.0) == "closed"


class CircuitModel(RuleBasedStateMachine):
    """Whatever ends in whatever order: what a circuit admits follows from the outcomes of its present state alone."""

    failures, reset_after = 3, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(self.failures, self.reset_after)
        self.now = 0.0
        self.under_way: list[tuple[int, int]] = []
        """Ticket, and the number of the model's state in which it was given."""
        self.era = 0
        self.in_a_row = 0
        self.opens_at: float | None = None
        self.probing = False

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_asks(self) -> None:
        ticket = self.circuit.admit(self.now)
        closed = self.opens_at is None
        due = self.opens_at is not None and self.now >= self.opens_at and not self.probing
        assert (ticket is not None) == (closed or due)
        if ticket is not None:
            self.probing = due
            self.under_way.append((ticket, self.era))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "failure", "nothing"]))
    def a_call_ends(self, data: st.DataObject, outcome: str) -> None:
        ticket, era = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        counts = era == self.era
        if outcome == "nothing":
            self.circuit.released(ticket)
            self.probing = self.probing and not counts
        elif outcome == "success":
            closes = counts and self.opens_at is not None
            assert self.circuit.succeeded(ticket) == closes
            self.in_a_row = 0 if counts else self.in_a_row
            if closes:
                self.opens_at, self.probing = None, False
                self.era += 1
        else:
            self.in_a_row += counts
            opens = counts and (self.opens_at is not None or self.in_a_row >= self.failures)
            assert self.circuit.failed(ticket, self.now) == opens
            if opens:
                self.opens_at, self.probing = self.now + self.reset_after, False
                self.era += 1

    @invariant()
    def it_shows_its_state(self) -> None:
        if self.opens_at is None:
            assert self.circuit.state(self.now) == "closed"
            assert self.circuit.retry_after(self.now) == 0
        else:
            assert self.circuit.state(self.now) == ("open" if self.now < self.opens_at else "half_open")
            assert self.circuit.retry_after(self.now) == max(0.0, self.opens_at - self.now)


TestCircuitModel = CircuitModel.TestCase

# --- Around a handler ------------------------------------------------------------------------------------------------

LOST = ConnectionError("the line was cut")


async def codes_of(invoke: Any, count: int, **fields: Any) -> list[str]:
    """How calls one after the other end."""
    found: list[str] = []
    for _ in range(count):
        try:
            found.append(str(await invoke(a_call(**fields))))
        except ToolError as error:
            found.append(error.code)
        except Exception as error:  # noqa: BLE001 looked at
            found.append(type(error).__name__)
    return found


@jumping
async def test_a_tool_that_keeps_failing_is_left_alone_then_probed_then_called_as_before() -> None:
    handler = Handler(LOST)
    invoke = around(handler, CircuitBreaker(3, 30.0))
    assert await codes_of(invoke, 6) == ["ConnectionError"] * 3 + ["CIRCUIT_OPEN"] * 3
    assert len(handler.calls) == 3
    await asyncio.sleep(30.1)
    assert await codes_of(invoke, 2) == ["ConnectionError", "CIRCUIT_OPEN"]
    await asyncio.sleep(30.1)
    handler.outcomes = ["well"]
    assert await codes_of(invoke, 3) == ["well"] * 3


@jumping
async def test_a_refusal_names_the_tool_and_says_when_to_try_again() -> None:
    invoke = around(Handler(LOST), CircuitBreaker(1, 30.0))
    await codes_of(invoke, 1)
    await asyncio.sleep(10)
    error = await error_of(invoke(a_call()))
    assert isinstance(error, ToolError)
    assert error.code == "CIRCUIT_OPEN"
    assert "users:get" in error.message
    assert "in 20 s" in error.message
    assert error.details == [{"type": "retry_info", "retryDelayMs": 20_000}]


@jumping
async def test_each_tool_has_its_circuit_and_each_breaker_its_own() -> None:
    handler = Handler(LOST)
    breaker = CircuitBreaker(2)
    invoke = around(handler, breaker)
    await codes_of(invoke, 2)
    assert await codes_of(invoke, 1) == ["CIRCUIT_OPEN"]
    assert await codes_of(invoke, 1, name="users:list") == ["ConnectionError"]
    assert await codes_of(around(handler, CircuitBreaker(2)), 1) == ["ConnectionError"]
    assert await codes_of(around(handler, breaker), 1) == ["CIRCUIT_OPEN"]


@jumping
async def test_while_a_probe_is_under_way_all_others_are_refused() -> None:
    door = Door()
    invoke = around(door, CircuitBreaker(1, 30.0))
    task = await spawn(invoke, a_call(id="c_1"))
    door.open("c_1", LOST)
    assert await error_of(task) is LOST
    await asyncio.sleep(30.1)
    probe = await spawn(invoke, a_call(id="c_2"))
    assert await codes_of(invoke, 5) == ["CIRCUIT_OPEN"] * 5
    door.open("c_2", "well")
    assert await probe == "well"
    others = [await spawn(invoke, a_call(id=f"c_{n}")) for n in range(3, 6)]
    assert door.inside == ["c_3", "c_4", "c_5"]
    for number, task in enumerate(others, 3):
        door.open(f"c_{number}", number)
        assert await task == number


@jumping
async def test_a_probe_that_is_cancelled_lets_the_next_call_probe() -> None:
    door = Door()
    invoke = around(door, CircuitBreaker(1, 30.0))
    task = await spawn(invoke, a_call(id="c_1"))
    door.open("c_1", LOST)
    await error_of(task)
    await asyncio.sleep(30.1)
    probe = await spawn(invoke, a_call(id="c_2"))
    probe.cancel()
    await turns()
    assert probe.cancelled()
    following = await spawn(invoke, a_call(id="c_3"))
    assert door.inside == ["c_3"]
    door.open("c_3", "well")
    assert await following == "well"


@pytest.mark.parametrize("fault", [LOST, ToolTimeoutError("late"), ToolError("x", code="DOWN")], ids=str)
@jumping
async def test_what_counts_as_a_failure(fault: Exception) -> None:
    assert (await codes_of(around(Handler(fault), CircuitBreaker(2, codes={"DOWN"})), 3))[-1] == "CIRCUIT_OPEN"


ANSWERS = [ToolError("no such user"), ToolError("no such user, by code", code="NOT_THERE")]
REFUSALS = [
    ToolValidationError("invalid"),
    RateLimitError("wait"),
    StoreError("full"),
    ToolError("x", code="OVERLOADED"),
]


@pytest.mark.parametrize("other", ["well", *ANSWERS, *REFUSALS], ids=repr)
@jumping
async def test_what_is_no_failure_never_opens_a_circuit(other: Any) -> None:
    assert "CIRCUIT_OPEN" not in await codes_of(around(Handler(other), CircuitBreaker(2)), 5)


@pytest.mark.parametrize("answer", ["well", *ANSWERS], ids=repr)
@jumping
async def test_an_answer_starts_the_count_anew_and_closes_a_circuit(answer: Any) -> None:
    handler = Handler(LOST, answer, LOST, answer, LOST, LOST, answer)
    invoke = around(handler, CircuitBreaker(2, 30.0))
    assert "CIRCUIT_OPEN" not in await codes_of(invoke, 6)
    assert await codes_of(invoke, 1) == ["CIRCUIT_OPEN"]
    await asyncio.sleep(30.1)
    assert "CIRCUIT_OPEN" not in await codes_of(invoke, 3)


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
@jumping
async def test_a_refusal_of_the_brokers_says_nothing_about_the_tool(refusal: Exception) -> None:
    handler = Handler(LOST, refusal, LOST, refusal, LOST)
    invoke = around(handler, CircuitBreaker(2, 30.0))
    assert (await codes_of(invoke, 4))[-1] == "CIRCUIT_OPEN"
    await asyncio.sleep(30.1)
    assert "CIRCUIT_OPEN" not in await codes_of(invoke, 1)
    assert await codes_of(invoke, 2) == ["ConnectionError", "CIRCUIT_OPEN"], "half open still: one failure is enough"


@jumping
async def test_a_full_queue_further_in_closes_no_circuit() -> None:
    door = Door()
    invoke = around(door, CircuitBreaker(1, 30.0), ConcurrencyLimit(1, max_waiting=0))
    first = await spawn(invoke, a_call(id="c_1"))
    assert await codes_of(invoke, 3) == ["OVERLOADED"] * 3
    door.open("c_1", LOST)
    await error_of(first)
    assert await codes_of(invoke, 1) == ["CIRCUIT_OPEN"]


@jumping
async def test_the_number_of_circuits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "_MAX_CIRCUITS", 100)
    invoke = around(Handler(LOST), CircuitBreaker(1))
    await codes_of(invoke, 1)
    for number in range(300):
        assert await codes_of(invoke, 1, name=f"db:{number}") == ["ConnectionError"]
        assert await codes_of(invoke, 1) == ["CIRCUIT_OPEN"], "one that is used is kept"
    assert await codes_of(invoke, 1, name="db:299") == ["CIRCUIT_OPEN"]
    assert await codes_of(invoke, 1, name="db:0") == ["ConnectionError"], "the oldest is forgotten"


@jumping
async def test_the_log_says_when_a_circuit_opens_and_closes() -> None:
    with own_log() as records:
        handler = Handler(LOST)
        invoke = around(handler, CircuitBreaker(2, 30.0))
        await codes_of(invoke, 5)
        await asyncio.sleep(30.1)
        handler.outcomes = ["well"]
        await codes_of(invoke, 2)
    assert [record.levelname for record in records] == ["WARNING", "INFO"]
    assert all("users:get" in record.getMessage() for record in records)


@pytest.mark.parametrize(
    "options",
    [
        {"failures": 0},
        {"failures": True},
        {"reset_after": 0},
        {"reset_after": "1"},
        {"codes": "X"},
        {"codes": ["ACCESS_DENIED"]},
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="CircuitBreaker"):
        CircuitBreaker(**options)

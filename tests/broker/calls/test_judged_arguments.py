"""Rules with `when` judge what the handler gets: a deny rule that should apply applies, however a type is written."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, PlainSerializer

from enclave_broker import AccessController, AccessDeniedError, Rule
from tests.broker.sessions.support import twin_broker


class Payment(BaseModel):
    amount: Decimal = Field(alias="amt", exclude=True)


ANNOTATIONS = [
    int,
    Decimal,
    Fraction,
    Annotated[int, Field(exclude=True)],
    Annotated[int, Field(serialization_alias="amt")],
    Annotated[int, PlainSerializer(str)],
]


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=map(str, range(len(ANNOTATIONS))))
@pytest.mark.parametrize("allow", [False, "ask"])
async def test_a_rule_that_forbids_a_value_holds_for_every_type_of_it(annotation: Any, allow: Any) -> None:
    paid: list[Any] = []

    async def pay(amount: Any) -> None:
        paid.append(amount)

    pay.__annotations__["amount"] = annotation
    options: dict[str, Any] = {"expires_in": 0.001} if allow == "ask" else {}
    rule = Rule("*", allow=allow, when={"amount": {"gt": 100}}, **options)
    rules = AccessController(default_policy="allow", rules=[rule])
    async with twin_broker(tools={"pay": pay}, access=rules) as broker:
        code = "return await callTool('pay', { amount: 1000 }).catch((e) => e.code)"
        assert (await broker.execute(code)).value == ("ACCESS_DENIED" if allow is False else "APPROVAL_EXPIRED")
        assert paid == []
        assert (await broker.execute(code.replace("1000", "100"))).ok
        assert paid == [100]


async def test_a_rule_reaches_into_a_model_by_the_names_that_a_script_writes() -> None:
    paid: list[Payment] = []

    async def pay(payment: Payment) -> None:
        paid.append(payment)

    rules = AccessController(default_policy="allow", rules=[Rule("*", allow=False, when={"payment.amt": {"ge": 0.1}})])
    async with twin_broker(tools={"pay": pay}, access=rules) as broker:
        session = await broker.create_session()
        for amount in (0.1, 5):
            with pytest.raises(AccessDeniedError):
                await broker.execute_tool_call(session.id, {"name": "pay", "args": {"payment": {"amt": amount}}})
        assert paid == []
        await broker.execute_tool_call(session.id, {"name": "pay", "args": {"payment": {"amt": 0.09}}})
        assert len(paid) == 1


@pytest.mark.parametrize(
    ("words", "fitting", "others"),
    [
        ({"gt": 100}, [Decimal("100.0000000000000000000001"), Fraction(201, 2)], [Decimal(100), Decimal("NaN")]),
        ({"ge": 0.1}, [Decimal("0.1"), Decimal("0.1000000000000000000001")], [Decimal("0.0999999999999999999999")]),
        ({"le": 0.1}, [Decimal("0.1")], [Decimal("0.1000000000000000000001")]),
        ({"eq": 0.1}, [Decimal("0.1")], [Decimal("0.1000000000000000055511151231257827")]),
        ({"ne": 0.1}, [Decimal("0.2")], [Decimal("0.1"), Decimal("sNaN")]),
        ({"in": [1, 2.5]}, [Decimal(1), Decimal("2.5"), Fraction(5, 2)], [Decimal("1.5")]),
        ({"gt": "a"}, [], [Decimal(1), Fraction(1)]),
        ({"eq": True}, [], [Decimal(1), Fraction(1)]),
    ],
)
def test_exact_numbers_are_compared_exactly(words: Any, fitting: list[Any], others: list[Any]) -> None:
    rules = AccessController(rules=[Rule("*", allow=True, when={"x": words})])
    assert [value for value in fitting if not rules.check("a", {}, {"x": value})] == []
    assert [value for value in others if rules.check("a", {}, {"x": value})] == []

"""A shop's orders as tools: what a model may ask for, and the one thing it may write.

enclave-broker run examples/orders/report.js --app examples/orders/app.py
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from enclave_broker import Broker, ToolContext, ToolError

sys.path.insert(0, str(Path(__file__).parent))
from orders_data import open_database  # stands beside this file, which may be loaded by its path

Region = Literal["EU", "US", "APAC", "LATAM"]
Status = Literal["open", "paid", "shipped", "cancelled"]
After = Annotated[int, Field(ge=0, description="the `next` of the page before; 0 for the first page")]
Limit = Annotated[int, Field(ge=1, le=500, description="rows a page")]

path = open_database()
broker = Broker()


class Order(BaseModel):
    id: int
    customer_id: int | None
    region: Region | None = Field(description="of the customer; null if the customer isn't known")
    placed_on: str | None = Field(description="as it was entered: usually YYYY-MM-DD")
    status: Status
    total: float | None = Field(description="EUR; as it was entered")


class OrderPage(BaseModel):
    orders: list[Order]
    next: int | None = Field(description="give it as `after` for the next page; null on the last")


class Line(BaseModel):
    product: str
    quantity: int
    price: float


class OrderDetail(Order):
    customer: str
    lines: list[Line]
    notes: list[str]


class Customer(BaseModel):
    id: int
    name: str
    region: Region
    since: str


class CustomerPage(BaseModel):
    customers: list[Customer]
    next: int | None


class Note(BaseModel):
    order_id: int
    text: str


@contextmanager
def database() -> Generator[sqlite3.Connection]:
    """A connection for one call: handlers run in several threads."""
    db = sqlite3.connect(path, timeout=10.0)
    db.row_factory = sqlite3.Row
    try:
        with db:
            yield db
    finally:
        db.close()


ORDERS = "select o.*, c.region, c.name as customer from orders o left join customers c on c.id = o.customer_id"


@broker.tool("orders:search", effect="read")
def search_orders(
    month: Annotated[str | None, Field(pattern=r"^\d{4}-\d{2}$", description="such as 2025-03")] = None,
    region: Region | None = None,
    status: Status | None = None,
    after: After = 0,
    limit: Limit = 200,
) -> OrderPage:
    """Orders by id, a page at a time. Totals and dates are as they were entered, mistakes included."""
    sql = f"""{ORDERS} where o.id > :after and (:month is null or o.placed_on like :month || '-%')
        and (:region is null or c.region = :region) and (:status is null or o.status = :status)
        order by o.id limit :limit"""
    wanted = {"after": after, "month": month, "region": region, "status": status, "limit": limit + 1}
    with database() as db:
        rows = [Order.model_validate(dict(row)) for row in db.execute(sql, wanted)]
    page = rows[:limit]
    return OrderPage(orders=page, next=page[-1].id if len(rows) > limit else None)


@broker.tool("orders:get", effect="read")
def get_order(id: int) -> OrderDetail:
    """One order with its lines and notes. Fails with ORDER_BROKEN if its customer isn't known."""
    with database() as db:
        row = db.execute(f"{ORDERS} where o.id = ?", (id,)).fetchone()
        if row is None:
            raise ToolError(f"there is no order {id}", code="NO_SUCH_ORDER")
        if row["customer"] is None:
            raise ToolError(f"order {id} names customer {row['customer_id']}, who isn't known", code="ORDER_BROKEN")
        lines = db.execute("select product, quantity, price from lines where order_id = ?", (id,)).fetchall()
        notes = db.execute("select text from notes where order_id = ? order by id", (id,)).fetchall()
    found = dict(row) | {"lines": [dict(line) for line in lines], "notes": [note["text"] for note in notes]}
    return OrderDetail.model_validate(found)


@broker.tool("customers:list", effect="read")
def list_customers(region: Region | None = None, after: After = 0, limit: Limit = 100) -> CustomerPage:
    """Customers by id, a page at a time."""
    sql = "select * from customers where id > ?1 and (?2 is null or region = ?2) order by id limit ?3"
    with database() as db:
        rows = [Customer.model_validate(dict(row)) for row in db.execute(sql, (after, region, limit + 1))]
    page = rows[:limit]
    return CustomerPage(customers=page, next=page[-1].id if len(rows) > limit else None)


@broker.tool("notes:add")
def add_note(order_id: int, text: Annotated[str, Field(min_length=1, max_length=500)], context: ToolContext) -> Note:
    """Write a note to an order."""
    with database() as db:
        if db.execute("select 1 from orders where id = ?", (order_id,)).fetchone() is None:
            raise ToolError(f"there is no order {order_id}", code="NO_SUCH_ORDER")
        # The call's key makes the effect happen once, even if the handler should run again.
        db.execute(
            "insert or ignore into notes (call, order_id, text) values (?, ?, ?)",
            (context.idempotency_key, order_id, text),
        )
    return Note(order_id=order_id, text=text)

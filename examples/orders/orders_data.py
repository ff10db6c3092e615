"""The orders of a shop that doesn't exist: 300 customers, 5,000 orders of 2025, and the dirt that real data has.

The same rows on every machine. `open_database` makes the file when it is first asked for it.
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from datetime import date, timedelta
from pathlib import Path

CUSTOMERS, ORDERS = 300, 5_000
LAYOUT = 1  # counts up when the rows below change, so that an old file is made anew
REGIONS = {"EU": 0.45, "US": 0.30, "APAC": 0.17, "LATAM": 0.08}
PRODUCTS = {
    "desk": 420.0,
    "chair": 189.0,
    "lamp": 49.5,
    "shelf": 99.0,
    "monitor": 310.0,
    "keyboard": 79.9,
    "cable": 7.25,
    "headset": 129.0,
}
STATUSES = ("paid", "paid", "paid", "shipped", "shipped", "open", "cancelled")
NOBODY = 9_999  # a customer whom some orders name and who isn't there

SCHEMA = """
create table customers (id integer primary key, name text not null, region text not null, since text not null);
create table orders (id integer primary key, customer_id integer, placed_on text, status text not null, total real);
create table lines (order_id integer not null, product text not null, quantity integer not null, price real not null);
create table notes (id integer primary key, call text unique not null, order_id integer not null, text text not null);
create index orders_by_date on orders (placed_on);
create index lines_by_order on lines (order_id);
"""


def open_database() -> Path:
    """The path of the database: beside this file, or in a new temporary folder if that can't be written."""
    here = Path(__file__).with_name("orders.db")
    if _layout_of(here) != LAYOUT:
        folder = here.parent if os.access(here.parent, os.W_OK) else Path(tempfile.mkdtemp(prefix="orders-"))
        here = folder / here.name
        # Made beside it and moved: two processes that start at once never see half a database.
        fresh = here.with_suffix(f".{os.getpid()}.db")
        fresh.unlink(missing_ok=True)
        _fill(fresh)
        fresh.replace(here)
    return here


def _layout_of(path: Path) -> int | None:
    if not path.exists():
        return None
    db = sqlite3.connect(path)
    try:
        return int(db.execute("pragma user_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return None
    finally:
        db.close()


def _fill(path: Path) -> None:
    db = sqlite3.connect(path)
    try:
        with db:
            db.executescript(SCHEMA)
            dice = random.Random(20_250_301)
            customers = [_customer(number, dice) for number in range(1, CUSTOMERS + 1)]
            db.executemany("insert into customers values (?, ?, ?, ?)", customers)
            for number in range(1, ORDERS + 1):
                order, lines = _order(number, dice)
                db.execute("insert into orders values (?, ?, ?, ?, ?)", order)
                db.executemany("insert into lines values (?, ?, ?, ?)", lines)
        db.execute(f"pragma user_version = {LAYOUT}")
    finally:
        db.close()


def _customer(number: int, dice: random.Random) -> tuple[int, str, str, str]:
    first = dice.choice(("Ada", "Bo", "Chen", "Dina", "Emil", "Fatou", "Goran", "Hana", "Ines", "Jun", "Karim", "Lea"))
    last = dice.choice(("Abe", "Berg", "Cruz", "Diallo", "Egger", "Fischer", "Gupta", "Hansen", "Ito", "Jansen", "Kim"))
    region = dice.choices(list(REGIONS), list(REGIONS.values()))[0]
    return number, f"{first} {last}", region, (date(2018, 1, 1) + timedelta(days=dice.randrange(2_400))).isoformat()


def _order(number: int, dice: random.Random) -> tuple[tuple[object, ...], list[tuple[int, str, int, float]]]:
    day = date(2025, 1, 1) + timedelta(days=dice.randrange(365))
    outlier = dice.random() < 0.02  # somebody furnishes a whole floor
    lines = [
        (number, product, dice.randint(1, 4) * (15 if outlier else 1), PRODUCTS[product])
        for product in dice.sample(list(PRODUCTS), dice.randint(1, 4))
    ]
    customer: int | None = dice.randint(1, CUSTOMERS)
    placed_on: str | None = day.isoformat()
    total: float | None = round(sum(quantity * price for _, _, quantity, price in lines), 2)
    # The dirt: about one order in twenty-five has something wrong with it.
    match dice.randrange(100):
        case 0:
            total = None
        case 1:
            total = -total
        case 2:
            placed_on = f"{day:%Y-%m}-{dice.choice((0, 32, 45))}"
        case 3:
            customer = NOBODY
        case _:
            pass
    if outlier and number % 4 == 0:
        customer = NOBODY  # so that looking up the outliers of a month meets one that fails
    return (number, customer, placed_on, dice.choice(STATUSES), total), lines

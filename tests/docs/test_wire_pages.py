"""The reference of the wire is what the code says: each event, each route, each code of a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from enclave_broker import Broker
from enclave_broker.broker.http import errors
from enclave_broker.broker.http.endpoint import Endpoint
from enclave_broker.broker.http.openapi import openapi_document
from enclave_broker.types.events import Event
from enclave_broker.types.wire import EVENT_TYPES, UnknownEvent, decode_event, encode_event
from tests.docs import events_page
from tests.docs.page import blocks, tables

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def text(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_the_body_that_the_readme_posts_is_the_report_script() -> None:
    orders = Path(__file__).parents[2] / "examples/orders"
    body = json.loads((orders / "report.json").read_text(encoding="utf-8"))
    assert body == {"sessionId": "s_report", "code": (orders / "report.js").read_text(encoding="utf-8")}


# -- events.md -------------------------------------------------------------------------------------------------------


def test_the_page_of_events_is_what_the_types_make_of_it() -> None:
    page = text("events.md")
    assert events_page.with_generated(page) == page, "run `make docs`"


def test_every_event_is_described_with_every_field() -> None:
    assert [about.examples[0].type for about in events_page.EVENTS] != []
    for about in events_page.EVENTS:
        assert about.when
        assert all(about.fields.values())
        assert {type(example) for example in about.examples} == {EVENT_TYPES[about.examples[0].type]}


def test_an_event_that_nobody_has_described_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_page, "EVENTS", events_page.EVENTS[1:])
    with pytest.raises(ValueError, match="session_init"):
        events_page.generated()


def test_every_example_of_an_event_is_a_line_that_a_client_reads() -> None:
    section = text("events.md").partition(events_page.BEGIN)[2].partition(events_page.END)[0]
    lines = [line for block in blocks(section) for line in block.text.splitlines()]
    examples = [example for about in events_page.EVENTS for example in about.examples]
    seen = [decode_event(line.encode()) for line in lines]
    assert seen == examples
    assert not any(isinstance(event, UnknownEvent) for event in seen)
    assert {event.type for event in seen} == set(EVENT_TYPES) == {kind.type for kind in Event.__subclasses__()}
    assert [encode_event(event).decode() for event in seen] == [f"{line}\n" for line in lines]


# -- http.md ---------------------------------------------------------------------------------------------------------


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of everything that is served."""
    for route in Broker().http_app().routes:
        assert isinstance(route, Route), f"this test doesn't look into {route}"
        assert isinstance(route.endpoint, Endpoint)
        yield from ((method, route.path) for method in route.endpoint.methods)


def described() -> dict[str, str]:
    """By the cell of the table of endpoints in which it stands: what its answer is."""
    return {row[0]: row[1] for head, rows in tables(text("http.md")) if head[0] == "method and path" for row in rows}


def test_every_route_stands_on_the_page_and_no_other() -> None:
    shown = {
        (method, path)
        for cell in described()
        for method, path in re.findall(r"(GET|POST|DELETE|PUT|PATCH) (/[\w/{}.-]+)", cell)
    }
    assert shown == set(routes())
    assert all(described().values())


def test_every_field_of_a_request_stands_on_the_page() -> None:
    (rows,) = [rows for head, rows in tables(text("http.md")) if head == ("field", "")]
    fields: dict[str, Any] = openapi_document("/")["components"]["schemas"]["SessionRequest"]["properties"]
    assert {row[0] for row in rows} == {*fields, "encryption"}  # which clients send, and nothing comes of it


# -- codes -----------------------------------------------------------------------------------------------------------


def statuses() -> dict[str, int]:
    """What the edge answers by code."""
    return {**vars(errors)["_STATUS"], "INTERNAL_ERROR": 500}


def codes(cell: str) -> list[str]:
    return re.findall(r"[A-Z_]{5,}", cell)


def listed(page: str, *head: str) -> dict[str, int]:
    """By code, the status that the page's table with this head gives it."""
    columns: list[tuple[Any, Any]] = [
        (row[head.index("code")], row[head.index("status")])
        for titles, rows in tables(page)
        if titles[:2] == head
        for row in rows
    ]
    pairs = [(code, int(status)) for cell, status in columns for code in codes(cell)]
    assert len(pairs) == len(dict(pairs)), "one stands there twice"
    return dict(pairs)


def test_every_code_of_a_refusal_stands_on_the_page_about_http() -> None:
    assert listed(text("http.md"), "status", "code") == statuses()


def test_every_code_of_a_refusal_stands_on_the_page_about_errors() -> None:
    page = text("errors.md")
    assert listed(page, "code", "status") == statuses()

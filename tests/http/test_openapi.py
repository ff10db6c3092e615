"""What the server says of itself."""

from __future__ import annotations

import re
from typing import Any, cast

from starlette.routing import Route

from enclave_broker.broker.http.app import http_app
from enclave_broker.broker.http.endpoint import Endpoint
from enclave_broker.broker.http.openapi import openapi_document
from tests.http.live import Live, memory_broker


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        own = {fields["$ref"]} if isinstance(fields.get("$ref"), str) else set[str]()
        return own.union(*(references(each) for each in fields.values()))
    if isinstance(value, list):
        return set[str]().union(*(references(each) for each in cast("list[Any]", value)))
    return set()


def test_the_document_has_every_route_and_no_other() -> None:
    routes = {
        (route.path, method.lower())
        for route in http_app(memory_broker()).routes
        if isinstance(route, Route) and isinstance(route.endpoint, Endpoint)
        for method in route.endpoint.methods
    }
    described = {(path, method) for path, methods in openapi_document("/")["paths"].items() for method in methods}
    assert described == routes


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = openapi_document("/")
    assert references(document) == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_get_openapi_json_is_the_document(live: Live) -> None:
    response = live.client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["openapi"].startswith("3.1")


def test_get_docs_is_a_page_that_needs_nothing_from_elsewhere(live: Live) -> None:
    response = live.client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "/sessions/{id}/tool-result" in response.text
    assert re.findall(r'(?:src|href)="([^"]*)"', response.text) == ["/openapi.json"]
    assert "<script" not in response.text

"""The OpenAPI document as a page to read: one file, no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import msgspec

__all__ = ["DOCS_HEADERS", "docs_page"]

DOCS_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>enclave-broker API</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
code, pre {{ font: 14px/1.4 ui-monospace, monospace; }}
h2 {{ font-size: 1rem; margin-bottom: 0; }}
pre {{ overflow: auto; padding: .5rem; border: 1px solid #8884; }}
</style>
<h1>enclave-broker API</h1>
<p>Paths begin at <code>{base}</code>. The same for programs: <a href="{openapi}">openapi.json</a>.</p>
{operations}
<h1>Objects</h1>
{schemas}
</html>
"""


def docs_page(document: Mapping[str, Any]) -> str:
    base: str = document["servers"][0]["url"]
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return _PAGE.format(
        base=escape(base),
        openapi=escape(f"{base.rstrip('/')}/openapi.json"),
        operations="\n".join(operations),
        schemas="\n".join(schemas),
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", f"<p>{escape(operation['summary'])}.</p>"]
    query = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
    if query:
        items = [f"<li><code>{escape(each['name'])}</code>: {escape(each['description'])}</li>" for each in query]
        lines.append(f"<ul>{''.join(items)}</ul>")
    kinds = [escape(kind) for kind in operation["responses"]["200"]["content"]]
    lines.append(f"<p>Answers with {', '.join(f'<code>{kind}</code>' for kind in kinds)}.</p>")
    return "\n".join(lines)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    return f"<details><summary><code>{escape(name)}</code></summary><pre>{escape(text)}</pre></details>"

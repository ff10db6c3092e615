"""Where somebody could read: what a GET of each path answers to each person."""

from __future__ import annotations

from collections.abc import Collection

from shop import PEOPLE, Shop

__all__ = ["readable"]

FORMS = ("*/*", "text/event-stream")


def readable(shop: Shop, approvals: Collection[str]) -> dict[str, list[bytes]]:
    """Answers, by kind: of every path that the API says it has, about every session and these approvals."""
    found: dict[str, list[bytes]] = {"streams": [], "other answers to GET": [], "/metrics": []}
    sessions = {each["sessionId"] for who in PEOPLE for each in shop.get(who, "/sessions")["sessions"]}
    for path, methods in shop.get("sam", "/openapi.json")["paths"].items():
        if "get" not in methods:
            continue
        kind = "streams" if path.endswith("/stream") else path if path in found else "other answers to GET"
        ids = [""] if "{id}" not in path else approvals if path.startswith("/approvals") else sessions
        for at in (path.replace("{id}", id).replace("{file}", "console.js") for id in ids):
            for form in FORMS if kind == "streams" else FORMS[:1]:
                found[kind] += [shop.ask(who, "GET", at, accept=form).content for who in PEOPLE]
    return found

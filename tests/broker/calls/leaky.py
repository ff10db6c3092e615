"""Tools that say their secret, each in another place, in the way that they are asked for."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, field_serializer

from enclave_broker import ToolContext, ToolError

__all__ = ["TOOLS", "WAYS", "forms"]

WAYS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "url": lambda text: quote(text, safe=""),
    "url_twice": lambda text: quote(quote(text, safe=""), safe=""),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "basic_auth": lambda text: "Basic " + base64.b64encode(f"user:{text}".encode()).decode(),
    "base64_url": lambda text: base64.urlsafe_b64encode(b"ab" + text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "hex_upper": lambda text: text.encode().hex().upper(),
    "json": json.dumps,
    "escaped": lambda text: "".join(rf"\u{ord(character):04X}" for character in text),
}


def forms(text: str) -> list[bytes]:
    """As it is searched for: of each encoding the part that no neighbour changes."""
    found = {text.encode(), text.encode("utf-16-le")}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + text.encode())
        core = encoded[before + (before > 0) : (before + len(text)) * 8 // 6]
        found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    found |= {WAYS[way](text).encode() for way in ("url", "url_twice", "hex", "hex_upper", "json", "escaped")}
    return [*found, *(form.replace(b"\\", b"\\\\") for form in found if b"\\" in form)]


def said(context: ToolContext, way: str) -> str:
    return f"<{WAYS[way](context.secrets['key'])}>"


class Unwritable(BaseModel):
    text: str

    @field_serializer("text")
    def write(self, text: str) -> str:
        raise SystemExit(text)


class Odd:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        raise SystemExit(self.text)


async def result(context: ToolContext, way: str) -> Any:
    return {"deep": [{said(context, way): [1, said(context, way)]}]}


def in_thread(context: ToolContext, way: str) -> str:
    return said(context, way)


async def error(context: ToolContext, way: str) -> None:
    text = said(context, way)
    raise ToolError(text, code="REFUSED", details={text: [text]}) from ValueError(text)


async def code(context: ToolContext, way: str) -> None:
    raise ToolError("no", code=said(context, way)[1:-1])


async def message(context: ToolContext, way: str) -> None:
    raise ToolError(Odd(said(context, way)))  # pyright: ignore[reportArgumentType] what untyped code may do


async def bug(context: ToolContext, way: str) -> None:
    try:
        raise OSError(13, "no access", said(context, way))
    except OSError as cause:
        cause.add_note(said(context, way))
        raise KeyError(said(context, way)) from cause


async def leave(context: ToolContext, way: str) -> None:
    raise SystemExit(said(context, way))


async def unwritable(context: ToolContext, way: str) -> int:
    return said(context, way)  # pyright: ignore[reportReturnType] as above


async def serializer(context: ToolContext, way: str) -> Unwritable:
    return Unwritable(text=said(context, way))


async def log_line(context: ToolContext, way: str) -> None:
    text = said(context, way)
    await context.log(text, "info", **{text: text}, odd={text, object})


TOOLS: dict[str, Callable[..., Any]] = {
    f"leak:{tool.__name__}": tool
    for tool in (result, in_thread, error, code, message, bug, leave, unwritable, serializer, log_line)
}

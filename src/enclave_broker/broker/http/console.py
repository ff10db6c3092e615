"""The console: one page and its files, as they stand in the folder of the same name, for whoever asks.

The page holds nothing: all that it shows it asks the API for, with the key of who looks at it. What browsers let it do
is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from enclave_broker.broker.http.endpoint import Endpoint

__all__ = ["CONSOLE_PATHS", "console_routes"]

_FOLDER = Path(__file__).with_name("console")
_TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",  # text that would become markup is an error
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _files() -> dict[str, Path]:
    """By path. The page stands without a slash at its end, so that its relative addresses begin where it is mounted."""
    found = {path.name: path for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
    return {"/console": found.pop("index.html")} | {f"/console/{name}": path for name, path in found.items()}


_FILES = _files()
CONSOLE_PATHS = frozenset(_FILES)
"""Answered whoever asks."""


def console_routes() -> list[Route]:
    """Its files are read once."""
    answers = {path: (file.read_bytes(), _TYPES[file.suffix]) for path, file in _FILES.items()}

    async def answer(request: Request) -> Response:
        file = request.path_params.get("file")
        found = answers.get("/console" if file is None else f"/console/{file}")
        if found is None:
            raise HTTPException(404)
        content, media_type = found
        return Response(content, 200, _HEADERS, media_type)

    return [Route(path, Endpoint(GET=answer)) for path in ("/console", "/console/{file}")]

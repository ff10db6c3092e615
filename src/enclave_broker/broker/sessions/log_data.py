"""What a handler says beside its log lines, as JSON: it may be anything, and may change later."""

from __future__ import annotations

from typing import Any

import msgspec

from enclave_broker.types.bounded_json import WireError, WireSizeError, encode_json

__all__ = ["log_data"]

MAX_BYTES = 1 << 20


def log_data(data: dict[str, Any]) -> bytes:
    """As JSON, detached from what the handler may change later; what is no JSON as Python shows it.

    Never more than MAX_BYTES are built, whatever the data: structure that is shared may be as large as one likes.
    """
    try:
        return encode_json(data, MAX_BYTES)
    except WireSizeError:
        return msgspec.json.encode({"left out": f"data of more than {MAX_BYTES} bytes"})
    except WireError:
        return msgspec.json.encode({_shown(name): _shown(value) for name, value in data.items()})


def _shown(value: object) -> str:
    try:
        return repr(value)[:1000].encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 a tool's own object may do anything
        return f"<{type(value).__name__}>"

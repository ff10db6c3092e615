"""Looks for a secret, plain and encoded, in whatever can be read."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import unquote_to_bytes

__all__ = ["holds"]


def holds(text: bytes, secret: str) -> list[str]:
    """As what the text holds it: the names of encodings."""
    data = secret.encode()
    plain = data in text
    decoded = unquote_to_bytes(text), unquote_to_bytes(text.replace(b"+", b"%20"))
    found = {
        "plain": plain,
        "URL": not plain and any(data in each for each in decoded),
        "hex": data.hex().encode() in text.lower(),
        "base64": any(part in text for part in _base64_parts(data)),
    }
    return [name for name, is_there in found.items() if is_there]


def _base64_parts(data: bytes) -> list[bytes]:
    """What base64 of any text with the secret in it has, of both alphabets; what stands before shifts it by 0 to 2."""
    parts: list[bytes] = []
    for encode in (b64encode, urlsafe_b64encode):
        for before in range(3):
            whole = encode(bytes(before) + data)
            parts.append(whole[(before * 8 + 5) // 6 : (before + len(data)) * 8 // 6])
    return parts

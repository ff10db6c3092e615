"""One regular expression for every way in which a text may hold a secret: plainly, or encoded.

Owns the encodings; what is done with a find is scrub.py's. RE2's syntax over UTF-8 bytes, one byte a character
(Latin-1). What is found in a text is found in the text as a JSON string, too: each part may stand behind backslashes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

__all__ = ["pattern_of"]

_NAMED = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a", "\0": "0"}
_HTML = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_BREAK = r"(?:[\r\n]|\\+[rn])*"  # base64 is often cut into lines
_PLUS = r"(?:\+|%(?:25)*2[Bb])"  # a blank in the query of a URL, which may have been quoted again
_DIGIT_62 = r"(?:[+\-]|%(?:25)*2[Bb]|\\+u002[Bb])"  # of the standard's alphabet, or of the one for URLs
_DIGIT_63 = r"(?:\\*/|_|%(?:25)*2[Ff]|\\+u002[Ff])"
_ANY_DIGIT = rf"(?:[A-Za-z0-9]|{_DIGIT_62}|{_DIGIT_63})"


def pattern_of(value: str) -> bytes:
    r"""The expression that finds `value`, which is valid Unicode and not empty.

    Each character by itself may be plain, percent-encoded (of any case and depth, `+` for a blank) or escaped as in
    JSON or Python, as `\u{…}`, or as an HTML entity; or the whole is hexadecimal, with or without separators, or base64
    with either alphabet, alone or within a longer text that was encoded.
    """
    data = value.encode()
    forms = ["".join(map(_character, value)), "[ :-]?".join(map(_hex, data))]
    forms += (_base64(data, before) for before in range(3))
    return "|".join(forms).encode("latin-1")


def _character(character: str) -> str:
    data, code = character.encode(), ord(character)
    if character.isalnum() or not character.isascii():
        plain = _literal(data)
    else:
        plain = r"\\+" if character == "\\" else r"\\*" + _literal(data)
    forms = [
        "".join(rf"%(?:25)*{_hex(byte)}" for byte in data),
        "".join(rf"\\+x{_hex(byte)}" for byte in data),
        "".join(rf"\\+u{_digits(unit)}" for unit in _utf_16(character)),
        rf"\\+u\{{0*{_digits(f'{code:x}')}\}}",
        rf"&#(?:0*{code}|[xX]0*{_digits(f'{code:x}')});",
        plain,
    ]
    if code > 0x7F and code <= 0xFF:  # as Python's ascii() writes it
        forms.append(rf"\\+x{_hex(code)}")
    elif code > 0xFFFF:  # the same
        forms.append(rf"\\+U{_digits(f'{code:08x}')}")
    if character in _NAMED:
        forms.append(rf"\\+{_NAMED[character]}")
    if character == " ":
        forms.append(_PLUS)
    if character in _HTML:
        forms.append(f"&{_HTML[character]};")
    return f"(?:{'|'.join(forms)})"


def _base64(data: bytes, before: int) -> str:
    """With so many bytes before it, modulo 3. A digit that other bytes have a part in may be any."""
    digits = base64.b64encode(b"\0" * before + data + b"\0\0").decode()
    first, last = -(-before * 8 // 6), (before + len(data)) * 8 // 6
    whole = _BREAK.join(map(_base64_digit, digits[first:last]))
    shared = _ANY_DIGIT + _BREAK
    begins = f"(?:{shared})?" if before else ""
    ends = f"(?:{_BREAK}{_ANY_DIGIT})?" if (before + len(data)) % 3 else ""
    return begins + whole + ends


def _base64_digit(digit: str) -> str:
    return {"+": _DIGIT_62, "/": _DIGIT_63}.get(digit, digit)


def _utf_16(character: str) -> Iterable[str]:
    data = character.encode("utf-16-be").hex()
    return (data[:4], data[4:]) if len(data) > 4 else (data,)


def _literal(data: bytes) -> str:
    return "".join(rf"\x{byte:02x}" for byte in data)


def _hex(byte: int) -> str:
    return _digits(f"{byte:02x}")


def _digits(digits: str) -> str:
    """Hexadecimal digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)

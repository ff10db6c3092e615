"""Which names say that what stands under them is a secret. One list for history and for LogCalls.

Owns the list and how names are compared with it. What is put instead is Redact's.
"""

from __future__ import annotations

import re
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs] it has none

from enclave_broker.broker.calls.middleware.redact import Redact

__all__ = ["SENSITIVE_NAMES", "SENSITIVE_WORDS", "SensitiveNames", "is_sensitive", "may_hold_sensitive"]

SENSITIVE_NAMES = (
    *("accesskey", "apikey", "authorization", "cardnumber", "cookie", "credential", "creditcard", "passphrase"),
    *("passwd", "password", "privatekey", "secret", "token"),
)
"""A name that holds one of these is sensitive: in any case, with or without `_ - .` and blanks between the letters."""
SENSITIVE_WORDS = ("cvc", "cvv", "iban", "otp", "pin", "pwd", "ssn")
"""So is one that has one of these as a whole word, as in `userPin` or `pin_code`, not in `shipping`."""

_COUNTING = frozenset({"age", "count", "expires", "length", "limit", "max", "min", "size", "tokens", "total", "ttl"})
_BETWEEN = "[-_. ]*"
_between = re.compile(_BETWEEN)
_holds = re.compile("|".join(SENSITIVE_NAMES)).search
_words = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+").findall


def is_sensitive(name: str) -> bool:
    """Whether what stands under this name is not to be shown."""
    if _holds(_between.sub("", name.lower())) is not None:
        return True
    return any(word.lower() in SENSITIVE_WORDS for word in _words(name))


class SensitiveNames(Redact):
    """A Redact of what stands under sensitive names.

    true, false and null stay, as in `hasToken`, and so do numbers under a name with a word that counts or measures
    (`max_tokens`, `passwordLength`).
    """

    def __init__(self) -> None:
        super().__init__(keys=SENSITIVE_NAMES)

    def hides(self, name: str) -> bool:
        return is_sensitive(name)

    def spares(self, name: str, value: Any) -> bool:
        if value is None or isinstance(value, bool):
            return True
        return isinstance(value, int | float) and any(word.lower() in _COUNTING for word in _words(name))


def _compiled() -> Any:
    """Finds all sensitive names in a JSON text, and some others. The text of a value is never followed by a colon."""
    long = "|".join(_BETWEEN.join(name) for name in SENSITIVE_NAMES)
    lower, title, upper = (
        "|".join(form(word) for word in SENSITIVE_WORDS) for form in (str.lower, str.title, str.upper)
    )
    rest = r'(?:[^"\\]|\\.)*'
    escape = r"\\[bfnrt]|\\u[0-9a-f]{4}"  # its last letter is none of a word's
    after = rf'(?:":|(?:[^a-z"\\]|\\.){rest}":)'
    after_upper = rf'(?:":|(?:[^A-Za-z"\\]|\\.|[A-Z][a-z]){rest}":)'
    patterns = (
        rf'"[^"]*(?i:{long}){rest}":',
        rf'"(?:[^"]*(?:[^a-z"]|{escape}))?(?:{lower}){after}',
        rf'"[^"]*(?:{title}){after}',
        rf'"(?:[^"]*(?:[^A-Z"]))?(?:{upper}){after_upper}',
    )
    return cast("Any", re2).compile("|".join(patterns))


_search = _compiled().search


def may_hold_sensitive(text: bytes) -> bool:
    """Whether an object in this JSON text may have a sensitive name; surely if it has one. As msgspec writes it."""
    return _search(text) is not None

"""Who is asking. Made by authentication or by the host, never from a request's body or by a script."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from enclave_broker.types.frozen import FrozenDict, frozen

__all__ = ["ANONYMOUS", "Principal"]

_ANONYMOUS_SUBJECT = "anonymous"


class Principal(msgspec.Struct, frozen=True):
    """`subject` identifies within `tenant`; `roles` and `claims` are facts for the policy, and nobody can change them.

    The subject "anonymous" is reserved for whoever is not known: authentication must never hand it out.
    `claims` are copied; the copy, and lists and objects in it, raise TypeError when something is put into them.
    Raises ValueError for an empty subject and for roles that are no collection of strings.
    """

    subject: str
    tenant: str | None = None
    roles: frozenset[str] = frozenset()
    claims: dict[str, Any] = {}

    def __post_init__(self) -> None:
        # From the host's code, which may not be typed.
        subject, roles = cast("tuple[Any, Any]", (self.subject, self.roles))
        if not isinstance(subject, str) or not subject:
            raise ValueError("a principal's subject is a string that isn't empty")
        if isinstance(roles, str) or not all(isinstance(role, str) for role in roles):
            raise ValueError("a principal's roles are a collection of strings, such as frozenset({'admin'})")
        if type(roles) is not frozenset:  # a frozen value holds no set that may change
            msgspec.structs.force_setattr(self, "roles", frozenset(roles))
        if type(self.claims) is not FrozenDict:
            msgspec.structs.force_setattr(self, "claims", frozen(self.claims))

    @property
    def is_anonymous(self) -> bool:
        return self.subject == _ANONYMOUS_SUBJECT


ANONYMOUS = Principal(_ANONYMOUS_SUBJECT)

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from enclave_broker.types.principal import ANONYMOUS, Principal


def test_a_principal_is_frozen_and_has_no_rights_by_default() -> None:
    principal = Principal("alice")
    assert (principal.tenant, principal.roles, principal.claims) == (None, frozenset(), {})
    assert Principal("bob").claims is not principal.claims
    with pytest.raises(AttributeError):
        principal.subject = "bob"  # pyright: ignore[reportAttributeAccessIssue] that is what is tested


def test_only_the_reserved_subject_is_anonymous() -> None:
    assert ANONYMOUS.is_anonymous
    assert Principal("anonymous", roles=frozenset({"admin"})).is_anonymous
    assert not Principal("Anonymous").is_anonymous


@pytest.mark.parametrize("subject", ["", None, 5, b"alice"])
def test_a_principal_without_subject_is_refused(subject: Any) -> None:
    with pytest.raises(ValueError, match="subject"):
        Principal(subject)


@pytest.mark.parametrize("roles", ["admin", [1]])
def test_roles_that_are_no_collection_of_strings_are_refused(roles: Any) -> None:
    with pytest.raises(ValueError, match="roles"):
        Principal("alice", roles=roles)


def test_roles_given_as_another_collection_become_a_frozen_set() -> None:
    assert Principal("alice", roles=cast("Any", ["admin", "admin"])).roles == frozenset({"admin"})


def test_a_principal_goes_through_json() -> None:
    principal = Principal("alice", "acme", frozenset({"admin"}), {"level": 3})
    assert msgspec.json.decode(msgspec.json.encode(principal), type=Principal) == principal

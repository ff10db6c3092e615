from __future__ import annotations

import copy
import pickle
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


def test_claims_are_a_copy_that_nobody_can_change_at_any_depth() -> None:
    given: dict[str, Any] = {"plan": "free", "teams": ["a", {"id": 1}], "tags": {"x"}}
    claims = Principal("alice", claims=given).claims
    given["plan"] = "paid"
    given["teams"][1]["id"] = 2
    changes: list[Any] = [
        lambda: claims.update(plan="paid"),
        lambda: claims.__setitem__("role", "admin"),
        lambda: claims.setdefault("role", "admin"),
        lambda: claims.pop("plan"),
        lambda: claims.__ior__({"role": "admin"}),
        lambda: claims["teams"].append("b"),
        lambda: claims["teams"].__iadd__(["b"]),
        claims["teams"][1].clear,
        lambda: claims["tags"].add("y"),
        lambda: Principal("bob").claims.update(role="admin"),
        lambda: ANONYMOUS.claims.update(role="admin"),
    ]
    for change in changes:
        with pytest.raises((TypeError, AttributeError)):
            change()
    assert claims == {"plan": "free", "teams": ["a", {"id": 1}], "tags": {"x"}}


def deep_copy(value: Any) -> Any:
    return copy.deepcopy(value)


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [deep_copy, pickled])
def test_a_principal_may_be_copied_and_a_copy_of_claims_may_be_changed(copied: Any) -> None:
    principal = Principal("alice", claims={"teams": ["a"]})
    assert copied(principal) == principal
    claims = copied(principal.claims)
    claims["teams"].append("b")
    claims["plan"] = "paid"
    assert claims == {"teams": ["a", "b"], "plan": "paid"}


def test_a_principal_goes_through_json() -> None:
    principal = Principal("alice", "acme", frozenset({"admin"}), {"level": 3})
    assert msgspec.json.decode(msgspec.json.encode(principal), type=Principal) == principal

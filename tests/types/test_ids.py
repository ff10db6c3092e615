from __future__ import annotations

import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.types.ids import check_session_id, new_call_id, new_session_id


@given(st.binary(min_size=16, max_size=16))
def test_a_new_id_is_its_prefix_and_a_uuid_of_version_4(entropy: bytes) -> None:
    for prefix, id in (("s_", new_session_id(lambda _: entropy)), ("c_", new_call_id(lambda _: entropy))):
        assert id.startswith(prefix)
        made = uuid.UUID(id[2:])
        assert (str(made), made.version, made.variant) == (id[2:], 4, uuid.RFC_4122)


def test_ids_of_real_randomness_differ() -> None:
    assert len({new_call_id(os.urandom) for _ in range(1000)}) == 1000


@given(st.binary(min_size=16, max_size=16))
def test_a_generated_id_passes_the_check_that_a_clients_passes(entropy: bytes) -> None:
    id = new_session_id(lambda _: entropy)
    assert check_session_id(id) == id


@pytest.mark.parametrize("value", ["s_a", "s_" + "x" * 126, "s_A-Z.a:z@0_9"])
def test_a_client_may_choose_such_an_id(value: str) -> None:
    assert check_session_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s_",
        "a",
        "S_a",
        "c_a",
        "s_" + "x" * 127,
        "s_a\n",
        "s_a/b",
        "s_a b",
        "s_é",
        "s_\0",
        "s_..%2f",
        "s_\u017f",
        " s_a",
    ],
)
def test_a_client_may_not_choose_such_an_id(value: str) -> None:
    with pytest.raises(ValueError, match="s_"):
        check_session_id(value)

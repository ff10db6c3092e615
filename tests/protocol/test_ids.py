"""Section "Ids and versions"; no reference (`ref_…`) is made yet."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from tests.protocol.client import Enclave, hold, refused_field, unique
from tests.protocol.schema import UUID4


def test_a_generated_session_id_is_s_and_a_uuid4(enclave: Enclave) -> None:
    run = enclave.run("return 1")
    assert re.fullmatch(f"s_{UUID4}", run.id)


def test_a_generated_call_id_is_c_and_a_uuid4(enclave: Enclave) -> None:
    (call,) = enclave.run("await tools.orders.get({ id: 1 })").of("tool_call")
    assert re.fullmatch(f"c_{UUID4}", call["callId"])


@pytest.mark.parametrize("rest", [str(uuid.uuid4()), "x", "Aa0_-"])
def test_a_session_id_is_the_prefix_and_at_least_one_character(enclave: Enclave, rest: str) -> None:
    assert enclave.run("return 1", sessionId=f"s_{rest}").id == f"s_{rest}"
    enclave.request("DELETE", f"/sessions/s_{rest}")


@pytest.mark.parametrize("id", ["", "s_", "c_1", "mine", 7, ["s_1"]])
def test_a_session_id_without_prefix_or_rest_is_refused_by_name(enclave: Enclave, id: object) -> None:
    assert refused_field(enclave.post("return 1", sessionId=id)) == "sessionId"


@pytest.mark.parametrize("fields", [{}, {"protocolVersion": 2}, {"protocolVersion": 1}])
def test_requests_of_version_1_and_2_are_answered_with_version_2(enclave: Enclave, fields: dict[str, Any]) -> None:
    run = enclave.run("return 1", **fields)
    assert {event["protocolVersion"] for event in run.events} == {2}


@pytest.mark.parametrize("version", [0, 3, "2", 2.5, True])
def test_other_versions_are_refused_by_name(enclave: Enclave, version: object) -> None:
    assert refused_field(enclave.post("return 1", protocolVersion=version)) == "protocolVersion"


def test_seq_starts_at_1_and_goes_up_by_one_over_events_of_all_types(enclave: Enclave) -> None:
    key = unique("gate")
    code = f"console.log(1); console.warn(2); await tools.my.log({{ level: 'info' }}); {hold(key)}"
    with enclave.watching(code, config={"heartbeatIntervalMs": 50}) as watch:
        for _ in range(3):
            watch.next("heartbeat")
        enclave.open(key)
        run = watch.end()
    assert {"stdout", "log", "tool_call", "heartbeat", "final"} <= set(run.types)
    assert [event["seq"] for event in run.events] == list(range(1, len(run.events) + 1))

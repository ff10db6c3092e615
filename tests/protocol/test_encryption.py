"""Section "Encryption": not built yet, so what requires it is refused and all else runs in the clear."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.protocol.client import Enclave, refused_field

HELLO: dict[str, Any] = {
    "protocolVersion": 2,
    "clientEphemeralPubKeyB64": base64.b64encode(b"\x04" + bytes(range(64))).decode(),
    "curve": "P-256",
    "supportedAlgorithms": ["AES-GCM-256"],
}


@pytest.mark.parametrize("hello", [{}, {"clientHello": HELLO}])
def test_a_request_of_required_is_refused_with_400_by_name(enclave: Enclave, hello: dict[str, Any]) -> None:
    response = enclave.post("return 1", encryption={"mode": "required", **hello})
    assert refused_field(response).startswith("encryption")


@pytest.mark.parametrize("mode", ["disabled", "optional"])
@pytest.mark.parametrize("hello", [{}, {"clientHello": HELLO}])
def test_a_request_of_disabled_or_optional_runs_in_the_clear(
    enclave: Enclave, mode: str, hello: dict[str, Any]
) -> None:
    run = enclave.run("return 1", encryption={"mode": mode, **hello})
    assert run.of("session_init")[0]["encryption"] == {"enabled": False}
    assert run.types == ["session_init", "final"]


@pytest.mark.parametrize("encryption", ["disabled", [], {}, {"mode": "always"}, {"mode": True}])
def test_what_is_no_request_is_refused_with_400_by_name(enclave: Enclave, encryption: object) -> None:
    assert refused_field(enclave.post("return 1", encryption=encryption)).startswith("encryption")

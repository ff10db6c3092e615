"""What an import brings along, seen in a fresh interpreter: a worker must not even hold what it may not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"asyncio", "msgspec", "pydantic", "rich", "starlette", "wasmtime"}
HOST = {"enclave_broker.broker", "enclave_broker.cli", "enclave_broker.client"}
ENGINE = {"enclave_broker.core", "wasmtime"}


def loaded_by(module: str) -> set[str]:
    """Every module that `import module` leaves in `sys.modules`."""
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-I", "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "barred"),
    [
        ("enclave_broker", HEAVY | HOST | ENGINE),
        ("enclave_broker.types.messages", {"asyncio", "pydantic", "rich", "starlette"} | HOST | ENGINE),
        ("enclave_broker.runtime.worker", {"asyncio", "pydantic", "rich", "starlette"} | HOST),
        ("enclave_broker.broker.broker", {"rich", "starlette"} | ENGINE),
        ("enclave_broker.cli", {"starlette"} | ENGINE),
    ],
)
def test_an_import_loads_nothing_that_it_should_not_hold(module: str, barred: set[str]) -> None:
    assert not loaded_by(module) & barred


def test_a_public_name_is_imported_when_it_is_first_asked_for() -> None:
    program = (
        "import sys, enclave_broker\n"
        "assert 'enclave_broker.types.limits' not in sys.modules\n"
        "from enclave_broker import SessionLimits\n"
        "assert 'enclave_broker.types.limits' in sys.modules\n"
        "assert 'enclave_broker.broker' not in sys.modules\n"
        "assert vars(enclave_broker)['SessionLimits'] is SessionLimits\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True)

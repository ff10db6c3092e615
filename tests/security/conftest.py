from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.security.attacks import Secrets
from tests.security.host import Host, opened

# Only Linux has the walls; system calls are looked at where the program for it is.
collect_ignore: list[str] = ["test_worker_walls.py", "test_system_calls.py"] if sys.platform != "linux" else []
collect_ignore += [] if shutil.which("strace") else ["test_system_calls.py"]


@pytest.fixture(scope="module")
def secret() -> Secrets:
    return Secrets.fresh()


@pytest.fixture(scope="module")
def file(secret: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("host") / "secret.json"
    path.write_text(f'"{secret.file}"', encoding="utf-8")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(secret: Secrets, file: Path) -> AsyncIterator[Host]:
    """One broker for a module's tests: what one script does must not change the world of the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCLAVE_CANARY", secret.environment)
        patch.setenv("TZ", "Pacific/Chatham")
        async with opened(secret, file) as host:
            yield host

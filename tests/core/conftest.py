"""One engine for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enclave_broker.core.javascript import Engine
from tests.core.support import open_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with open_engine() as engine:
        yield engine

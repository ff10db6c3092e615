from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.terminal import SHOP


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a command is run: empty."""
    return tmp_path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Where a command is run: app.py has a broker with tools."""
    (tmp_path / "app.py").write_text(SHOP, encoding="utf-8")
    return tmp_path

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.browser.chromium import Browser, chromium, find_chromium
from tests.browser.console import Console, console_page, make_broker
from tests.http.live import Live, serving

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    program = find_chromium()
    if program is None:
        why = "no Chromium is installed (`make test` installs Debian's when it is run by root)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with chromium(program, tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="session")
def site() -> Generator[str]:
    """The origin at which Python's own server shows the examples."""
    command = [sys.executable, "-u", "-m", "http.server", "-d", str(EXAMPLES), "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            found = re.search(r"http://[\d.:]+", line)
            assert found is not None, line
            yield found[0]
        finally:
            server.terminate()


@pytest.fixture
def live() -> Generator[Live]:
    """Served to everybody."""
    with serving(make_broker()) as running:
        yield running


@pytest.fixture
def console(browser: Browser, live: Live) -> Generator[Console]:
    with console_page(browser, live.url) as opened:
        yield opened

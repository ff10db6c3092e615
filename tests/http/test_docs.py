"""What the page about serving shows with curl is what happens."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

from tests.docs.page import app_of, blocks, demand
from tests.http.served import served

DOCS = Path(__file__).parents[2] / "docs"


def test_what_curl_shows_on_the_page_about_serving_is_what_happens(tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "this test needs curl"
    app = app_of((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    shown = list(blocks((DOCS / "how-to/serve.md").read_text(encoding="utf-8")))
    pairs = [(block.text, after.text) for block, after in pairwise(shown) if after.language == "text"]
    assert len(pairs) == 3
    with served(tmp_path, app=app) as server:
        for command, expected in pairs:
            mine = command.replace("localhost:8000", server.url.removeprefix("http://"))
            done = subprocess.run(mine, shell=True, capture_output=True, text=True, check=True)
            demand(expected.strip(), re.sub(r"\n$", "", done.stdout))

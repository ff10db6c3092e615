"""examples/watch.html holds what scripts and tools say, so it has no way to make markup or code of a text."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "examples" / "watch.html").read_text(encoding="utf-8")
WAYS = r"(?:inner|outer|Adjacent)HTML|document\.write|\beval\b|new Function|srcdoc|DOMParser|ContextualFragment"


def test_the_page_makes_text_of_what_it_is_told_and_nothing_else() -> None:
    assert re.findall(WAYS, PAGE) == []
    assert re.findall(r"setTimeout\((?!\(|resolve)", PAGE) == []


def test_the_page_loads_nothing_and_is_told_so_by_its_policy() -> None:
    assert re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)", PAGE) == []
    assert "default-src 'none'" in PAGE


def test_the_page_splits_its_stream_at_the_protocols_line_end_only() -> None:
    assert re.findall(r"\.split\(([^)]*)\)", PAGE) == [r'"\n"']

"""What the memory of a process holds: every page that is there, as root sees it from outside."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["found_in_memory"]

_PAGES = 256  # looked at together; a find may stand across the pages of one look, and across two looks
_IS_THERE = 0x40  # of an entry's highest byte: in memory, or swapped out


def found_in_memory(pid: int, wanted: Collection[bytes]) -> set[bytes]:
    """Those of the texts that stand anywhere in the process's memory. Raises PermissionError unless it may be read."""
    found: set[bytes] = set()
    longest = max(map(len, wanted))
    before, ended_at = b"", 0
    for start, data in _memory(pid):
        text = (before if start == ended_at else b"") + data
        found.update(each for each in wanted if each in text)
        before, ended_at = text[-longest:], start + len(data)
    return found


def _memory(pid: int) -> Iterator[tuple[int, bytes]]:
    page = os.sysconf("SC_PAGE_SIZE")
    folder = Path(f"/proc/{pid}")
    with (folder / "mem").open("rb", 0) as memory, (folder / "pagemap").open("rb", 0) as pages:
        for line in (folder / "maps").read_text("ascii", "replace").splitlines():
            place, allowed = line.split()[:2]
            start, end = (int(address, 16) for address in place.split("-"))
            if "r" not in allowed or start >= 1 << 63:
                continue
            for at in range(start, end, _PAGES * page):
                count = min(_PAGES, (end - at) // page)
                pages.seek(at // page * 8)
                if max(pages.read(count * 8)[7::8], default=0) < _IS_THERE:
                    continue  # of gigabytes that are laid out for WebAssembly, nearly all
                with suppress(OSError):  # what the kernel maps for its own devices
                    memory.seek(at)
                    yield at, memory.read(count * page)

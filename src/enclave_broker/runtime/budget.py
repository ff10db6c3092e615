"""How much memory worker processes may take together, and how much they have.

Address-space limits can't be used: an engine maps gigabytes that it never touches. Read from the system, so Linux only;
elsewhere there is no budget. Asked by runtime/pool.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["default_budget", "limits_from", "memory_of"]

SHARE = 0.6
"""Of the machine's memory, or of the control group's if that is less; the rest is the broker's and everybody else's."""
_COUNTED = ("RssAnon:", "VmPTE:", "VmSwap:")
_GROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""The first control groups write "no limit" as a number about this large."""


def default_budget() -> int | None:
    """Bytes for all workers of a broker; None where it can't be known."""
    sizes = [size for size in (_machine_bytes(), *_group_bytes()) if size is not None]
    return int(min(sizes) * SHARE) if sizes else None


def memory_of(pids: Iterable[int]) -> int:
    """Bytes that these processes hold: anonymous pages, page tables, what was swapped out. 0 for one that is gone."""
    return sum(_held(pid) for pid in pids)


def _held(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(_COUNTED))
    return 0


def _machine_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    return None


def _group_bytes() -> list[int]:
    """The limits of this process's control group and of those that it lies in, of both versions."""
    limits: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                limits += limits_from(_GROUPS, path, "memory.max")
            elif "memory" in controllers.split(","):
                limits += limits_from(_GROUPS / "memory", path, "memory.limit_in_bytes")
    return limits


def limits_from(root: Path, path: str, name: str) -> list[int]:
    """Of a control group and of those that it lies in, innermost first."""
    found: list[int] = []
    here = root / path.lstrip("/")
    for folder in (here, *here.parents):
        with contextlib.suppress(OSError, ValueError):
            size = int((folder / name).read_text(encoding="ascii"))  # "max" is no number
            if size < _NO_LIMIT:
                found.append(size)
        if folder == root:
            break
    return found

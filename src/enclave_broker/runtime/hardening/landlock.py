"""Landlock: the kernel's own sandbox for unprivileged processes, with no rule added, so that nothing is permitted.

Open descriptors go on working. It binds the calling thread and those that it starts later, so it comes before the
worker's threads; it doesn't show in /proc, so it is proved from inside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from enclave_broker.runtime.hardening.syscalls import must, raw

__all__ = ["SINCE", "abi", "restrict"]

SINCE = "5.13"
"""The first Linux that has it."""

_FILES = (1 << 13) - 1
"""ABI 1: execute, read, write and make whatever."""
_MORE_FILES = {2: 13, 3: 14, 5: 15, 9: 16}
"""ABI → further bit: refer, truncate, ioctl_dev, resolve_unix."""
_TCP_SINCE, _TCP = 4, 0b11  # bind, connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract UNIX sockets, signals


def abi() -> int:
    """The kernel's version of it; 0 where it isn't built in, isn't switched on, or a container's filter forbids it."""
    return max(0, raw("landlock_create_ruleset", None, 0, 1))


def restrict(version: int) -> str:
    """Forbid this thread all that ABI `version` knows, and say what. Raises OSError if files are still open to it.

    Needs no_new_privs (or CAP_SYS_ADMIN).
    """
    files = _FILES | sum(1 << bit for least, bit in _MORE_FILES.items() if version >= least)
    words = {"files": files}
    if version >= _TCP_SINCE:
        words["tcp"] = _TCP
    if version >= _SCOPES_SINCE:
        words["scopes"] = _SCOPES
    packed = struct.pack(f"<{len(words)}Q", *words.values())
    attributes = ctypes.create_string_buffer(packed, len(packed))
    ruleset = must("landlock_create_ruleset", raw("landlock_create_ruleset", attributes, len(packed), 0))
    try:
        must("landlock_restrict_self", raw("landlock_restrict_self", ruleset, 0))
    finally:
        os.close(ruleset)
    try:
        # An open root directory would be a way out: it must not stay open.
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return f"ABI {version} ({', '.join(words)})"
    raise OSError(errno.ENOTSUP, "the kernel took the rules and still opens files")

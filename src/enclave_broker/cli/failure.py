"""What ends a command before it has done its work, and with which exit code."""

from __future__ import annotations

__all__ = ["CHECK_FAILED", "INTERRUPTED", "OK", "USAGE", "UsageError"]

OK = 0
CHECK_FAILED = 1
"""The script failed, or the check that was asked for."""
USAGE = 2
"""The command can't be done as it was given; argparse uses the same."""
INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""


class UsageError(Exception):
    """The message says which file and line, and what would be right; it is shown without a traceback."""

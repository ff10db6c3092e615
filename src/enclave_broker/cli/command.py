"""The entry of the command line: parse, load the command's module, turn what it raises into a message and an exit code.

The one edge of the CLI: no other module exits or prints a failure that ends a command.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from enclave_broker.cli.arguments import PROGRAM, parser
from enclave_broker.cli.failure import CHECK_FAILED, INTERRUPTED, OK, USAGE, UsageError
from enclave_broker.cli.screen import RED, Screen, discard_output
from enclave_broker.cli.text import visible
from enclave_broker.types.errors import ConfigurationError, EnclaveError

__all__ = ["main"]

_MODULES = {
    name: f"enclave_broker.cli.{name}"
    for name in ("run", "serve", "sessions", "approvals", "tools", "access", "keys", "doctor")
}
"""Each has `execute(arguments, screen) -> exit code`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. argparse exits by itself, with 2, for what it can't parse."""
    grammar = parser()
    arguments = grammar.parse_args(argv)
    # A stream is None when its descriptor is closed (`>&-`).
    screen = Screen(sys.stdout or io.StringIO(), sys.stderr or io.StringIO(), os.environ)
    if arguments.version:
        print(PROGRAM, importlib.import_module("enclave_broker.cli.versions").own_version())
        return OK
    if arguments.command is None:
        grammar.print_help(sys.stderr)
        return USAGE
    try:
        return importlib.import_module(_MODULES[arguments.command]).execute(arguments, screen)
    except UsageError as error:
        return _fail(screen, "error", str(error), USAGE)
    except ConfigurationError as error:
        return _fail(screen, "error", error.message, USAGE)
    except EnclaveError as error:
        return _fail(screen, f"error {error.code}", error.message, CHECK_FAILED)
    except KeyboardInterrupt:
        screen.interrupted()
        return _fail(screen, "interrupted", "", INTERRUPTED)
    except BrokenPipeError:
        discard_output()
        return CHECK_FAILED


def _fail(screen: Screen, what: str, message: str, code: int) -> int:
    screen.status("")
    screen.note(screen.err.paint(f"{what}:" if message else what, RED) + (f" {visible(message)}" if message else ""))
    return code

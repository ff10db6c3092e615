"""The command `enclave-broker`: it reads files and the environment, which nothing below it does.

command.py is the entry, arguments.py the grammar, one module a command. What stands before a command is chosen loads
only argparse, so that `--help` answers at once.
"""

from __future__ import annotations

from enclave_broker.cli.command import main

__all__ = ["main"]

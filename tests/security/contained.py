"""The program that tests start: a broker in a container whose filter refuses some system calls; prints what came of it.

As `python -I -c BOOT ROOT contained FORBIDDEN WEAK`: fresh, since a filter stays for ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from enclave_broker import Broker, EnclaveError
from tests.runtime.hardening.entered import contain

__all__ = ["main"]


async def attempt(*, weak: bool) -> list[str]:
    """How a broker starts here: the error's class, code and message, or what a script came to."""
    try:
        async with Broker(weak_sandbox=weak) as broker:
            result = await broker.execute("return 1 + 1")
            return ["started", str(result.value)]
    except EnclaveError as error:
        return [type(error).__name__, error.message]


def main() -> None:
    forbidden, weak = sys.argv[2].split(), sys.argv[3] == "weak"
    logging.disable(logging.CRITICAL)
    if forbidden:
        contain(forbidden)
    sys.stdout.write(json.dumps(asyncio.run(attempt(weak=weak))))

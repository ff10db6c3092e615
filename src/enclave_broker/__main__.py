"""`python -m enclave_broker`: the same as the command `enclave-broker`."""

from __future__ import annotations

import sys

from enclave_broker.cli import main

if __name__ == "__main__":
    sys.exit(main())

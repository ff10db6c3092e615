"""`python -m enclave_broker.core.build` makes core/quickjs.wasm; with `--pin` it also pins the new hash."""

from __future__ import annotations

import argparse
import sys

from enclave_broker.core.build.build import MODULE, build, pin

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="enclave_broker.core.build", description=__doc__)
    parser.add_argument("--pin", action="store_true", help="pin the hash of what comes out, after a deliberate change")
    try:
        digest = pin() if parser.parse_args().pin else build()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    print(f"{MODULE.name} {digest}")

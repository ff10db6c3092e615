"""Compiles quickjs.wasm to native code: the main of a one-shot child, `python -I -m enclave_broker.core.compile FD`.

A process of its own, since the compiler leaves 200 MB behind and uses all CPUs. Run by runtime/image.py.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from enclave_broker.core import wasmtime_api as api

__all__ = ["compile_module", "main"]

MODULE = Path(__file__).with_name("quickjs.wasm")


def compile_module(module: bytes) -> bytes:
    """The native image of a WebAssembly module, for this machine and this version of wasmtime."""
    engine = api.new_engine()
    compiled = ctypes.c_void_p()
    api.check(api.module_new(engine, module, len(module), ctypes.byref(compiled)))
    image = api.Bytes()
    api.check(api.module_serialize(compiled, ctypes.byref(image)))
    return ctypes.string_at(image.data, image.size)


def main() -> None:
    """Writes the image into the file that the descriptor in argv is of, from its start."""
    with os.fdopen(int(sys.argv[1]), "wb", closefd=False) as file:
        file.write(compile_module(MODULE.read_bytes()))


if __name__ == "__main__":
    main()

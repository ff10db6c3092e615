"""The fixed inputs of the build: versions, source archive, compiler flags. No code that acts.

The patches are in patches.py. All of it is part of the build's key: to change anything is to make another engine, with
another hash.
"""

from __future__ import annotations

__all__ = [
    "COMPILER_FLAGS",
    "LINKER_FLAGS",
    "REQUIREMENTS",
    "SOURCES",
    "SOURCE_FILES",
    "SOURCE_FOLDER",
    "SOURCE_SHA256",
]

SOURCES = "quickjs-ng==0.17.0.2"
"""The source distribution on PyPI that carries the C sources of QuickJS-NG."""
SOURCE_SHA256 = "43d2e48272208721a7aaea8e3f02d4b9318f12ef20cc4f5421b59d9a470706ef"
SOURCE_FOLDER = "quickjs_ng-0.17.0.2/upstream-quickjs"
SOURCE_FILES = (
    "builtin-array-fromasync.h",
    "builtin-iterator-zip-keyed.h",
    "builtin-iterator-zip.h",
    "cutils.h",
    "dtoa.c",
    "dtoa.h",
    "libregexp-opcode.h",
    "libregexp.c",
    "libregexp.h",
    "libunicode-table.h",
    "libunicode.c",
    "libunicode.h",
    "list.h",
    "quickjs-atom.h",
    "quickjs-c-atomics.h",
    "quickjs-opcode.h",
    "quickjs.c",
    "quickjs.h",
    "unicode_gen_def.h",
)

REQUIREMENTS = ("pip==26.3", "wasmtime==50.0.1", "ziglang==0.17.1")
"""What the build itself needs: the download, the run of `init`, the compiler. Exact, so that its bytes are the same."""

COMPILER_FLAGS = (
    "-target",
    "wasm32-wasi",
    "-O2",
    "-g0",
    "-DNDEBUG",
    "-D_GNU_SOURCE",
    '-DCONFIG_VERSION="0.17"',
    "-D_WASI_EMULATED_SIGNAL",
)
LINKER_FLAGS = (
    "-mexec-model=reactor",
    "-lwasi-emulated-signal",
    "-Wl,--strip-all",
    # The shadow stack must be larger than the engine's own limit (shim/shim.c: STACK_BYTES), which checks less often.
    "-Wl,-z,stack-size=1048576",
    "-Wl,--export=__stack_pointer",
    "-Wl,--max-memory=268435456",
)

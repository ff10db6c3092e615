"""From sources to core/quickjs.wasm, through a cache keyed by everything that goes in.

Owns the order of the steps, the cache and the check against the pinned hash. The steps are in sources.py and bake.py.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from enclave_broker.core.build.patches import PATCHES
from enclave_broker.core.build.recipe import COMPILER_FLAGS, LINKER_FLAGS, REQUIREMENTS, SOURCE_SHA256
from enclave_broker.core.build.sources import fetch, unpack

__all__ = ["MODULE", "PIN", "build", "is_cached", "pin"]

_HERE = Path(__file__).parent
_SHIM = _HERE / "shim"
_PRELUDE = ("prelude.js", "webidl.js", "url_host.js", "url_parser.js", "search_params.js", "url.js")
"""What the image is initialised with, in this order."""
MODULE = _HERE.parent / "quickjs.wasm"
PIN = _HERE.parent / "engine.sha256"


def build() -> str:
    """Makes core/quickjs.wasm, in seconds if it was made before on this machine; returns its SHA-256.

    Raises RuntimeError if a tool is missing or fails, or if the result isn't the pinned one.
    """
    digest = _make()
    pinned = PIN.read_text().strip()
    if digest != pinned:
        raise RuntimeError(f"the engine's hash is {digest}, but {pinned} is pinned in {PIN.name}")
    return digest


def pin() -> str:
    """Makes core/quickjs.wasm and pins its hash: after a deliberate change of an input."""
    digest = _make()
    PIN.write_text(digest + "\n")
    return digest


def is_cached() -> bool:
    """Whether `build` would need neither network nor compiler."""
    return _cached().exists()


def _make() -> str:
    cached = _cached()
    if cached.exists():
        module = cached.read_bytes()
    else:
        module = _compile_and_bake()
        _write(cached, module)
    if not MODULE.exists() or MODULE.read_bytes() != module:
        _write(MODULE, module)
    return hashlib.sha256(module).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Atomically, since several builds may run at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    draft = Path(file.name)
    draft.chmod(0o644)
    draft.replace(path)


def _compile_and_bake() -> bytes:
    archive = fetch(_cache_folder())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(archive, folder)
        for path in _shim_files():
            (folder / path.name).write_bytes(path.read_bytes())
        module = _compile(folder)
    from enclave_broker.core.build.bake import bake  # noqa: PLC0415 - needs wasmtime; a cached build does without

    return bake(module, b"\0".join((_SHIM / name).read_bytes() for name in _PRELUDE))


def _compile(folder: Path) -> bytes:
    # Relative paths and one folder for all: no path of this machine gets into the module.
    command = [sys.executable, "-m", "ziglang", "cc", *COMPILER_FLAGS, "shim.c", "libregexp.c", "libunicode.c"]
    command += ["dtoa.c", "-o", "engine.wasm", *LINKER_FLAGS]
    cache = str(_cache_folder() / "zig")
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    result = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"the compiler failed: {result.stderr.strip()[-4000:]}")
    return (folder / "engine.wasm").read_bytes()


def _shim_files() -> list[Path]:
    return sorted(path for path in _SHIM.iterdir() if path.suffix in (".c", ".h"))


def _cached() -> Path:
    key = hashlib.sha256(repr((SOURCE_SHA256, PATCHES, COMPILER_FLAGS, LINKER_FLAGS, REQUIREMENTS)).encode())
    for path in (*_shim_files(), *(_SHIM / name for name in _PRELUDE), _HERE / "bake.py"):
        key.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return _cache_folder() / f"quickjs-{key.hexdigest()[:32]}.wasm"


def _cache_folder() -> Path:
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "enclave-broker" / "build"

"""The engine's compiled image, as an open file that workers inherit.

Owns the cache: one file in the user's cache folder, which nobody else can write, named after everything that the image
depends on and after its own content. Where there is no such folder the image lives in sealed memory. Compiling is a
child's work (core/compile.py); wasmtime is never loaded here. Called by pool.py and memory.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import secrets
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["engine_hash", "open_image"]

_CORE = Path(__file__).parent.parent / "core"
_MODULE = _CORE / "quickjs.wasm"
_CONFIGURATION = (_CORE / "wasmtime_api.py", _CORE / "compile.py")
"""What decides how the module is compiled."""
_DIGEST_BYTES = 32
_KEY_CHARACTERS = 32
_KEPT_IMAGES = 5
"""Of other versions and machines that share the folder; each is 3 to 4 MB."""
_COMPILE_SECONDS = 120.0
"""It takes half a second; so long only where a machine is about to stand still."""


def engine_hash() -> str:
    """The SHA-256 of the engine's module: with it, a session's log says what its script ran on.

    Raises FileNotFoundError in a checkout where the module hasn't been built.
    """
    return hashlib.sha256(_module()).hexdigest()


def open_image() -> int:
    """A descriptor of the compiled image, open for reading; the caller closes it. The first use takes half a second.

    Raises FileNotFoundError without the module, RuntimeError if it can't be compiled.
    """
    name = f"engine-{_key(_module())}-"
    folder = _open_cache()
    if folder is None:
        return _compile()
    try:
        for candidate in sorted(os.listdir(folder)):  # noqa: PTH208 - of a descriptor
            if candidate.startswith(name) and (image := _open_cached(folder, candidate)) >= 0:
                return image
        image = _compile()
        _store(folder, image, name)
        _drop_old(folder)
        return image
    finally:
        os.close(folder)


def _module() -> bytes:
    try:
        return _MODULE.read_bytes()
    except FileNotFoundError:
        message = f"{_MODULE} is missing: make it with `python -m enclave_broker.core.build`"
        raise FileNotFoundError(message) from None


def _key(module: bytes) -> str:
    key = hashlib.sha256(hashlib.sha256(module).digest())
    for path in _CONFIGURATION:
        key.update(hashlib.sha256(path.read_bytes()).digest())
    facts = (importlib.metadata.version("wasmtime"), sys.platform, platform.machine(), _cpu_features())
    key.update("\0".join(facts).encode())
    return key.hexdigest()[:_KEY_CHARACTERS]


def _cpu_features() -> str:
    """Native code may use whatever the CPU has that compiled it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()


# ---- the cache ----


def _cache_folder() -> Path:
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "enclave-broker" / "images"


def _open_cache() -> int | None:
    """A descriptor of the cache folder; None where it can't be made or isn't ours alone."""
    try:
        path = _cache_folder()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    if not _is_ours(folder):
        os.close(folder)
        return None
    return folder


def _is_ours(descriptor: int) -> bool:
    """Nobody but this user, who runs whatever stands in it, can change it."""
    facts = os.fstat(descriptor)
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _open_cached(folder: int, name: str) -> int:
    """A descriptor of the file if it is ours and holds what its name says; else the file goes, and it is -1."""
    image = -1
    try:
        image = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        sound = stat.S_ISREG(os.fstat(image).st_mode) and _is_ours(image) and name.endswith("-" + _digest(image))
    except OSError:
        sound = False
    if sound:
        return image
    if image >= 0:
        os.close(image)
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
    return -1


def _digest(image: int) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(image):
        digest.update(chunk)
    return digest.hexdigest()[:_DIGEST_BYTES]


def _chunks(image: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(image, 1 << 20, offset):
        offset += len(chunk)
        yield chunk


def _store(folder: int, image: int, name: str) -> None:
    """Copies the image into the cache, whole or not at all. Without room it stays where it is."""
    draft = f".draft-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        copy = os.open(draft, flags, 0o600, dir_fd=folder)
        try:
            for chunk in _chunks(image):
                if os.write(copy, chunk) != len(chunk):
                    raise OSError("no room")
            os.fsync(copy)
        finally:
            os.close(copy)
        os.rename(draft, name + _digest(image), src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=folder)


def _drop_old(folder: int) -> None:
    """Leaves the images that were made last."""

    def made(name: str) -> float:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime

    with contextlib.suppress(OSError):  # another broker may be at it as well
        names = [name for name in os.listdir(folder) if name.startswith("engine-")]
        for name in sorted(names, key=made, reverse=True)[_KEPT_IMAGES:]:
            os.unlink(name, dir_fd=folder)


# ---- compiling ----


def _compile() -> int:
    """The image made anew, in memory or in a file without a name."""
    image = _new_file()
    command = [sys.executable, "-I", "-m", "enclave_broker.core.compile", str(image)]
    try:
        result = subprocess.run(
            command, check=False, capture_output=True, timeout=_COMPILE_SECONDS, pass_fds=(image,), env={}
        )
        if result.returncode:
            reason = result.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise RuntimeError(f"the engine can't be compiled: {reason}")
        return _read_only(image)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the engine wasn't compiled within {_COMPILE_SECONDS:.0f} s") from error
    finally:
        os.close(image)


def _new_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("enclave-broker-engine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _read_only(image: int) -> int:
    """Another descriptor of the file, through which nobody can change it."""
    if sys.platform != "linux":
        return os.dup(image)
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.fcntl(
        image, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    )
    return os.open(f"/proc/self/fd/{image}", os.O_RDONLY | os.O_CLOEXEC)

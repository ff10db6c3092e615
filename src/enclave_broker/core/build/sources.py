"""The C sources: fetched from PyPI by hash, unpacked and patched.

`fetch` is the build's only access to the network; pip does it, so a mirror or an index of one's own is honoured.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from enclave_broker.core.build.patches import PATCHES
from enclave_broker.core.build.recipe import SOURCE_FILES, SOURCE_FOLDER, SOURCE_SHA256, SOURCES

__all__ = ["fetch", "unpack"]


def fetch(cache: Path) -> Path:
    """The source archive, from the cache folder or the package index. Raises RuntimeError if it can't be had."""
    archive = cache / f"{SOURCES.replace('==', '-')}.tar.gz"
    if not archive.exists() or _sha256(archive) != SOURCE_SHA256:
        if importlib.util.find_spec("pip") is None:
            raise RuntimeError("the module pip is missing: install it (Debian: python3-pip) to build the engine")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _download(Path(folder)).replace(archive)
    return archive


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SOURCES} --hash=sha256:{SOURCE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--require-hashes", "-r", str(requirements), "-d", str(folder)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode or len(archives) != 1 or _sha256(archives[0]) != SOURCE_SHA256:
        raise RuntimeError(f"can't download {SOURCES}: {result.stderr.strip()[-2000:]}")
    return archives[0]


def unpack(archive: Path, folder: Path) -> None:
    """Writes the patched source files into `folder`."""
    with tarfile.open(archive) as tar:
        for name in SOURCE_FILES:
            member = tar.extractfile(f"{SOURCE_FOLDER}/{name}")
            if member is None:
                raise RuntimeError(f"{name} is not in {archive.name}")
            (folder / name).write_bytes(member.read())
    for patch in PATCHES:
        path = folder / patch.file
        text = path.read_text(encoding="utf-8")
        if text.count(patch.old) != patch.times:
            raise RuntimeError(f"a patch of {patch.file} doesn't fit: {patch.old[:60]!r}")
        path.write_text(text.replace(patch.old, patch.new), encoding="utf-8", newline="\n")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import enclave_broker
from enclave_broker.runtime.image import engine_hash, open_image

MODULE = Path(enclave_broker.__file__).parent / "core" / "quickjs.wasm"
linux = pytest.mark.skipif(sys.platform != "linux", reason="sealed memory is Linux's")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cached file, made once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("HOME", str(folder))
        os.close(open_image())
    return next(path for path in folder.rglob("engine-*"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where images are kept in these tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    base = tmp_path / "Library" / "Caches" if sys.platform == "darwin" else tmp_path
    return base / "enclave-broker" / "images"


@contextmanager
def image() -> Generator[int]:
    descriptor = open_image()
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def content() -> bytes:
    with image() as descriptor:
        return os.pread(descriptor, 1 << 26, 0)


def put(cache: Path, compiled: Path, content: bytes | None = None) -> Path:
    """The compiled image in the cache, or other content under its name."""
    cache.mkdir(mode=0o700, parents=True)
    path = cache / compiled.name
    path.touch(mode=0o600)
    path.write_bytes(compiled.read_bytes() if content is None else content)
    return path


def runs(descriptor: int) -> bool:
    """Whether an engine can be made of it, in a process of its own."""
    code = "import sys; from enclave_broker.core.javascript import Engine; Engine(sys.argv[1]).instantiate(1).close()"
    path = f"/dev/fd/{descriptor}"
    return not subprocess.run([sys.executable, "-c", code, path], pass_fds=(descriptor,), check=False).returncode


def test_the_engine_hash_is_that_of_the_module_and_the_pinned_one() -> None:
    assert engine_hash() == hashlib.sha256(MODULE.read_bytes()).hexdigest()
    assert engine_hash() == MODULE.with_name("engine.sha256").read_text().strip()


def test_an_image_is_compiled_once_and_then_taken_from_the_cache(cache: Path) -> None:
    first = content()
    [file] = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    before = file.stat().st_mtime_ns
    assert content() == first
    assert [file.stat().st_mtime_ns] == [before]
    with image() as descriptor:
        assert runs(descriptor)


@pytest.mark.parametrize("kept", [0, -1], ids=["empty", "without its end"])
def test_a_damaged_file_is_thrown_away_and_made_anew(cache: Path, compiled: Path, kept: int) -> None:
    put(cache, compiled, compiled.read_bytes()[:kept])
    with image() as descriptor:
        assert runs(descriptor)
    [again] = cache.iterdir()
    assert again.name.rpartition("-")[2] == hashlib.sha256(again.read_bytes()).hexdigest()[:32]


def test_a_file_that_others_can_write_is_not_used(cache: Path, compiled: Path) -> None:
    put(cache, compiled).chmod(0o666)
    content()
    [again] = cache.iterdir()
    assert again.stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_cache_is_not_followed(cache: Path, compiled: Path, tmp_path: Path) -> None:
    file, target = put(cache, compiled), tmp_path / "target"
    file.rename(target)
    file.symlink_to(target)
    content()
    [again] = cache.iterdir()
    assert not again.is_symlink()
    assert target.exists()


@linux
def test_without_a_cache_folder_of_its_own_the_image_is_in_sealed_memory(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with image() as descriptor:
        assert "memfd" in str(Path(f"/proc/self/fd/{descriptor}").readlink())
        with pytest.raises(PermissionError):
            os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_TRUNC)
        assert runs(descriptor)
    assert list(cache.iterdir()) == []


def test_old_images_make_room_for_new_ones(cache: Path) -> None:
    cache.mkdir(parents=True, mode=0o700)
    for n in range(9):
        (cache / f"engine-{n:032}-{n:032}").touch()
        os.utime(cache / f"engine-{n:032}-{n:032}", (n, n))
    (cache / "something else").touch()
    content()
    names = sorted(path.name for path in cache.iterdir())
    assert "something else" in names
    assert len(names) == 1 + 5
    assert f"engine-{8:032}-{8:032}" in names


def test_the_image_is_made_without_loading_the_compiler_here() -> None:
    code = "import sys; from enclave_broker.runtime.image import open_image; open_image(); print(sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "wasmtime" not in result.stdout
    assert "enclave_broker.core" not in result.stdout

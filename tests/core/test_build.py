from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.core.build import bake, build, patches, recipe, sources


def test_the_module_that_is_there_is_the_pinned_one() -> None:
    assert build.build() == build.PIN.read_text().strip()
    assert hashlib.sha256(build.MODULE.read_bytes()).hexdigest() == build.PIN.read_text().strip()


def test_the_module_exports_what_the_host_uses_and_imports_only_what_is_made_a_trap() -> None:
    module = wasmtime.Module(wasmtime.Engine(), build.MODULE.read_bytes())
    assert [item.name for item in module.imports] == ["fd_close"]
    names = {export.name for export in module.exports}
    assert names == {"memory", "in_address", "report_address", "start", "deliver", "stack_bottom"}


def test_no_path_of_the_machine_is_in_the_module() -> None:
    module = build.MODULE.read_bytes()
    for folder in (Path.home(), Path(__file__).parent.parent.parent, Path("/tmp")):
        assert str(folder).encode() + b"/" not in module


def test_a_module_that_is_not_the_pinned_one_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("0" * 64)
    monkeypatch.setattr(build, "PIN", pin)
    with pytest.raises(RuntimeError, match="is pinned"):
        build.build()


def test_a_patch_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "PATCHES", (patches.Patch("quickjs.c", "no such line", ""),))
    archive = tmp_path / "sources.tar.gz"
    _pack(archive, tmp_path)
    with pytest.raises(RuntimeError, match="doesn't fit"):
        sources.unpack(archive, tmp_path)


def test_an_archive_that_lacks_a_file_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "sources.tar.gz"
    _pack(archive, tmp_path, without="quickjs.c")
    with pytest.raises((RuntimeError, KeyError)):
        sources.unpack(archive, tmp_path)


def _pack(archive: Path, folder: Path, without: str = "") -> None:
    import tarfile

    empty = folder / "empty"
    empty.touch()
    with tarfile.open(archive, "w:gz") as tar:
        for name in recipe.SOURCE_FILES:
            if name != without:
                tar.add(empty, f"{recipe.SOURCE_FOLDER}/{name}")


@given(number=st.integers(0, 2**40))
def test_numbers_are_written_as_they_are_read(number: int) -> None:
    encoded = bake.unsigned(number)
    assert bake.read_unsigned(encoded, 0) == (number, len(encoded))
    signed = bake.signed(number)
    assert bake.read_unsigned(signed, 0) == (number, len(signed))
    assert not signed[-1] & 0x40


@given(memory=st.binary(max_size=500))
def test_data_segments_hold_all_that_is_not_zero(memory: bytes) -> None:
    body = bake.data_section(memory)
    count, offset = bake.read_unsigned(body, 0)
    again = bytearray(len(memory))
    for _ in range(count):
        start, offset = bake.read_unsigned(body, offset + 2)
        length, offset = bake.read_unsigned(body, offset + 1)
        again[start : start + length] = body[offset : offset + length]
        offset += length
    assert bytes(again) == memory

"""What a user gets: the wheel, built as for a release and installed where nothing else is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from email import message_from_bytes
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

# Cold, it waits for hatchling and the dependencies to be fetched; warm, for 20 seconds of unpacking and compiling.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT / "src"
PACKAGE = "enclave_broker"
# Python, its mark for type checkers, the engine, what that is made of, and the console. Another kind is a decision.
SUFFIXES = {".py", ".typed", ".wasm", ".sha256", ".c", ".h", ".js", ".html", ".css", ".svg"}


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, PROJECT)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands in a virtual environment that holds the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    scripts = Path(sysconfig.get_path("scripts", "venv", vars={"base": str(folder)}))
    install = ("--python", scripts / "python", "install", "--quiet")
    pip(*install, "--require-hashes", "--requirement", PROJECT / "requirements" / "base.txt")
    # Without an index, so that this fails when the wheel asks for something that isn't pinned.
    pip(*install, "--no-index", wheel)
    return scripts


def run(command: Path, *arguments: str, cwd: Path) -> str:
    # The cache folder, which spares compiling the engine anew, hangs on HOME; nothing else is inherited.
    environment = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [command, *arguments], check=True, stdout=subprocess.PIPE, text=True, cwd=cwd, env=environment
    )
    return done.stdout


def test_the_wheel_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_holds_the_package_and_nothing_else(files: dict[str, bytes]) -> None:
    packaged = {name for name in files if name.startswith(f"{PACKAGE}/")}
    others = {name for name in files.keys() - packaged if not name.split("/")[0].endswith(".dist-info")}
    assert others == set()
    assert {name for name in packaged if PurePosixPath(name).suffix not in SUFFIXES} == set()
    assert {name for name in packaged if not (SOURCE / name).is_file()} == set()


def test_the_wheel_holds_every_module(files: dict[str, bytes]) -> None:
    modules = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / PACKAGE).rglob("*.py")}
    assert modules - files.keys() == set()
    assert f"{PACKAGE}/py.typed" in files


def test_the_wheel_holds_the_engine_that_is_pinned(files: dict[str, bytes]) -> None:
    pinned = files[f"{PACKAGE}/core/engine.sha256"].decode("ascii").split()[0]
    assert hashlib.sha256(files[f"{PACKAGE}/core/quickjs.wasm"]).hexdigest() == pinned


def test_the_wheel_carries_the_licences_of_all_that_is_in_it(files: dict[str, bytes]) -> None:
    licences = {name.split("/licenses/")[1]: text.decode() for name, text in files.items() if "/licenses/" in name}
    assert "Apache License" in licences["LICENSE"]
    for owner in ("Fabrice Bellard", "Ben Noordhuis", "Unicode, Inc.", "Rich Felker"):
        assert owner in licences["NOTICE"]


def test_the_wheel_names_its_licence_and_no_address_of_an_index(files: dict[str, bytes]) -> None:
    (text,) = (text for name, text in files.items() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(text)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert [need for need in metadata.get_all("Requires-Dist", []) if "@" in need] == []


def test_an_installed_wheel_runs_a_script(scripts: Path, tmp_path: Path) -> None:
    assert run(scripts / "enclave-broker", "run", "-e", "return 1+1", cwd=tmp_path) == "2\n"


def test_the_module_is_the_same_command(scripts: Path, tmp_path: Path) -> None:
    printed = run(scripts / "python", "-m", "enclave_broker", "run", "-e", "return [1, 'a']", cwd=tmp_path)
    assert printed.strip() in ('[1, "a"]', '[1,"a"]')

"""Loading APP: the user's file or module with a Broker in it.

It is imported as `python app.py` would run it: its folder first on sys.path, its own name in sys.argv. What it prints
meanwhile goes to stderr. What is wrong with it is said with its own file and line, never with ours.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from enclave_broker.broker.broker import Broker
from enclave_broker.cli.failure import UsageError
from enclave_broker.cli.settings import PREFIX, Settings
from enclave_broker.cli.text import excerpt
from enclave_broker.types.errors import EnclaveError

__all__ = ["load_broker", "load_named", "need_broker"]

DEFAULT = "app.py"
FORMS = "file.py, file.py:name or module:name"
_OURS = Path(__file__).parent.parent


def load_named(spec: str | None, settings: Settings, *, verbose: bool = False) -> Broker | None:
    """The broker of `spec`, else of ENCLAVE_BROKER_APP, else of ./app.py; None when there is none of them.

    Raises UsageError for an app that isn't there, is broken or has no broker.
    """
    spec = spec or settings.text("APP") or (DEFAULT if Path(DEFAULT).is_file() else None)
    return None if spec is None else load_broker(spec, verbose=verbose)


def load_broker(spec: str, *, verbose: bool = False) -> Broker:
    """Import what `spec` names and find the broker in it. Raises UsageError."""
    place, name = _split(spec)
    path = Path(place).absolute() if place.endswith(".py") else None
    if path is not None and not path.is_file():
        raise UsageError(f"{place}: {'a folder, not a file' if path.is_dir() else 'no such file'}; APP is {FORMS}")
    folder = path.parent if path is not None else Path.cwd()
    sys.path.insert(0, str(folder))
    sys.argv = [place]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module = _import_file(path) if path is not None else importlib.import_module(place)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - an app may raise anything, SystemExit too
        if path is None and isinstance(error, ModuleNotFoundError) and error.name and _is_part(error.name, place):
            raise UsageError(f"there is no module {error.name} in {folder} or among the installed ones") from None
        if verbose:
            traceback.print_exception(error)
        raise UsageError(_explain(error, place, folder)) from None
    return _find(module, name, place)


def _split(spec: str) -> tuple[str, str]:
    """The file or module, and the name in it, maybe empty."""
    if spec.endswith(".py"):
        return spec, ""
    place, _, name = spec.rpartition(":")
    module = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place)
    if name.isidentifier() and (place.endswith(".py") or module):
        return place, name
    hint = f"; did you mean {spec}.py?" if Path(f"{spec}.py").is_file() else ""
    raise UsageError(f"APP is {FORMS}, not {spec!r}{hint}")


def _is_part(name: str, module: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _import_file(path: Path) -> ModuleType:
    """Import it under its own name, so that other modules of the app that import it get the same one."""
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"_enclave_broker_app_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, name: str, place: str) -> Broker:
    brokers = {key: value for key, value in vars(module).items() if isinstance(value, Broker)}
    if name:
        found: Any = getattr(module, name, None)
        if isinstance(found, Broker):
            return found
        what = f"is of type {type(found).__name__}, not a Broker" if hasattr(module, name) else "isn't there"
        hint = f"; a Broker is in: {', '.join(brokers)}" if brokers else f"; {place} has no Broker at all"
        raise UsageError(f"{place}:{name} {what}{hint}")
    if not brokers:
        raise UsageError(f"{place} has no Broker: `broker = Broker()` is what it needs, at the top level")
    if "broker" in brokers:
        return brokers["broker"]
    if len({id(found) for found in brokers.values()}) > 1:
        raise UsageError(
            f"{place} has more than one Broker: say which, as {' or '.join(f'{place}:{key}' for key in brokers)}"
        )
    return next(iter(brokers.values()))


# -- what is wrong with an app --------------------------------------------------------------------------------------


def _explain(error: BaseException, place: str, folder: Path) -> str:
    """The error with the app's own file, line and source line."""
    if isinstance(error, SystemExit):
        return f'{place} ends while it is imported: put what it does as a program below `if __name__ == "__main__":`'
    what = error.message if isinstance(error, EnclaveError) else "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _located(f"{type(error).__name__}: {error.msg}", error.filename, error.lineno, error.offset)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_apps(frame.filename, folder)]
    if not own:
        return f"{place}: {what}"
    column = None if own[-1].colno is None else own[-1].colno + 1
    return _located(what, own[-1].filename, own[-1].lineno or 1, column)


def _is_apps(filename: str, folder: Path) -> bool:
    path = Path(filename)
    foreign = path.is_relative_to(_OURS) or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return path.is_relative_to(folder) and not foreign


def _located(what: str, filename: str, line: int, column: int | None) -> str:
    path = Path(filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    try:
        source = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        source = ""
    return "\n".join([f"{shown}:{line}: {what}", *excerpt(source, line, column)])


def need_broker(broker: Broker | None) -> Broker:
    """Raises UsageError where there was nothing to load."""
    if broker is None:
        raise UsageError(f"no app: name one with --app ({FORMS}), with {PREFIX}APP, or have it in ./{DEFAULT}")
    return broker

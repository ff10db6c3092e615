"""The order of the rooms, read from the imports: who may use whom, that nothing goes round, how long a file may be.

A process boundary is an import boundary: the host can't import the engine, the worker can't import the broker.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import enclave_broker

ROOT = Path(enclave_broker.__file__).parent
MAX_LINES = 400

# A module may import from its own room and from those that stand here. A room is a package or a module, by its path
# below `enclave_broker`; the longest name that fits decides.
LOWER = "types stream runtime"
CALLS = f"{LOWER} broker.wheel broker.telemetry broker.store.counters broker.tools"
SESSIONS = f"{CALLS} broker.observers broker.store.records broker.calls"
BROKER = f"{SESSIONS} broker.sessions broker.sessions.log broker.store"
ROOMS: Mapping[str, frozenset[str]] = {
    room: frozenset(allowed.split())
    for room, allowed in {
        "types": "",
        "stream": "types",
        "core": "types",
        "runtime": "types stream",
        "runtime.worker": "types stream runtime core",
        "runtime.memory": "types stream runtime core",
        "broker.wheel": "",
        "broker.observers": "types",
        "broker.telemetry": "types",
        "broker.store.records": "types",
        "broker.store.counters": "types",
        "broker.store": f"{LOWER} broker.store.records broker.store.counters",
        "broker.tools": LOWER,
        # The windows of rate limits are counted where other nodes could share them.
        "broker.calls": CALLS,
        "broker.sessions": f"{SESSIONS} broker.sessions.log",
        # The only one of the sessions that knows where records are kept; the others are handed the log.
        "broker.sessions.log": f"{SESSIONS} broker.sessions broker.store",
        "broker": BROKER,
        "broker.http": f"{BROKER} broker",
        "client": "types stream",
    }.items()
}
# Above all others, but the engine is out of reach for them, too.
OPEN_ROOMS = {"cli", "testing", "__main__"}
# They hold the engine, so that importing one is as good as importing it.
ENGINE_ROOMS = {"core", "runtime.worker", "runtime.memory"}
MAY_HOLD_ENGINE = {("testing", "runtime.memory"), *((room, "core") for room in ENGINE_ROOMS)}
# `Broker.http_app` and `Broker.mount` import it when they are called: a plain import must not load a web framework.
DEFERRED = {("broker.broker", "broker.http")}
# Packages that only some rooms may import.
THIRD_PARTY_ROOMS = {
    "opentelemetry": {"broker.telemetry"},
    "prometheus_client": {"broker.telemetry"},
    "wasmtime": {"core"},
}
BANNED_NAMES = {"common", "helper", "helpers", "misc", "util", "utils"}


@dataclass(frozen=True)
class Import:
    """One import of one module. `importer` is a path below `enclave_broker`, "" for the package itself."""

    importer: str
    target: str
    line: int
    for_types: bool
    deferred: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target or 'the public names'}"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8"), str(path)) for module, path in SOURCES.items()}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def import_statements(
    node: ast.AST, *, for_types: bool = False, deferred: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """Every import below `node`, with whether it is only for types and whether it waits inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, for_types, deferred
            continue
        inside_function = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for branch, only_types in ((child.body, True), (child.orelse, for_types)):
                module = ast.Module(body=branch, type_ignores=[])
                yield from import_statements(module, for_types=only_types, deferred=inside_function)
        else:
            yield from import_statements(child, for_types=for_types, deferred=inside_function)


def targets(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The dotted names of the modules that a statement asks for."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    origin = "." * statement.level + (statement.module or "")
    names = [f"{origin}.{alias.name}" for alias in statement.names]
    yield from dict.fromkeys(name if name.removeprefix("enclave_broker.") in SOURCES else origin for name in names)


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


# Every import of anything, under its full name, and of these the ones within the package.
ASKED = [
    Import(module, name, statement.lineno, for_types, deferred)
    for module, tree in TREES.items()
    for statement, for_types, deferred in import_statements(tree)
    for name in targets(statement)
]
IMPORTS = [
    replace(found, target=found.target.removeprefix("enclave_broker").removeprefix("."))
    for found in ASKED
    if is_in(found.target, "enclave_broker")
]


def room_of(module: str) -> str:
    known = [room for room in (*ROOMS, *OPEN_ROOMS) if is_in(module, room)]
    assert known, f"{module} stands in no room: give it one in ROOMS"
    return max(known, key=len)


def is_allowed(found: Import) -> bool:
    if found.importer == "":  # the package's own lazy names, which a test of their own holds to their homes
        return True
    if found.target == "":  # a name's home is imported, or the order of the rooms would mean nothing
        return False
    importer, target = room_of(found.importer), room_of(found.target)
    if found.deferred and any(is_in(found.importer, a) and is_in(found.target, b) for a, b in DEFERRED):
        return True
    if target in ENGINE_ROOMS and importer != target:
        return (importer, target) in MAY_HOLD_ENGINE
    return importer in OPEN_ROOMS or target == importer or target in ROOMS[importer]


def test_every_module_imports_only_from_the_rooms_below_it() -> None:
    wrong = [str(found) for found in IMPORTS if not is_allowed(found)]
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("broker.broker", "core.javascript"),
        ("broker.calls.chain", "broker.sessions.session"),
        ("broker.calls.chain", "broker.store.store"),
        ("broker.sessions.machine", "broker.store.store"),
        ("broker.sessions.session", "broker.broker"),
        ("broker.store.memory", "broker.sessions.log"),
        ("broker.telemetry.audit", "broker.calls.call"),
        ("broker.tools.router", "broker.calls.chain"),
        ("cli", "core.javascript"),
        ("cli", "runtime.worker"),
        ("client", "broker.broker"),
        ("core.javascript", "runtime.frames"),
        ("runtime.process", "core.javascript"),
        ("runtime.process", "runtime.worker"),
        ("runtime.worker", "broker.tools.tool"),
        ("stream.ndjson", "runtime.frames"),
        ("types.events", "stream.ndjson"),
        ("types.events", ""),
    ],
)
def test_an_import_against_the_order_is_found(importer: str, target: str) -> None:
    for for_types in (False, True):
        assert not is_allowed(Import(importer, target, 1, for_types, deferred=False))


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("broker.broker", "broker.store.memory"),
        ("broker.calls.call", "broker.telemetry.spans"),
        ("broker.calls.chain", "broker.tools.router"),
        ("broker.http.app", "broker.broker"),
        ("broker.sessions.log", "broker.store.store"),
        ("broker.sessions.log", "broker.sessions.machine"),
        ("broker.sessions.session", "broker.sessions.log"),
        ("cli", "broker.broker"),
        ("runtime.memory", "core.javascript"),
        ("runtime.worker", "runtime.hardening"),
        ("testing", "runtime.memory"),
    ],
)
def test_an_import_along_the_order_passes(importer: str, target: str) -> None:
    assert is_allowed(Import(importer, target, 1, for_types=False, deferred=False))


def test_the_broker_may_import_http_only_when_asked_for_an_application() -> None:
    assert is_allowed(Import("broker.broker", "broker.http.app", 1, for_types=False, deferred=True))
    assert not is_allowed(Import("broker.broker", "broker.http.app", 1, for_types=False, deferred=False))
    assert not is_allowed(Import("broker.sessions.session", "broker.http.app", 1, for_types=False, deferred=True))


def test_only_its_own_room_imports_a_package_that_one_room_is_for() -> None:
    wrong = [
        str(found)
        for found in ASKED
        for package, rooms in THIRD_PARTY_ROOMS.items()
        if is_in(found.target, package) and not any(is_in(found.importer, room) for room in rooms)
    ]
    assert wrong == []


def test_every_import_names_its_module_in_full() -> None:
    assert [str(found) for found in ASKED if found.target.startswith(".")] == []


def test_imports_never_go_round() -> None:
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        deferred_by_design = any(is_in(found.importer, a) and is_in(found.target, b) for a, b in DEFERRED)
        if found.importer and not found.for_types and not (found.deferred and deferred_by_design):
            graph.setdefault(found.importer, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [module for module in SOURCES if BANNED_NAMES & set(module.split("."))] == []


def test_types_have_one_home() -> None:
    assert [module for module in SOURCES if "types" in module.split(".") and not is_in(module, "types")] == []


def test_every_package_is_a_package() -> None:
    folders = {path.parent for path in SOURCES.values()}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_file_is_short_enough_to_be_read_at_once() -> None:
    lines = {str(path.relative_to(ROOT)): path.read_bytes().count(b"\n") for path in SOURCES.values()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_the_reader_sees_every_kind_of_import() -> None:
    tree = ast.parse(
        "import a.b\n"
        "if TYPE_CHECKING:\n    from c import d\nelse:\n    import e\n"
        "def f():\n    import g\n"
        "class K:\n    try:\n        import h\n    except ImportError:\n        import i\n"
        "async def m():\n    if TYPE_CHECKING:\n        import n\n"
    )
    seen = [(*targets(statement), types, deferred) for statement, types, deferred in import_statements(tree)]
    assert seen == [
        ("a.b", False, False),
        ("c", True, False),
        ("e", False, False),
        ("g", False, True),
        ("h", False, False),
        ("i", False, False),
        ("n", True, True),
    ]

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_broker.broker.tools.catalog import Catalog
from enclave_broker.broker.tools.globs import compile_glob
from enclave_broker.broker.tools.router import Router, RoutesChanged
from enclave_broker.broker.tools.tool import tool_from_function
from enclave_broker.types.errors import ConfigurationError


async def handler(name: str, args: dict[str, Any]) -> str:
    """Says who was asked."""
    return name


def registered(*patterns: str, prefix: str = "") -> Router:
    router = Router(prefix=prefix)
    for pattern in patterns:
        router.register(pattern, handler)
    return router


def found(router: Router, name: str) -> str | None:
    route = router.match(name)
    return None if route is None else route.pattern


# --- Which route counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("db:query", "db:query"),
        ("db:admin:drop", "db:admin:*"),
        ("db:admin", "db:*"),
        ("db:a/b", "db:*"),
        ("files:read", "*:{read,list}"),
        ("files:write", "*:*"),
        ("DB:query", "*:*"),
        ("db", None),
        ("", None),
    ],
)
def test_the_exact_name_counts_then_the_longest_literal_prefix(name: str, pattern: str | None) -> None:
    for patterns in (
        ["*:{read,list}", "*:*", "db:*", "db:admin:*", "db:query"],
        ["db:query", "db:admin:*", "db:*", "*:{read,list}", "*:*"],
    ):
        assert found(registered(*patterns), name) == pattern


def test_of_patterns_with_equally_long_prefixes_the_first_registered_counts() -> None:
    assert found(registered("db:*", "db:?*"), "db:query") == "db:*"
    assert found(registered("db:?*", "db:*"), "db:query") == "db:?*"
    assert found(registered("db:{query,drop}", "db:*"), "db:query") == "db:{query,drop}"


patterns = st.lists(
    st.sampled_from(["a", "b", ":", "*", "?", "[ab]", "{a,b:}"]), min_size=1, max_size=4
).map("".join).filter(lambda pattern: not pattern.startswith(":"))  # fmt: skip
names = st.text("ab:", max_size=6)


@given(st.lists(patterns, unique=True, max_size=20), st.lists(names, max_size=6))
def test_routes_are_found_as_the_rule_says(given_patterns: list[str], given_names: list[str]) -> None:
    router = registered(*given_patterns)
    for name in given_names:
        expected: tuple[bool, int, str] | None = None
        for pattern in given_patterns:
            glob = compile_glob(pattern)
            rank = (glob.exact, len(glob.literal_prefix), pattern)
            if glob.matches(name) and name[:1] not in {"", ":"} and (expected is None or rank[:2] > expected[:2]):
                expected = rank
        assert found(router, name) == (expected and expected[2])


@pytest.mark.parametrize("name", ["", " a", "a b", "a\n", "a\x00", "-a", "\uff50a", "*", "db:*", "\ud800", "x" * 257])
def test_what_is_no_name_leads_nowhere_not_even_where_everything_fits(name: str) -> None:
    assert found(registered("*", "db:*"), name) is None


def test_the_reserved_namespace_is_taken_by_no_pattern() -> None:
    assert found(registered("*", "t*", "{tools,x}:*"), "tools:search") is None
    for pattern in ("tools:*", "tools:search", "tools:{a,b}"):
        with pytest.raises(ConfigurationError, match="reserved"):
            registered(pattern)


# --- What can't be registered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["db:*", "db:query", "*"])
def test_the_same_pattern_twice_is_an_error_that_names_it(pattern: str) -> None:
    router = registered(pattern)
    with pytest.raises(ConfigurationError) as caught:
        router.register(pattern, handler)
    assert repr(pattern) in caught.value.message
    assert len(router) == 1


def test_an_escaped_name_is_that_name() -> None:
    router = registered("db\\:query")
    assert found(router, "db:query") == "db:query"
    with pytest.raises(ConfigurationError, match="registered already"):
        router.register("db:query", handler)


@pytest.mark.parametrize(
    "pattern", ["", "-*", ":*", "a b*", "!a", "#*", "db:[", "+(a)", "a\n", "é*", "x" * 257, 5, None]
)
def test_a_pattern_that_no_name_can_fit_is_an_error(pattern: Any) -> None:
    with pytest.raises(ConfigurationError):
        registered(pattern)


@pytest.mark.parametrize(
    "options",
    [
        {"effect": "writes"},
        {"secrets": "KEY"},
        {"secrets": [1]},
        {"middleware": handler},
        {"middleware": 5},
    ],
)
def test_a_wrong_option_is_an_error_and_registers_nothing(options: dict[str, Any]) -> None:
    router = Router()
    with pytest.raises(ConfigurationError):
        router.register("db:*", handler, **options)
    assert len(router) == router.version == 0


def test_a_handler_of_another_shape_is_an_error() -> None:
    async def typed(id: int) -> None: ...

    with pytest.raises(ConfigurationError, match="the tool's name and its arguments"):
        Router().register("db:*", typed)


# --- What a route says -----------------------------------------------------------------------------------------------


def test_a_route_carries_what_was_registered() -> None:
    async def mw(call: Any, call_next: Any) -> Any: ...

    limit = object()
    router = Router()
    router.register(
        "db:*",
        handler,
        rate_limit=limit,
        requires_auth=True,
        effect="read",
        secrets=["KEY"],
        middleware=[mw],
        requires_approval=True,
    )
    route = router.match("db:query")
    assert route is not None
    assert (route.pattern, route.handler, route.rate_limit) == ("db:*", handler, limit)
    assert (route.requires_auth, route.effect, route.secrets) == (True, "read", ("KEY",))
    assert (route.middleware, route.requires_approval) == ((mw,), True)
    assert route.tool.is_pattern
    assert route.tool.description == "Says who was asked."


def test_a_typed_function_is_registered_by_its_own_name_or_the_one_given() -> None:
    router = Router(prefix="orders:")

    @router.tool
    async def search(text: str) -> list[str]:
        return [text]

    @router.tool("get", effect="read", requires_auth=True)
    async def get_order(id: int) -> int:
        return id

    assert [route.pattern for route in router] == ["orders:search", "orders:get"]
    route = router.match("orders:get")
    assert route is not None
    assert (route.handler, route.effect, route.requires_auth) == (get_order, "read", True)
    assert not route.tool.is_pattern
    with pytest.raises(ConfigurationError, match="can't be a tool's name"):
        router.tool("get:*")(search)


def test_a_prefix_stands_before_every_pattern() -> None:
    router = registered("query", "*", "{a,b}:*", prefix="db:")
    assert [route.pattern for route in router] == ["db:query", "db:*", "db:{a,b}:*"]
    assert found(router, "query") is None
    for prefix in ("db:*", ":", "d b", "é", "x" * 257):
        with pytest.raises(ConfigurationError, match="prefix"):
            Router(prefix=prefix)


# --- Changes ---------------------------------------------------------------------------------------------------------


def test_a_route_comes_and_goes() -> None:
    router = registered("db:*")
    assert router.remove("db:*")
    assert found(router, "db:query") is None
    assert not router.remove("db:*")
    router.register("db:*", handler)
    assert found(router, "db:query") == "db:*"


def test_a_table_that_somebody_holds_never_changes() -> None:
    router = registered("db:*", "a")
    before, route = router.table, router.match("db:query")
    router.remove("db:*")
    router.register("db:query", handler)
    assert before.match("db:query") is route
    assert [route.pattern for route in before] == ["db:*", "a"]
    assert [route.pattern for route in router] == ["a", "db:query"]


def test_a_table_without_patterns_finds_those_that_come_later() -> None:
    router = registered("a")
    assert found(router, "db:query") is None
    router.register("db:*", handler)
    assert found(router, "db:query") == "db:*"
    router.register("b", handler)
    router.remove("db:*")
    assert found(router, "db:query") is None


def test_included_routes_get_the_prefix_all_or_none() -> None:
    inner = registered("query", "admin:*", prefix="db:")
    router = registered("eu:db:admin:*")
    with pytest.raises(ConfigurationError, match="eu:db:admin:\\*"):
        router.include(inner, prefix="eu:")
    assert [route.pattern for route in router] == ["eu:db:admin:*"]
    router.include(inner, prefix="us:")
    router.include(inner)
    assert [route.pattern for route in router][1:] == ["us:db:query", "us:db:admin:*", "db:query", "db:admin:*"]
    route = router.match("us:db:query")
    assert route is not None
    assert (route.tool.name, route.handler) == ("us:db:query", handler)
    assert [route.pattern for route in inner] == ["db:query", "db:admin:*"]
    for prefix in ("*", ":", "a b"):
        with pytest.raises(ConfigurationError, match="prefix"):
            router.include(inner, prefix=prefix)


def test_several_changes_are_one_version() -> None:
    router = registered("a", "b:*")
    told: list[RoutesChanged] = []
    router.on_change(told.append)
    add = list(registered("a", "c:*"))
    assert router.change(remove=["a", "unknown", "a"], add=add)
    assert told == [RoutesChanged(3, ("a", "c:*"), ("a",))]
    assert router.version == 3
    assert not router.change(remove=["unknown"])
    with pytest.raises(ConfigurationError, match="registered already"):
        router.change(remove=["b:*"], add=add)
    assert [route.pattern for route in router] == ["b:*", "a", "c:*"]
    assert len(told) == 1


def test_whoever_listens_is_told_of_each_change_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    told: list[RoutesChanged] = []

    def fails(_: RoutesChanged) -> None:
        raise RuntimeError("the listener's own fault")

    router.on_change(fails)
    end = router.on_change(told.append)
    router.register("db:*", handler)
    router.remove("db:*")
    end()
    end()
    router.register("db:*", handler)
    assert told == [RoutesChanged(1, ("db:*",), ()), RoutesChanged(2, (), ("db:*",))]
    assert caplog.text.count("a listener failed on a change of routes") == 3


def test_threads_may_change_and_ask_at_once() -> None:
    router = registered("*")
    wrong: list[str] = []
    begin = threading.Barrier(4)

    def change(thread: int) -> None:
        begin.wait()
        for i in range(100):
            router.register(f"t{thread}:{i}:*", handler)
            if found(router, f"t{thread}:{i}:x") != f"t{thread}:{i}:*":
                wrong.append(f"t{thread}:{i}")
            if i % 2:
                router.remove(f"t{thread}:{i}:*")

    threads = [threading.Thread(target=change, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert len(router) == 1 + 4 * 50
    assert router.version == 1 + 4 * 150


# --- The catalog -----------------------------------------------------------------------------------------------------


def test_a_catalog_finds_tools_of_its_router_and_names_those_that_have_one() -> None:
    router = registered("db:*")
    catalog = Catalog(router=router)
    catalog.add(tool_from_function(lambda: 1, name="one"))
    assert catalog.names() == ["one"]
    assert [tool.name for tool in catalog] == ["db:*", "one"]
    tool = catalog.find("db:query")
    assert tool is not None
    assert tool.name == "db:*"
    assert catalog.find("other") is None
    with pytest.raises(ConfigurationError, match="can't be a tool's name"):
        catalog.add(tool)
    with pytest.raises(ConfigurationError, match="one owner"):
        catalog.add(tool_from_function(lambda: 1, name="one"))

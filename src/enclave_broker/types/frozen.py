"""JSON values that can't be changed: dicts and lists of their own kind, so that whoever reads them sees what he knows.

They hold against mistakes of code that shares them, such as middleware; not against who goes round their methods.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

__all__ = ["FrozenDict", "FrozenList", "frozen"]


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError("this is shared and can't be changed: change a copy of your own, such as copy.deepcopy(...)")


class FrozenDict(dict[str, Any]):
    """Copying or pickling it gives a plain dict."""

    __setitem__ = __delitem__ = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        return cast("dict[str, Any]", _thawed(self))


class FrozenList(list[Any]):
    """Copying or pickling it gives a plain list."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse  # pyright: ignore[reportAssignmentType]
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __deepcopy__(self, memo: object) -> list[Any]:
        return cast("list[Any]", _thawed(self))


def frozen(value: Any) -> Any:
    """A copy of dicts, lists and sets all the way down; whatever else is in them is left as it is."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return FrozenDict({name: frozen(item) for name, item in fields.items()})
    if isinstance(value, list):
        return FrozenList(map(frozen, cast("list[Any]", value)))
    if isinstance(value, set):
        return frozenset(cast("set[Any]", value))
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, FrozenDict):
        return {name: _thawed(item) for name, item in value.items()}
    return [_thawed(item) for item in value] if isinstance(value, FrozenList) else value

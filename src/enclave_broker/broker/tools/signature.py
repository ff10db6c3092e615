"""How a handler is called: its parameters and annotations, read once when it is registered.

Told apart are a handler whose parameters are the arguments, one whose only parameter `args` is the whole object, and a
router's `(name, args)`. What can't be called safely is refused with what to write instead. Called by `tool`.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Field
from pydantic.fields import FieldInfo

from enclave_broker.broker.tools.context import ToolContext
from enclave_broker.types.errors import ConfigurationError

__all__ = ["Signature", "read_signature", "underlying"]

_ENDLESS = (abc.Iterable, abc.Iterator, abc.Generator, abc.AsyncIterable, abc.AsyncIterator, abc.AsyncGenerator)
_ROUTER_PARAMETERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A handler and how to call it."""

    handler: Callable[..., Any]
    parameters: Mapping[str, Any]
    """The arguments' annotations by name, defaults in them; empty if one parameter takes them all."""
    whole: Any
    """The annotation of the parameter that takes the whole object, None if there is none."""
    whole_name: str
    name_parameter: str
    """Of a router's handler: the parameter that gets the tool's name; else empty."""
    context_parameter: str
    """Empty if the handler doesn't take a ToolContext."""
    positional: tuple[str, ...]
    """The parameters that can only be given by position, in order."""
    is_async: bool
    returns: Any
    has_result_type: bool

    def call(self, name: str, validated: Any, context: ToolContext | None) -> Any:
        """Call the handler: its result, or what to await."""
        values: dict[str, Any] = {self.whole_name: validated} if self.whole_name else dict(validated)
        if self.name_parameter:
            values[self.name_parameter] = name
        if self.context_parameter:
            values[self.context_parameter] = context
        leading = [values.pop(name) for name in self.positional]
        return self.handler(*leading, **values)


def underlying(handler: Any) -> Any:
    """The function that holds a handler's annotations and docstring."""
    while True:
        if isinstance(handler, functools.partial):
            handler = cast("functools.partial[Any]", handler).func
        elif inspect.ismethod(handler):
            handler = handler.__func__
        elif not inspect.isroutine(handler) and callable(handler):
            handler = type(handler).__call__
        else:
            return handler


def read_signature(handler: Any, subject: str, *, router: bool = False) -> Signature:
    """Read a handler. `router`: it is called with the tool's name and its arguments.

    Raises ConfigurationError that begins with `subject`, such as "tool orders:get".
    """
    function = _check_callable(handler, subject)
    hints = _type_hints(function, subject)
    taken: list[inspect.Parameter] = []
    context = ""
    for parameter in _free_parameters(handler, function, subject):
        if _is_context(hints.get(parameter.name)):
            if context:
                raise ConfigurationError(f"{subject}: two parameters are a ToolContext; one is given")
            context = parameter.name
        taken.append(parameter)
    arguments = [parameter for parameter in taken if parameter.name != context]
    name_parameter = whole_name = ""
    if router:
        name_parameter, whole_name = _router_parameters(arguments, subject)
    elif [parameter.name for parameter in arguments] == ["args"]:
        whole_name = "args"
    parameters = {} if whole_name else {p.name: _argument(p, hints) for p in arguments}
    returns = _result_type(hints.get("return", inspect.Parameter.empty), subject)
    return Signature(
        handler=handler,
        parameters=parameters,
        whole=_whole_type(hints.get(whole_name, Any)) if whole_name else None,
        whole_name=whole_name,
        name_parameter=name_parameter,
        context_parameter=context,
        positional=tuple(p.name for p in taken if p.kind is inspect.Parameter.POSITIONAL_ONLY),
        is_async=inspect.iscoroutinefunction(function),
        returns=Any if returns is inspect.Parameter.empty else returns,
        has_result_type="return" in hints,
    )


def _check_callable(handler: Any, subject: str) -> Any:
    if inspect.isclass(handler) or not callable(handler):
        what = f"the class {handler.__name__}" if inspect.isclass(handler) else repr(type(handler).__name__)
        raise ConfigurationError(f"{subject}: a handler is a function or an object that can be called, not {what}")
    function = underlying(handler)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(
            f"{subject}: the handler yields, but a call has one result: collect what it yields and return a list; "
            "use `await context.progress(...)` to report on the way"
        )
    return function


def _free_parameters(handler: Any, function: Any, subject: str) -> list[inspect.Parameter]:
    """The parameters that a call may set: not those that functools.partial has bound."""
    bound: set[str] = set()
    inner = handler
    while isinstance(inner, functools.partial):
        partial = cast("functools.partial[Any]", inner)
        bound.update(partial.keywords)
        inner = partial.func
    try:
        signature = inspect.signature(handler)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{subject}: its parameters can't be read ({error}): wrap it in a function") from error
    free = [parameter for parameter in signature.parameters.values() if parameter.name not in bound]
    for parameter in free:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            raise ConfigurationError(
                f"{subject}: *{parameter.name} has no name that a script could use: write {parameter.name}: list[...], "
                "or functools.wraps if a decorator hides the handler's parameters"
            )
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise ConfigurationError(
                f"{subject}: **{parameter.name} leaves open which arguments there are: name them, "
                "or take them all by one parameter `args: dict[str, Any]`"
            )
    if free and free[0].name in {"self", "cls"} and free[0].annotation is inspect.Parameter.empty:
        name = getattr(function, "__qualname__", "").rpartition(".")[0]
        if name and not name.endswith("<locals>"):
            raise ConfigurationError(
                f"{subject}: {free[0].name} isn't bound: register the method of an object of {name}"
            )
    return free


def _router_parameters(arguments: list[inspect.Parameter], subject: str) -> tuple[str, str]:
    names = [p.name for p in arguments if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    if len(arguments) != _ROUTER_PARAMETERS or len(names) != _ROUTER_PARAMETERS:
        raise ConfigurationError(
            f"{subject}: a router's handler takes the tool's name and its arguments: write "
            "`async def handler(name: str, args: dict[str, Any])`, a ToolContext may be added"
        )
    return names[0], names[1]


def _argument(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    annotation = hints.get(parameter.name, Any)
    default = parameter.default
    if default is inspect.Parameter.empty or default is ...:
        return annotation
    if isinstance(default, FieldInfo):  # `amount: int = Field(gt=0)`
        return Annotated[annotation, default]
    return Annotated[annotation, Field(default=default)]


def _whole_type(annotation: Any) -> Any:
    return dict[str, Any] if annotation in {Any, object, dict, Mapping} else annotation


def _result_type(annotation: Any, subject: str) -> Any:
    """The result's type: of what is awaited, if a `def` handler returns something to await."""
    origin = typing.get_origin(annotation) or annotation
    arguments = typing.get_args(annotation)
    if origin in {abc.Awaitable, abc.Coroutine}:
        return _result_type(arguments[-1], subject) if arguments else Any
    if origin in _ENDLESS:
        raise ConfigurationError(f"{subject}: a result that is iterated may never end: annotate and return a list")
    return annotation


def _is_context(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return any(_is_context(member) for member in typing.get_args(annotation))
    return inspect.isclass(annotation) and issubclass(annotation, ToolContext)


def _type_hints(function: Any, subject: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        pass  # perhaps a name of the function that the handler is written in
    except Exception as error:  # an annotation is code, and may raise anything
        raise ConfigurationError(f"{subject}: an annotation can't be read: {error}") from error
    try:
        return typing.get_type_hints(function, localns=_names_around(function), include_extras=True)
    except Exception as error:
        raise ConfigurationError(
            f"{subject}: an annotation can't be read: {error}. It must be known where the handler is registered, "
            "not only under TYPE_CHECKING"
        ) from error


def _names_around(function: Any) -> dict[str, Any]:
    """The local names of the functions that a handler is written in, as far as they run now."""
    found: dict[str, Any] = {"ToolContext": ToolContext}  # the one name that is often imported for type checkers only
    enclosing = getattr(function, "__qualname__", "").split(".<locals>.")[:-1]
    wanted = {".<locals>.".join(enclosing[: depth + 1]) for depth in range(len(enclosing))}
    frames: list[types.FrameType] = []
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_qualname in wanted and frame.f_globals is getattr(function, "__globals__", None):
            frames.append(frame)
        frame = frame.f_back
    for outer in reversed(frames):  # the innermost decides
        found.update(outer.f_locals)
    return found

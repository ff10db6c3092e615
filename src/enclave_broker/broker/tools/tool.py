"""A tool: a name, a schema, the facts that policy needs, and a handler behind them.

Owns how arguments reach a handler and how its result leaves it. Decides nothing about who may call: the chain does, and
calls `validate`, `invoke` and `dump`. Made from functions by `tool_from_function` (Broker, ToolRouter.tool) and by
`tool_from_router_handler` (ToolRouter.register).
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast, get_args

from pydantic import TypeAdapter

from enclave_broker.broker.tools.context import ToolContext
from enclave_broker.broker.tools.globs import compile_glob
from enclave_broker.broker.tools.names import check_name, is_name
from enclave_broker.broker.tools.schema import ArgumentSchema, adapter_of, arguments_type, json_schema_of
from enclave_broker.broker.tools.signature import Signature, read_signature, underlying
from enclave_broker.broker.tools.threads import HandlerThreads
from enclave_broker.broker.tools.values import QUICK_TYPES, dump_result
from enclave_broker.types.calls import Effect
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.limits import seconds

__all__ = ["HandlerAbortedError", "Tool", "tool_from_function", "tool_from_router_handler", "tool_name"]


class HandlerAbortedError(Exception):
    """A handler raised what must not reach the loop: SystemExit, KeyboardInterrupt, a CancelledError of its own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool:
    """One tool, or all tools of a router's pattern. Frozen: what policy has judged stays what runs.

    `rate_limit`, `middleware` and `reconcile` are carried for the chain. `timeout` in seconds, None for the session's.
    """

    name: str
    """The tool's name, or the pattern of a router's handler."""
    description: str = field(repr=False)
    input_schema: Mapping[str, Any] = field(repr=False)
    """JSON schema of an object."""
    output_schema: Mapping[str, Any] | None = field(repr=False)
    """JSON schema of the result, None if its type isn't known."""
    effect: Effect = "write"
    timeout: float | None = None
    secrets: tuple[str, ...] = ()
    requires_auth: bool = False
    requires_approval: bool = False
    rate_limit: Any = None
    middleware: tuple[Callable[..., Any], ...] = ()
    reconcile: Callable[..., Any] | None = None
    run_in_thread: bool = True
    by_reference: bool = False
    is_client: bool = False
    """Whether a session's client executes it, and the host never does."""
    _arguments: ArgumentSchema = field(repr=False)
    _result: TypeAdapter[Any] = field(repr=False)
    _signature: Signature = field(repr=False)
    _quick: type | None = field(default=None, repr=False)
    """The result's type, if it is a plain one."""

    @property
    def handler(self) -> Callable[..., Any]:
        """What was registered."""
        return self._signature.handler

    @property
    def takes_context(self) -> bool:
        """Whether the handler asks for a ToolContext."""
        return bool(self._signature.context_parameter)

    @property
    def is_pattern(self) -> bool:
        """Whether `name` is a router's pattern, and no tool's name."""
        return not is_name(self.name)

    def validate(self, args_json: bytes, *, name: str | None = None) -> Any:
        """The arguments as the handler gets them. `name` is the called name, for messages.

        Raises ToolValidationError, whose message contains "invalid" and says what each field got and what it should be.
        """
        return self._arguments.validate(args_json, name or self.name)

    def arguments(self, validated: Any) -> dict[str, Any]:
        """Validated arguments as JSON values with defaults filled in: what policy and people judge.

        All of them, by the names that a script writes, whatever their types say about being written. Decimal and
        Fraction stay what they are, for exact comparisons.
        """
        return self._arguments.view(validated)

    async def invoke(self, name: str, validated: Any, context: ToolContext | None, threads: HandlerThreads) -> Any:
        """The handler's result. A `def` handler runs in one of `threads`, unless it was registered to run on the loop.

        `name` is the called name; `context` may be None for a tool that doesn't take one.

        Raises what the handler raises. Only a cancellation of the caller is a BaseException here: whatever else of that
        kind a handler raises comes as HandlerAbortedError. Cancelling is safe: an async handler is cancelled, one in a
        thread is abandoned.
        """
        signature = self._signature
        try:
            if signature.is_async or not self.run_in_thread:
                result = signature.call(name, validated, context)
            else:
                result = await threads.run(lambda: signature.call(name, validated, context))
            return await result if inspect.isawaitable(result) else result
        except Exception:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise HandlerAbortedError(f"{name} was cancelled from inside") from error
        except BaseException as error:
            raise HandlerAbortedError(f"{name} raised {type(error).__name__}") from error

    def dump(self, result: Any, max_bytes: int, *, name: str | None = None) -> bytes:
        """The result as JSON text, for the script and the log; see `dump_result` for how types are written.

        Raises ToolResultTooLargeError, and InvalidResultError for what can't be written or isn't what the handler's
        annotation says.
        """
        return dump_result(self._result, result, max_bytes, name or self.name, self._quick)


def tool_from_function(
    handler: Callable[..., Any],
    *,
    name: str | None = None,
    effect: Effect = "write",
    secrets: Sequence[str] = (),
    timeout: float | timedelta | None = None,
    requires_auth: bool = False,
    requires_approval: bool = False,
    rate_limit: Any = None,
    middleware: Sequence[Callable[..., Any]] = (),
    reconcile: Callable[..., Any] | None = None,
    description: str | None = None,
    run_in_thread: bool = True,
    by_reference: bool = False,
    warn_without_result_type: bool = False,
) -> Tool:
    """The tool of a handler whose parameters are the arguments, or whose only parameter `args` is the whole object.

    One more parameter, annotated ToolContext, gets the call's context. Name and description are the function's own
    unless given. `warn_without_result_type`: a UserWarning at the handler's line if nothing says what it returns.
    Raises ConfigurationError.
    """
    if name is None:
        name = tool_name(handler)
    check_name(name)
    signature = read_signature(handler, f"tool {name}")
    if warn_without_result_type and not signature.has_result_type:
        _warn(handler, name)
    return _build(
        name,
        signature,
        effect=effect,
        secrets=secrets,
        timeout=timeout,
        requires_auth=requires_auth,
        requires_approval=requires_approval,
        rate_limit=rate_limit,
        middleware=middleware,
        reconcile=reconcile,
        description=description,
        run_in_thread=run_in_thread,
        by_reference=by_reference,
    )


def tool_name(handler: Callable[..., Any]) -> str:
    """The name of a tool whose function it is."""
    return str(getattr(underlying(handler), "__name__", type(handler).__name__))


def tool_from_router_handler(
    pattern: str,
    handler: Callable[..., Any],
    *,
    effect: Effect = "write",
    secrets: Sequence[str] = (),
    timeout: float | timedelta | None = None,
    requires_auth: bool = False,
    requires_approval: bool = False,
    rate_limit: Any = None,
    middleware: Sequence[Callable[..., Any]] = (),
    reconcile: Callable[..., Any] | None = None,
    description: str | None = None,
    run_in_thread: bool = True,
    by_reference: bool = False,
) -> Tool:
    """The tool of a router's handler `(name, args)`, for every name that fits `pattern`.

    Raises ConfigurationError.
    """
    compile_glob(pattern)
    return _build(
        pattern,
        read_signature(handler, f"route {pattern}", router=True),
        effect=effect,
        secrets=secrets,
        timeout=timeout,
        requires_auth=requires_auth,
        requires_approval=requires_approval,
        rate_limit=rate_limit,
        middleware=middleware,
        reconcile=reconcile,
        description=description,
        run_in_thread=run_in_thread,
        by_reference=by_reference,
    )


def _build(
    name: str,
    signature: Signature,
    *,
    effect: Effect,
    secrets: Sequence[str],
    timeout: float | timedelta | None,
    description: str | None,
    middleware: Sequence[Callable[..., Any]],
    **rest: Any,
) -> Tool:
    subject = f"{'route' if signature.name_parameter else 'tool'} {name}"
    if effect not in get_args(Effect):
        raise ConfigurationError(f"{subject}: effect is one of {', '.join(get_args(Effect))}, not {effect!r}")
    if isinstance(secrets, str) or not all(isinstance(secret, str) for secret in cast("Sequence[Any]", secrets)):
        raise ConfigurationError(f"{subject}: secrets are names in a list or tuple, not {secrets!r}")
    if not isinstance(middleware, list | tuple):
        raise ConfigurationError(f"{subject}: middleware is a list, even of one")
    if description is None:
        description = inspect.getdoc(underlying(signature.handler)) or ""
    whole = signature.whole if signature.whole_name else arguments_type(signature.parameters)
    arguments = ArgumentSchema(whole, f"{subject}: the arguments")
    result = adapter_of(signature.returns, f"{subject}: the result")
    known = signature.returns is not Any
    return Tool(
        name=name,
        description=description,
        input_schema=arguments.json_schema,
        output_schema=json_schema_of(result, "serialization", f"{subject}: the result") if known else None,
        effect=effect,
        secrets=tuple(secrets),
        timeout=None if timeout is None else seconds(timeout, f"{subject}: timeout"),
        middleware=tuple(middleware),
        _arguments=arguments,
        _result=result,
        _signature=signature,
        _quick=next((kind for kind in QUICK_TYPES if signature.returns is kind), None),
        **rest,
    )


def _warn(handler: Callable[..., Any], name: str) -> None:
    function = underlying(handler)
    code = getattr(function, "__code__", None)
    warnings.warn_explicit(
        f"tool {name} doesn't say what it returns, so a model sees `unknown`: annotate its result",
        UserWarning,
        filename=code.co_filename if code else "<unknown>",
        lineno=code.co_firstlineno if code else 1,
        module=getattr(function, "__module__", None),
    )

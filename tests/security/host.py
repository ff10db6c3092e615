"""The host that the attempts are made on: a real broker whose tools and sessions hold the secrets.

Its tools are those of naive.js. Beside each script a session of the same tenant, and so in the same process, waits with
a secret of its own; another tenant's waits, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, Field, PrivateAttr

from enclave_broker import Broker, ExecutionResult, Principal, SessionLimits, ToolError
from enclave_broker.broker.sessions.session import Session
from enclave_broker.runtime.pool import ProcessPool
from tests.security.attacks import NEIGHBOUR, Attempt, Secrets

__all__ = ["LIMITS", "Host", "opened", "told_by"]

LIMITS = SessionLimits(timeout=10.0, tool_timeout=0.5, max_stdout_bytes=32 << 20, max_tool_calls=200, cpu_time=8.0)
ALLOWED = [
    "echo",
    "whoami",
    "wait",
    "fail",
    "refuse",
    "config:*",
    "account:*",
    "bytes:*",
    "function:*",
    "rows:*",
    "note:*",
    "typed:*",
]


class Account(BaseModel):
    name: str
    password: str = Field(exclude=True)
    _hidden: str = PrivateAttr("")


class Tools:
    """The handlers; a name's first `_` is its colon."""

    def __init__(self, secret: Secrets) -> None:
        self._secret = secret
        self._settings = {"role": "guest"}
        self.ledger: list[str] = []

    async def echo(self, args: dict[str, Any]) -> Any:
        return args.get("value")

    async def whoami(self, args: dict[str, Any]) -> str:
        return "guest"

    async def wait(self, args: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    async def fail(self, args: dict[str, Any]) -> None:
        raise RuntimeError(f"no access with {self._secret.closure}") from ValueError(self._secret.hidden)

    async def refuse(self, args: dict[str, Any]) -> None:
        raise ToolError("not on a Sunday", code="CLOSED", details={"opens": "Monday"}) from KeyError(
            self._secret.hidden
        )

    async def typed_get(self, count: int) -> int:
        return count

    def config_get(self, args: dict[str, Any]) -> Any:
        return self._settings

    def account_get(self, args: dict[str, Any]) -> Account:
        account = Account(name="guest", password=self._secret.hidden)
        account._hidden = self._secret.hidden  # pyright: ignore[reportPrivateUsage] it is what must not be seen
        return account

    def bytes_get(self, args: dict[str, Any]) -> bytes:
        return memoryview(b"public" + self._secret.closure.encode())[:6].tobytes()

    def function_get(self, args: dict[str, Any]) -> Any:
        return lambda: self._secret.closure

    def rows_stream(self, args: dict[str, Any]) -> Any:
        return ({"row": number} for number in range(3))

    def note_add(self, args: dict[str, Any]) -> None:
        if args.get("owner", "guest") != "guest":
            raise PermissionError("only a guest's own notes")
        self.ledger.append(f"note of {args.get('owner')}")

    def vault_open(self, args: dict[str, Any]) -> str:
        self.ledger.append("vault opened")
        return self._secret.seal

    def by_name(self) -> dict[str, Callable[..., Any]]:
        names = [name for name in vars(Tools) if not name.startswith("_") and name != "by_name"]
        return {name.replace("_", ":", 1): getattr(self, name) for name in names}


class Host:
    """A broker, its secrets, and the ledger that its tools keep."""

    def __init__(self, secret: Secrets, file: Path) -> None:
        self.secret = secret
        self.file = file
        self.pool = ProcessPool(workers=1, max_workers=2)
        tools = Tools(secret)
        self.ledger = tools.ledger
        self.broker = Broker(tools=tools.by_name(), limits=LIMITS, runtimes=[self.pool])

    def code(self, text: str) -> str:
        return text.replace("FILE_PATH", json.dumps(str(self.file)))

    async def attempt(self, attempt: Attempt, allowed: Sequence[str] = ALLOWED) -> list[str]:
        """Everything that came of it: first what the script came to, then all that is seen or was done."""
        self.ledger.clear()
        result, lines = await self.run(attempt.code, allowed=allowed)
        error = result.error
        came_to = result.value if result.ok else (error.message if error else "")
        first = came_to if isinstance(came_to, str) else json.dumps(came_to)
        return [first, *lines, *(f"ledger: {entry}" for entry in self.ledger)]

    async def run(
        self, code: str, tenant: str = "here", allowed: Sequence[str] = ALLOWED
    ) -> tuple[ExecutionResult[Any], list[str]]:
        """The result of a script, and all that a reader of its session sees."""
        principal = Principal("guest", tenant=tenant, claims={"token": self.secret.token})
        session = await self.broker.create_session(
            allowed_tools=allowed, principal=principal, metadata={"token": self.secret.token}
        )
        async with session:
            result = await session.execute(self.code(code))
            return result, told_by(result, session)

    async def neighbour(self, tenant: str) -> Session:
        """A session that holds a secret and waits, from here on."""
        session = await self.broker.create_session(
            allowed_tools=["wait"],
            principal=Principal("neighbour", tenant=tenant),
            limits=LIMITS.override(timeout=900.0, tool_timeout=900.0, per_tool_deadline=900.0),
        )
        session.begin(NEIGHBOUR.replace("SECRET", json.dumps(self.secret.neighbour)))
        async for event in session.events():
            if event.type == "tool_call":
                break
        return session


def told_by(result: ExecutionResult[Any], session: Session) -> list[str]:
    """Result, error with stack and details, output, calls and every event, as text that hides no character."""
    seen: Iterable[Any] = (
        result.value,
        result.error and msgspec.to_builtins(result.error),
        result.stdout,
        [record.public.to_wire() for record in session.log.records if record.public is not None],
        [msgspec.to_builtins(record) for record in session.history()],
    )
    return [json.dumps(item, ensure_ascii=False) for item in seen]


@contextlib.asynccontextmanager
async def opened(secret: Secrets, file: Path) -> AsyncGenerator[Host]:
    """A host with its neighbours: one in the scripts' own process, one of another tenant."""
    host = Host(secret, file)
    async with host.broker:
        neighbours = [await host.neighbour(tenant) for tenant in ("here", "elsewhere")]
        assert len(host.pool.pids) == len(neighbours), "one process a tenant"
        yield host
        assert all(session.state == "waiting_for_tool" for session in neighbours), "the neighbours were disturbed"
        for session in neighbours:
            await session.cancel()

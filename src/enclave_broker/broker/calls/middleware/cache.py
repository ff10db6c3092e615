"""Cache: results of `read` tools, kept for a while for whoever asks the same again.

Owns what counts as the same and how long and how much is kept. Results are kept as JSON text, so that every caller gets
a copy. In this process only, and never on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Literal

import msgspec

from enclave_broker.broker.calls.middleware.compose import CallNext
from enclave_broker.broker.calls.middleware.options import check_count
from enclave_broker.types.bounded_json import WireError, encode_json
from enclave_broker.types.calls import ToolCall
from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.limits import seconds

__all__ = ["ENTRY_BYTES", "Cache", "Kept"]

ENTRY_BYTES = 500
"""What an entry takes beside its text."""

_answering: ContextVar[frozenset[asyncio.Future[bytes | None]]] = ContextVar("answering", default=frozenset())
"""What this task, or a task that has made it, is asking for on behalf of others."""

_canonical = msgspec.json.Encoder(order="deterministic").encode


class Kept:
    """The results used last, by key, until they expire. Time is an argument."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()
        self.size = 0
        """Bytes that count against `max_bytes`."""

    def __iter__(self) -> Iterator[Hashable]:
        """The keys, the one used longest ago first."""
        return iter(self._entries)

    def get(self, key: Hashable, now: float) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, text = entry
        if now >= expires:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return text

    def put(self, key: Hashable, text: bytes, expires: float) -> None:
        self._drop(key)
        size = len(text) + ENTRY_BYTES
        if size > self.max_bytes:
            return
        while len(self._entries) >= self._max_entries or self.size + size > self.max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = expires, text
        self.size += size

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= len(entry[1]) + ENTRY_BYTES


class Cache:
    """Answers a call of effect `read` with an earlier result of the same tool for the same arguments; other calls pass.

    A result is at most `ttl` seconds old, counted from when its call began. With `key="principal"` it is only for the
    same tenant, subject and roles (all who are anonymous are one), with "everyone" for every caller of every tenant.
    Arguments are the same if their JSON is, in any order of names; 1, 1.0 and true differ, and so do a default that is
    written and one that isn't. A tool whose result depends on more than that (claims, metadata, the session) must not
    be cached. Tools are told apart by name alone: one object is for one broker, and a tool that takes the place of
    another under its name has the other's results until their time is over.

    Errors and what can't be JSON are not kept, nor is a result that alone is larger than `max_bytes`; beyond
    `max_entries` or `max_bytes` those not used for the longest time go. Of equal calls under way at once the first
    asks and the others get its result; if it fails they ask on their own, if it is cancelled the next one asks for all.
    A handler that makes the same call as it is itself answering asks on its own: it would wait for itself.
    A call that is answered here never starts a handler. Cancelling is safe.

    What it keeps is what the rest returned: inside Redact that is the full text.
    """

    def __init__(
        self,
        ttl: float | timedelta,
        key: Literal["principal", "everyone"] = "principal",
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 << 20,
    ) -> None:
        self._ttl = seconds(ttl, "Cache: ttl")
        if key not in {"principal", "everyone"}:
            raise ConfigurationError(f"Cache: key is 'principal' or 'everyone', not {key!r}")
        self._shared = key == "everyone"
        self._kept = Kept(
            check_count(max_entries, "Cache: max_entries"), check_count(max_bytes, "Cache: max_bytes", ENTRY_BYTES)
        )
        self._asked: dict[Hashable, asyncio.Future[bytes | None]] = {}

    def __repr__(self) -> str:
        return f"Cache({self._ttl:g}, key={'everyone' if self._shared else 'principal'!r})"

    async def __call__(self, call: ToolCall, call_next: CallNext) -> Any:
        if call.effect != "read" or (key := self.key(call)) is None:
            return await call_next(call)
        clock = asyncio.get_running_loop().time
        while (text := self._kept.get(key, clock())) is None:
            asked = self._asked.get(key)
            if asked is not None and asked in _answering.get():
                return await call_next(call)
            if asked is None:
                return await self._ask(key, call, call_next)
            await asyncio.wait((asked,))  # awaiting it would cancel it with the first who gives up
            if not asked.cancelled():
                text = asked.result()
                if text is None:
                    return await call_next(call)
                break
        return msgspec.json.decode(text)

    async def _ask(self, key: Hashable, call: ToolCall, call_next: CallNext) -> Any:
        """Ask for all who ask the same: they get the text, None if each is to ask for itself, or a cancelled future."""
        loop = asyncio.get_running_loop()
        asked = self._asked[key] = loop.create_future()
        expires = loop.time() + self._ttl
        text = None
        before = _answering.set(_answering.get() | {asked})
        try:
            value = await call_next(call)
            text = _text(value, self._kept.max_bytes)
            if text is not None:
                self._kept.put(key, text, expires)
        except Exception:
            asked.set_result(None)
            raise
        except BaseException:
            asked.cancel()
            raise
        else:
            asked.set_result(text)
            return value
        finally:
            _answering.reset(before)
            del self._asked[key]

    def key(self, call: ToolCall) -> Hashable | None:
        """What is the same for the same; None if the arguments are no JSON, which the innermost refuses."""
        try:
            args = hashlib.sha256(_canonical(call.args)).digest()
        except (TypeError, ValueError, RecursionError):
            return None
        if self._shared:
            return call.name, args
        principal = call.principal
        return call.name, args, principal.tenant, principal.subject, principal.roles


def _text(value: Any, max_bytes: int) -> bytes | None:
    try:
        return encode_json(value, max_bytes)
    except WireError:
        return None

"""API keys as `auth=`: who has which key, from a file that holds only their hashes.

What a line looks like and how a key is made is key_file.py's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import time
from collections.abc import Callable, Mapping

from starlette.requests import Request

from enclave_broker.broker.http.bearer import bearer_token
from enclave_broker.broker.http.key_file import MAX_FILE_BYTES, digest_of, read_keys
from enclave_broker.broker.http.watched_file import Refresh, WatchedFile
from enclave_broker.types.errors import AuthenticationError, ConfigurationError
from enclave_broker.types.principal import Principal

__all__ = ["ApiKeys"]

logger = logging.getLogger("enclave_broker.http")

_START = 8  # bytes of a hash by which it is looked up; the rest is compared in constant time


class ApiKeys:
    """`broker.http_app(auth=ApiKeys("keys.txt"))`: the principal of the key in `Authorization: Bearer …`.

    `enclave-broker keys create` adds a key. The first request of a second looks whether the file has changed: a line
    that has gone is a key that no longer holds. A file that is broken or gone changes nothing, and is logged once.
    Raises ConfigurationError that begins with file and line, such as "keys.txt:3: "; a call AuthenticationError.
    """

    def __init__(self, file: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = WatchedFile(file, max_bytes=MAX_FILE_BYTES, clock=clock)
        self._keys = self._read()
        self._refresh = Refresh(self._read_again)

    async def __call__(self, request: Request) -> Principal:
        digest = digest_of(bearer_token(request))
        if self._file.changed():
            await asyncio.shield(self._refresh.start())
        # As many keys as there are, one look: how long it takes depends on the hash of what was sent, which nobody can
        # bring close to another's.
        found = None if digest is None else self._keys.get(digest[:_START])
        if found is None or digest is None or not hmac.compare_digest(found[0], digest):
            raise AuthenticationError("the API key isn't known")
        return found[1]

    def _read(self) -> Mapping[bytes, tuple[bytes, Principal]]:
        keys = read_keys(self._file.read(), self._file.name)
        return {digest[:_START]: (digest, principal) for digest, principal in keys.items()}

    def _read_again(self) -> None:
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            logger.error("the API keys aren't loaded again, those before stay: %s", error.message)
        else:
            logger.info("%s is loaded again: %d API keys", self._file.name, len(self._keys))

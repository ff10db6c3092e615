"""The file of API keys: its lines, a new key, and how one is added.

A line is JSON; empty lines and those that begin with # say nothing:

{"subject": "ann", "tenant": "acme", "roles": ["admin"], "created": "2026-03-01", "sha256": "9f86d0…"}

A key is 32 random bytes, so that nobody finds it from its SHA-256 by trying: a slow hash, which protects what people
choose, would only make each request slow. A key that isn't of that form is never looked up.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from enclave_broker.types.errors import ConfigurationError
from enclave_broker.types.principal import Principal

__all__ = ["MAX_FILE_BYTES", "Key", "append_key", "digest_of", "new_key", "read_keys"]

MAX_FILE_BYTES = 16 << 20  # some 100,000 keys
_PREFIX = "eb_"  # by which a person, and what looks for leaked keys, knows one
_KEY_BYTES = 32
_KEY_CHARACTERS = len(_PREFIX) + 43  # 32 bytes in base64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_NAME_CHARACTERS = 256


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One line: whose key it is, and its hash. Raises ValueError for what can't name anybody."""

    subject: str
    tenant: str | None = None
    roles: tuple[str, ...] = ()
    created: str | None = None
    """The day, for people."""
    sha256: str

    def __post_init__(self) -> None:
        for what, name in (
            ("subject", self.subject),
            ("tenant", self.tenant),
            *(("role", role) for role in self.roles),
        ):
            if name is not None and not (name.strip() and name.isprintable() and len(name) <= _MAX_NAME_CHARACTERS):
                raise ValueError(f"a {what} is printable text of 1 to {_MAX_NAME_CHARACTERS} characters")
        if self.principal.is_anonymous:
            raise ValueError("the subject 'anonymous' is reserved for whoever isn't known")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 has 64 digits from 0 to 9 and a to f")

    @property
    def principal(self) -> Principal:
        return Principal(self.subject, tenant=self.tenant, roles=frozenset(self.roles))


def new_key() -> str:
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def digest_of(key: str) -> bytes | None:
    """The hash by which a key is known; None for what can't be one, whoever has written it into a file."""
    if len(key) != _KEY_CHARACTERS or not key.startswith(_PREFIX):
        return None
    return sha256(key.encode()).digest()


def read_keys(data: bytes, name: str) -> Mapping[bytes, Principal]:
    """Who has each key, by its hash. Raises ConfigurationError that begins with file and line."""
    found: dict[bytes, Principal] = {}
    lines: dict[bytes, int] = {}
    for number, key in _lines(data, name):
        digest = bytes.fromhex(key.sha256)
        if digest in found:
            raise ConfigurationError(f"{name}:{number}: the key of line {lines[digest]} again: it is one principal's")
        found[digest] = key.principal
        lines[digest] = number
    return found


def _lines(data: bytes, name: str) -> Iterator[tuple[int, Key]]:
    decoder = msgspec.json.Decoder(Key)
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            key = decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{name}:{number}: {error}") from None
        yield number, key


def append_key(path: str | os.PathLike[str], key: Key) -> None:
    """Add a line, in one write, so that two that add at once both do. A new file is its owner's alone.

    Raises ConfigurationError for a file that isn't one of keys, which is left as it is, or can't be written.
    """
    name, file = os.fspath(path), Path(path)
    line = msgspec.json.format(msgspec.json.encode(key), indent=0) + b"\n"
    try:
        if file.exists() and not stat.S_ISREG(file.stat().st_mode):
            raise ConfigurationError(f"{name}: it isn't a file")
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as opened:
            before = opened.read(MAX_FILE_BYTES) or b""
            read_keys(before, name)
            if before and not before.endswith(b"\n"):
                line = b"\n" + line
            if len(before) + len(line) > MAX_FILE_BYTES:
                raise ConfigurationError(f"{name}: it has at most {MAX_FILE_BYTES:,} bytes")
            if opened.write(line) != len(line):
                raise ConfigurationError(f"{name}: there is no room for a whole line; take out what stands of it")
            os.fsync(opened.fileno())
    except OSError as error:
        raise ConfigurationError(f"{name}: {error.strerror or error}") from None

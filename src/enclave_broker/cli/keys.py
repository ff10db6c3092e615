"""`enclave-broker keys create`: a new API key on stdout, once, and its hash in a file."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from enclave_broker.broker.http.key_file import Key, append_key, digest_of, new_key
from enclave_broker.cli.failure import OK, UsageError
from enclave_broker.cli.screen import Screen
from enclave_broker.cli.text import inline

__all__ = ["execute"]


def execute(arguments: argparse.Namespace, screen: Screen) -> int:
    """Raises UsageError, and ConfigurationError for a file that isn't one of keys; then there is no key."""
    key = new_key()
    digest = digest_of(key)
    assert digest is not None
    try:
        entry = Key(
            subject=arguments.subject,
            tenant=arguments.tenant,
            roles=tuple(dict.fromkeys(arguments.roles)),
            created=datetime.now(UTC).date().isoformat(),
            sha256=digest.hex(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    append_key(arguments.file, entry)
    screen.result(key + "\n")
    screen.note(f"{inline(arguments.file)} has its hash; the key itself stands nowhere else: keep it now")
    return OK

"""Which versions are at work, read from the installed packages' metadata; imports none of them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["own_version", "version_of"]


def own_version() -> str:
    return version_of("enclave-broker")


def version_of(package: str) -> str:
    """Of an installed package. A source tree that is only on the path has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"

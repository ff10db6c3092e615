"""Every attempt to get out of the sandbox: it fires where there are no walls, and comes to nothing here."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

import enclave_broker
from tests.security.attacks import ATTEMPTS, HERE, Attempt, Secrets, evidence, unwalled
from tests.security.host import Host

CLASSES = {
    "constructors",
    "generated code",
    "getters",
    "intrinsics",
    "odd results",
    "proxies",
    "thenables",
    "to json",
}
"""Those of which containment is promised; the others are more."""

attempts = pytest.mark.parametrize("attempt", ATTEMPTS, ids=[f"{each.kind} - {each.title}" for each in ATTEMPTS])
in_one_loop = pytest.mark.asyncio(loop_scope="module")


def test_each_class_has_ten_attempts_and_no_two_are_alike() -> None:
    counts = Counter(attempt.kind for attempt in ATTEMPTS)
    assert counts.keys() >= CLASSES
    assert {kind for kind, count in counts.items() if count < 10} == set()
    assert len({attempt.code for attempt in ATTEMPTS}) == len({attempt[:2] for attempt in ATTEMPTS}) == len(ATTEMPTS)


@attempts
def test_it_fires_without_walls(attempt: Attempt, secret: Secrets, file: Path) -> None:
    told = unwalled(attempt, secret, file)
    assert evidence(told, [*secret, str(HERE)]), told


@in_one_loop
async def test_what_does_leak_here_is_seen(host: Host) -> None:
    """The one wall that can be taken away: the allow-list."""
    told = await host.attempt(Attempt("control", "told", "return callTool('vault:open', {})"), allowed=["vault:*"])
    assert evidence(told, host.secret) == [host.secret.seal, "ledger: vault opened"]
    assert evidence(await host.attempt(Attempt("control", "boast", "return 'won: it'")), host.secret) == ["won: it"]


@in_one_loop
@attempts
async def test_it_comes_to_nothing(attempt: Attempt, host: Host) -> None:
    processes = host.pool.pids
    told = await host.attempt(attempt)
    package = Path(enclave_broker.__file__).parent
    assert evidence(told, [*host.secret, str(package), str(HERE), sys.prefix]) == [], told
    after, _ = await host.run("1 + 1")
    assert (after.value, host.pool.pids) == (2, processes)

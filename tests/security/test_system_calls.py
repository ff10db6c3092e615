"""What a real worker asks of the kernel once the filter stands: strace sees that an honest load never ends it."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pytest

from enclave_broker.runtime.hardening import seccomp
from tests.security.programs import command, output_of
from tests.security.worker_load import EXPECTED

CALL = re.compile(r"^(?P<task>\d+) +(?:<\.\.\. )?(?P<name>\w+)(?:\(| resumed>)", re.MULTILINE)
FILTERED = re.compile(r"SECCOMP_SET_MODE_FILTER.*\) = 0|seccomp resumed>.*= 0")
RULED = frozenset(seccomp._rules(3, [4], 5))  # pyright: ignore[reportPrivateUsage] the list is what is tested
ALLOWED = frozenset(seccomp._ALLOWED)  # pyright: ignore[reportPrivateUsage]
DEADLY = frozenset(seccomp._DEADLY)  # pyright: ignore[reportPrivateUsage]
SELF_CHECK = {"getppid"}
"""What enter() asks for, to see that it is refused."""


class Trace(NamedTuple):
    said: dict[str, Any]
    before: list[str]
    """Of the worker's threads, up to the filter."""
    lines: list[str]
    """From there on."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    written = tmp_path_factory.mktemp("strace") / "trace"
    said = json.loads(output_of(["strace", "-f", "-qq", "-o", str(written), *command("worker_load")]))
    threads = {str(thread) for thread in said["threads"]}
    lines = [line for line in written.read_text(errors="replace").splitlines() if line.split(" ", 1)[0] in threads]
    installed = next(at for at, line in enumerate(lines) if FILTERED.search(line))
    return Trace(said, lines[: installed + 1], lines[installed + 1 :])


def names(lines: list[str]) -> set[str]:
    return {match["name"] for line in lines if (match := CALL.match(line))}


def test_the_load_comes_to_what_it_should_in_one_process(trace: Trace) -> None:
    again = sum(range(50))
    assert trace.said["came_to"] == {**EXPECTED, "again": again}
    assert len(set(trace.said["pids"])) == 1
    assert len(trace.said["threads"]) == 3


def test_no_honest_call_is_deadly(trace: Trace) -> None:
    assert [line for line in trace.lines if "SIGSYS" in line] == []
    assert names(trace.before) >= {"openat", "clone3", "seccomp"} or names(trace.before) >= {
        "openat",
        "clone",
        "seccomp",
    }
    assert names(trace.lines) & DEADLY == set()


def test_what_a_worker_asks_for_is_on_the_allow_list(trace: Trace) -> None:
    asked = names(trace.lines)
    assert asked >= {"recvfrom", "sendto", "mmap", "mprotect", "futex"}, "the trace shows little"
    assert asked - SELF_CHECK <= ALLOWED | RULED


def test_nothing_but_the_self_check_is_refused(trace: Trace) -> None:
    refused = [line for line in trace.lines if re.search(r"= -1 (?:EPERM|ENOSYS|EACCES|EMFILE)", line)]
    assert names(refused) <= SELF_CHECK, refused

"""The walls around a real worker, seen from outside while it runs scripts; a broker that doesn't start without."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from enclave_broker.runtime.hardening import Report, missing
from enclave_broker.runtime.hardening.landlock import abi
from enclave_broker.runtime.pool import ProcessPool
from tests.runtime.support import fulfilled, start, value_of
from tests.security.programs import command, output_of

AS_ROOT = os.geteuid() == 0
OTHER_USERS = AS_ROOT and int(Path("/proc/self/uid_map").read_text().split()[2]) > 60_000
"""Whether there is another user to become: the root of a user namespace may be alone in it."""


class Worker(NamedTuple):
    pid: int
    report: Report
    pool: ProcessPool

    def look(self, name: str) -> Path:
        return Path(f"/proc/{self.pid}/{name}")

    def has(self, wall: str) -> bool:
        return next(each.ok for each in self.report.walls if each.name == wall)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    """A worker with three scripts in it: one that waits for a call, one that waits for time, one that computes."""
    pool = ProcessPool(workers=1, max_workers=1)
    await pool.start()
    waiting = [start(pool, code)[1] for code in ("await callTool('w', {})", "await sleep(60000)")]
    for heard in waiting:
        await heard.heard(1)
    start(pool, "for (;;) {}")
    assert await value_of(pool, "1 + 1") == 2
    (process,) = pool.workers
    assert process.hello is not None
    yield Worker(process.pid, msgspec.json.decode(process.hello.walls, type=Report), pool)
    assert pool.pids == [process.pid]
    await pool.aclose()


def status(worker: Worker) -> dict[str, str]:
    lines = worker.look("status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def hidden(look: Callable[[], Any]) -> bool:
    """Whether who isn't root is refused to look: what can't be dumped belongs to root."""
    try:
        look()
    except PermissionError:
        return True
    return False


def descriptors(worker: Worker) -> dict[int, str]:
    return {int(entry.name): str(entry.readlink()) for entry in worker.look("fd").iterdir()}


async def test_no_required_wall_is_missing_within_or_seen_from_outside(worker: Worker) -> None:
    assert worker.report.missing_required == []
    assert missing(worker.pid, 3) == []


async def test_every_thread_stands_behind_the_filter_without_privileges(worker: Worker) -> None:
    tasks = list(worker.look("task").iterdir())
    assert len(tasks) == 3
    for task in tasks:
        of = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert (of["Seccomp"], of["NoNewPrivs"]) == ("2", "1")
        assert {int(of[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


async def test_nothing_is_in_its_environment(worker: Worker) -> None:
    look = worker.look("environ").read_bytes
    assert look() == b"" if AS_ROOT else hidden(look)


async def test_its_descriptors_are_channel_image_and_stderr(worker: Worker) -> None:
    if not AS_ROOT:
        assert hidden(lambda: descriptors(worker))
        return
    found = descriptors(worker)
    sockets = [fd for fd, target in found.items() if target.startswith("socket:")]
    images = {target for target in found.values() if target.startswith("/")}
    assert len(sockets) == 1
    assert len(images) == 1
    assert set(found.values()) - images - {found[sockets[0]]} == {found[2]}
    assert found[2].startswith("pipe:")
    assert [fd for fd in found if found[fd] in images and opened_for(worker, fd) != os.O_RDONLY] == []


def opened_for(worker: Worker, fd: int) -> int:
    """O_RDONLY, O_WRONLY or O_RDWR."""
    lines = worker.look(f"fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1], 8) for line in lines if line.startswith("flags:")) & os.O_ACCMODE


async def test_no_page_is_writable_and_executable(worker: Worker) -> None:
    look = worker.look("maps").read_text
    if not AS_ROOT:
        assert hidden(look)
        return
    maps = look().splitlines()
    assert len(maps) > 50
    assert writable_and_executable(maps) == []


def writable_and_executable(maps: list[str]) -> list[str]:
    return [line for line in maps if {"w", "x"} <= set(line.split()[1])]


def test_a_page_that_is_writable_and_executable_would_be_seen() -> None:
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
        assert writable_and_executable(Path("/proc/self/maps").read_text().splitlines()) != []


async def test_root_leaves_itself_for_a_user_of_the_workers_own(worker: Worker) -> None:
    users = set(status(worker)["Uid"].split())
    if OTHER_USERS:
        assert users.isdisjoint({"0"})
        assert set(status(worker)["Gid"].split()) == users
        assert status(worker)["Groups"] == ""
    else:
        assert users == {str(os.getuid())}


async def test_its_root_is_empty_and_its_network_has_nothing_but_itself(worker: Worker) -> None:
    if not AS_ROOT:
        assert hidden(lambda: list(worker.look("root").iterdir()))
        return
    assert list(worker.look("root").iterdir()) == [] or not worker.has("empty root")
    devices = [line.split(":")[0].strip() for line in worker.look("net/dev").read_text().splitlines() if ":" in line]
    assert devices == ["lo"] or not worker.has("namespaces")


async def test_it_is_the_first_to_go_and_writes_neither_core_nor_file(worker: Worker) -> None:
    assert worker.look("oom_score_adj").read_text().strip() == "1000"
    limits = {line[:26].strip(): line[26:].split()[:2] for line in worker.look("limits").read_text().splitlines()[1:]}
    assert limits["Max core file size"] == limits["Max file size"] == ["0", "0"]
    assert os.getsid(worker.pid) == worker.pid


async def test_no_descriptor_can_be_had_beyond_those_that_are_open(worker: Worker) -> None:
    limits = {line[:26].strip(): line[26:].split()[:2] for line in worker.look("limits").read_text().splitlines()[1:]}
    if not AS_ROOT:
        assert int(limits["Max open files"][1]) < 20
        return
    highest = max(descriptors(worker))
    assert limits["Max open files"] == [str(highest + 1)] * 2


async def test_the_walls_stand_as_they_did_after_a_load(worker: Worker) -> None:
    def all_seen() -> list[Any]:
        of = status(worker)
        own = [of[name] for name in ("Uid", "Gid", "CapEff", "Seccomp", "NoNewPrivs", "Threads")]
        return [*own, missing(worker.pid, 3), descriptors(worker) if AS_ROOT else None]

    before = all_seen()
    for number in range(100):
        run, heard = start(worker.pool, "return await callTool('w', {}) + 1")
        await heard.heard(1)
        run.deliver(fulfilled(1, number))
        await heard.over()
        assert heard.value == number + 1
    bomb = start(worker.pool, "const held = []; for (;;) held.push(new Array(1e5).fill(1))")[1]
    await bomb.over()
    assert bomb.verdict.name == "MEMORY_LIMIT"
    assert all_seen() == before


def started(forbidden: str, *, weak: bool = False) -> list[str]:
    """How a broker starts in a container whose filter refuses these system calls."""
    return json.loads(output_of(command("contained", forbidden, "weak" if weak else "strict")))


REQUIRED = {"seccomp": "seccomp", "capset": "capabilities"} | ({"landlock_restrict_self": "landlock"} if abi() else {})
"""A system call that a wall needs, and the wall."""


@pytest.mark.parametrize("refused", REQUIRED)
def test_a_broker_does_not_start_without_a_required_wall(refused: str) -> None:
    assert started(refused)[0] != "started"


@pytest.mark.parametrize("refused", REQUIRED)
def test_it_says_which_wall_is_missing_and_what_can_be_done(refused: str) -> None:
    kind, message = started(refused)
    assert kind == "ConfigurationError"
    assert REQUIRED[refused] in message
    assert "doctor" in message
    assert "weak_sandbox=True" in message


@pytest.mark.parametrize("refused", REQUIRED)
def test_a_weak_sandbox_starts_without_it(refused: str) -> None:
    assert started(refused, weak=True) == ["started", "2"]


@pytest.mark.parametrize(
    "refused", ["", "reboot", "unshare mount chroot", "setresuid setresgid", "landlock_create_ruleset"]
)
def test_a_broker_starts_where_only_what_it_can_do_without_is_missing(refused: str) -> None:
    assert started(refused) == ["started", "2"]

"""Entering the walls: what the report says, what is seen from outside, and what happens where a wall can't be built."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from enclave_broker.runtime.hardening import Report, Wall, missing
from enclave_broker.runtime.hardening.inspect import inspect_walls
from enclave_broker.runtime.hardening.landlock import abi
from tests.runtime.hardening.child import program
from tests.runtime.hardening.entered import Said, Told

ROOT = os.geteuid() == 0
OTHER_USERS = ROOT and int(Path("/proc/self/uid_map").read_text().split()[2]) > 60_000
"""Whether there is another user to become: the root of a user namespace may be alone in it."""


@contextmanager
def entered(told: Told) -> Generator[tuple[int, Said | None]]:
    """A child that does as it is told: its pid, and what it said, None when it ended without a word."""
    ours, theirs = socket.socketpair()
    image = os.open(sys.executable, os.O_RDONLY)
    with ours, theirs:
        kept = (theirs.fileno(), image)
        words = (msgspec.json.encode(told).decode(), *map(str, kept))
        child = subprocess.Popen(program("entered", *words), pass_fds=kept, env={}, stderr=subprocess.PIPE)
        theirs.close()
        os.close(image)
        ours.settimeout(50)
        try:
            text = ours.recv(1 << 16)
            yield child.pid, msgspec.json.decode(text, type=Said) if text else None
            ours.close()
            assert child.wait(50) == 0
        finally:
            child.kill()
            child.communicate()


def said_by(told: Told) -> Said:
    with entered(told) as (_, said):
        assert said is not None
        return said


def walls_of(told: Told) -> dict[str, Wall]:
    report = said_by(told).report
    assert report is not None
    return {wall.name: wall for wall in report.walls}


def test_nothing_required_is_missing_within_or_seen_from_outside() -> None:
    with entered(Told()) as (pid, said):
        assert said is not None
        assert said.report is not None
        assert said.report.missing_required == []
        assert missing(pid, 3) == []


def test_a_thread_from_before_the_filter_stands_behind_it() -> None:
    said = said_by(Told())
    assert (said.started, said.parents_id) == (2, -1)


def test_a_bare_process_is_seen_to_lack_all() -> None:
    with entered(Told(bare=True)) as (pid, _):
        # What belongs to root does so dumpable or not.
        of_the_user = "capabilities" if ROOT else "dumpable"
        assert set(missing(pid, 2)) == {of_the_user, "no_new_privs", "seccomp", "threads"}
        assert "threads" not in missing(pid, 3)


def test_a_thread_too_many_is_seen() -> None:
    with entered(Told()) as (pid, _):
        assert missing(pid, 2) == ["threads"]


def test_a_process_that_is_gone_is_an_error() -> None:
    with entered(Told()) as (pid, _):
        pass
    with pytest.raises(OSError, match=str(pid)):
        missing(pid, 3)


def test_a_filter_that_the_parent_has_too_is_no_wall() -> None:
    assert "seccomp" in said_by(Told(forbidden=["reboot"], look_at_child=True)).missing


def test_threads_from_before_are_refused() -> None:
    assert "only thread" in said_by(Told(threads_before=1)).raised
    assert "only thread" in said_by(Told(threads_before=1, weak=True)).raised


def test_a_child_whose_parent_has_gone_ends_without_a_word() -> None:
    with entered(Told(parent=os.getppid())) as (_, said):
        assert said is None


def test_a_required_wall_that_cannot_be_built_raises_with_all_reasons() -> None:
    said = said_by(Told(forbidden=["seccomp"]))
    assert said.raised == "missing: seccomp, seccomp: EPERM (required)"
    assert said.report is not None
    assert said.report.missing_required == ["seccomp"]


def test_a_weak_sandbox_reports_what_is_missing_and_goes_on() -> None:
    said = said_by(Told(forbidden=["seccomp"], weak=True))
    assert said.raised == ""
    assert said.report is not None
    assert said.report.missing_required == ["seccomp"]
    assert said.started == 2


def test_without_a_required_wall_of_before_the_threads_none_is_started() -> None:
    said = said_by(Told(forbidden=["capset"]))
    assert said.raised == "missing: capabilities, capset: EPERM (required)"
    assert said.started == 0


def test_landlock_is_required_only_where_the_kernel_has_it() -> None:
    assert walls_of(Told())["landlock"].required == (abi() > 0)
    without = walls_of(Told(forbidden=["landlock_create_ruleset"]))["landlock"]
    assert (without.ok, without.required) == (False, False)
    assert without.line == "missing: landlock, needs Linux 5.13 with landlock among its security modules"


def test_landlock_that_fails_where_the_kernel_has_it_is_missed() -> None:
    raised = said_by(Told(forbidden=["landlock_restrict_self"])).raised
    assert raised.startswith("missing: landlock, landlock_restrict_self: EPERM" if abi() else "")


def test_without_namespaces_root_has_a_removed_directory_for_its_root() -> None:
    walls = walls_of(Told(forbidden=["unshare"]))
    assert walls["namespaces"].line == "missing: namespaces, unshare: EPERM"
    expected = "empty root: chroot only (unshare: EPERM)" if ROOT else "missing: empty root, unshare: EPERM"
    assert walls["empty root"].line == expected


def test_without_mounts_the_reason_names_them() -> None:
    walls = walls_of(Told(forbidden=["mount", "chroot"]))
    if walls["namespaces"].ok:
        assert walls["empty root"].line == "missing: empty root, mount: EPERM"


def test_root_becomes_a_user_that_nothing_else_uses() -> None:
    with entered(Told()) as (pid, said):
        assert said is not None
        assert said.report is not None
        uid = next(wall for wall in said.report.walls if wall.name == "uid")
        if OTHER_USERS:
            assert uid.line in {f"uid {0x70000000 + pid}", f"uid {60578 + pid % 606}"}
        else:
            assert uid.line.startswith("missing: uid, shared with the broker")


def test_root_becomes_the_user_that_it_is_told() -> None:
    line = walls_of(Told(uid=54321))["uid"].line
    assert line.startswith("uid 54321" if OTHER_USERS else "missing: uid, shared with the broker")


def test_a_user_that_cannot_be_become_is_no_required_wall() -> None:
    uid = walls_of(Told(forbidden=["setresuid"]))["uid"]
    assert (uid.ok, uid.required) == (False, False)


def test_off_linux_the_threads_are_started_and_all_walls_reported_missing() -> None:
    said = said_by(Told(platform="darwin"))
    assert said.started == 2
    assert said.report is not None
    assert {wall.line for wall in said.report.walls if wall.ok} == set()
    assert said.report.missing_required == []
    assert "missing: seccomp, needs Linux" in said.report.lines


def test_the_doctor_sees_what_a_worker_would_have() -> None:
    report = inspect_walls()
    assert report.missing_required == []
    assert report.lines[0].startswith("seccomp ok (")
    assert [wall.name for wall in report.walls] == list(walls_of(Told()))


def test_entering_imports_nothing_of_the_broker() -> None:
    code = "import sys, enclave_broker.runtime.hardening; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True).stdout.decode().split()
    assert {"pydantic", "starlette", "asyncio", "anyio", "wasmtime", "enclave_broker.broker"}.isdisjoint(loaded)


def test_the_only_descriptors_left_are_three() -> None:
    code = (
        "import os, sys; from enclave_broker.runtime.hardening.privileges import close_descriptors\n"
        "known = {(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in (2, 5, 9)}\n"
        "close_descriptors({2, 5, 9})\n"
        "left = set()\n"
        "for fd in range(200):\n"
        "    try: left.add((os.fstat(fd).st_dev, os.fstat(fd).st_ino))\n"
        "    except OSError: assert fd > 9\n"
        "    else: assert fd < 10\n"
        "sys.exit(left != known)"
    )
    opened = 'import os\nfor fd in range(3, 60):\n    os.dup2(os.open("/", 0), fd)\nos.dup2(os.pipe()[1], 5)\n'
    assert subprocess.run([sys.executable, "-I", "-c", opened + code], check=False).returncode == 0


def test_a_report_crosses_the_wire() -> None:
    report = inspect_walls()
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report

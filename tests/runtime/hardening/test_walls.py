"""Ways out of a worker, tried for real: bare, behind all walls, and behind each wall alone."""

from __future__ import annotations

import os

import pytest

from tests.runtime.hardening.child import outcome
from tests.runtime.hardening.probes import PROBES, Probe

ALONE = [
    pytest.param(probe, where, expected, id=f"{probe.name} - {where}")
    for probe in PROBES
    for where, expected in probe.alone.items()
]

probes = pytest.mark.parametrize("probe", PROBES, ids=[probe.name for probe in PROBES])


@probes
def test_a_probe_succeeds_bare_or_says_why_it_is_weak_evidence(probe: Probe) -> None:
    excused = probe.weak or (probe.root and os.geteuid() != 0)
    assert outcome("bare")["ended"][probe.name] == "ok" or excused


@probes
def test_a_probe_is_refused_behind_all_walls(probe: Probe) -> None:
    assert outcome("all")["built"], outcome("all")["detail"]
    assert outcome("all")["ended"][probe.name] == probe.within


@probes
def test_a_probe_is_refused_by_the_filter_alone(probe: Probe) -> None:
    assert outcome("seccomp")["built"], outcome("seccomp")["detail"]
    assert outcome("seccomp")["ended"][probe.name] == probe.within


@pytest.mark.parametrize(("probe", "where", "expected"), ALONE)
def test_a_probe_is_refused_by_another_wall_alone(probe: Probe, where: str, expected: str) -> None:
    wall, _, part = where.partition(" ")
    behind = outcome(wall)
    if not behind["built"]:
        # Best effort: this machine doesn't have the wall, and says why.
        assert set(behind["ended"].values()) == {"unbuilt"}
        assert behind["detail"]
    elif part in behind["detail"] and outcome("bare")["ended"][probe.name] == "ok":
        assert behind["ended"][probe.name] == expected


def test_names_are_unique() -> None:
    assert len({probe.name for probe in PROBES}) == len(PROBES) > 100

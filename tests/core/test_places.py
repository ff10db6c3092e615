"""A place that an instance leaves is as new for the next one, also where its memory is kept."""

from __future__ import annotations

from ctypes import string_at

from enclave_broker.core.javascript import Engine, Instance
from tests.core.support import run, start_body

MARK = b"left-behind-by-another"
FILL = f"const all = []; for (let n = 0; n < 20000; n++) all.push('{MARK.decode()}' + n); await callTool('wait')"


def memory_of(instance: Instance) -> bytes:
    return string_at(instance._base, instance.memory_bytes())  # pyright: ignore[reportPrivateUsage] looked at from inside


def fresh_memory(engine: Engine) -> bytes:
    """All that an instance has at its start."""
    instance = engine.instantiate(64 << 20)
    try:
        return memory_of(instance)
    finally:
        instance.close()


def test_no_byte_of_a_script_is_left_for_the_next_one(engine: Engine) -> None:
    fresh = fresh_memory(engine)
    for _ in range(3):
        instance = engine.instantiate(64 << 20)
        instance.start(start_body(FILL, {}))
        assert MARK in memory_of(instance)
        instance.close()
        assert fresh_memory(engine) == fresh


def test_more_scripts_than_warm_places_come_out_alike(engine: Engine) -> None:
    held = [engine.instantiate(64 << 20) for _ in range(40)]
    steps = [instance.start(start_body("return [1, 2].map((n) => n * 3)", {})) for instance in held]
    for instance in held:
        instance.close()
    assert len({step.effects for step in steps if step is not None}) == 1
    assert run(engine, "return 1").ended

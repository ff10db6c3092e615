from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from enclave_broker.core.compile import MODULE, compile_module
from enclave_broker.core.javascript import Engine, Step, WasmtimeError
from enclave_broker.types.messages import Verdict, encode_inputs
from tests.core.support import Limits, Script, fulfilled, run, start_body, value_of

NO_LIMITS: Limits = {}
ENDLESS = start_body("console.log('begun'); for (;;) { }", NO_LIMITS)


def test_an_unfinished_step_says_so_and_goes_on_in_another_thread(engine: Engine) -> None:
    instance = engine.instantiate(64 << 20)
    step = instance.start(start_body("let n = 0; for (let i = 0; i < 3e6; i++) n += i; return n", NO_LIMITS))
    assert step is None
    steps: list[Step] = []

    def go_on() -> None:
        step = None
        while step is None:
            step = instance.resume()
        steps.append(step)

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join()
    assert steps == [Step(b"[[5,4499998500000]]", ended=True, verdict=0)]
    instance.close()


def test_stopping_an_endless_step_keeps_its_output_and_closes(engine: Engine) -> None:
    instance = engine.instantiate(64 << 20)
    assert instance.start(ENDLESS) is None
    assert instance.resume() is None
    assert instance.stop(Verdict.CPU_LIMIT) == Step(b'[[2,0,"begun"]]', ended=True, verdict=Verdict.CPU_LIMIT)
    with pytest.raises(WasmtimeError, match="closed"):
        instance.deliver(b"")


def test_a_step_that_did_nothing_yet_is_stopped_with_no_effects(engine: Engine) -> None:
    instance = engine.instantiate(64 << 20)
    assert instance.start(start_body("for (;;) { }", NO_LIMITS)) is None
    assert instance.stop(Verdict.CPU_LIMIT).effects == b"[]"


def test_a_step_that_is_stopped_before_its_first_instruction_repeats_nothing(engine: Engine) -> None:
    instance = engine.instantiate(64 << 20)
    instance.start(start_body("console.log('first'); await callTool('t')", NO_LIMITS))
    instance.slice_ticks = 0
    assert instance.deliver(encode_inputs([fulfilled(1)])) is None
    assert instance.stop(Verdict.CPU_LIMIT) == Step(b"[]", ended=True, verdict=Verdict.CPU_LIMIT)


def test_closing_twice_or_in_the_middle_of_a_step_is_harmless(engine: Engine) -> None:
    instance = engine.instantiate(64 << 20)
    instance.start(ENDLESS)
    instance.close()
    instance.close()
    for use in (instance.resume, lambda: instance.deliver(b""), lambda: instance.stop(1)):
        with pytest.raises(WasmtimeError):
            use()


def test_nothing_is_delivered_while_a_step_is_under_way(engine: Engine) -> None:
    instance = engine.instantiate(64 << 20)
    instance.start(ENDLESS)
    with pytest.raises(WasmtimeError, match="under way"):
        instance.deliver(encode_inputs([fulfilled(1)]))
    instance.close()


def test_instances_are_many_and_keep_to_themselves(engine: Engine) -> None:
    scripts = [Script(engine, f"globalThis.n = {n}; return [n, await callTool('t')]") for n in range(50)]
    for n, script in enumerate(scripts):
        script.deliver(fulfilled(1, n * 2))
    assert [script.value for script in scripts] == [[n, n * 2] for n in range(50)]


def test_a_place_is_free_again_after_a_script_has_ended_however(engine: Engine) -> None:
    codes = [
        "return 1",
        "throw 1",
        "1 +",
        "for (const a = []; ;) a.push(new Array(1e5))",
        "console.log('x'.repeat(1e6))",
    ]
    for _ in range(25):
        for code in codes:
            run(engine, code, max_memory_bytes=8 << 20)


def test_more_instances_than_there_are_places_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(compile_module(MODULE.read_bytes()))
    small = Engine(path, max_instances=2)
    held = [small.instantiate(64 << 20) for _ in range(2)]
    with pytest.raises(WasmtimeError):
        small.instantiate(64 << 20)
    held[0].close()
    small.instantiate(64 << 20).close()
    held[1].close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\0asm\1\0\0\0"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(WasmtimeError):
        Engine(path)


@pytest.mark.parametrize(
    "body", [b"", b"\1\0\0\0", b"\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff{}", bytes(19), bytes(400)]
)
def test_a_malformed_delivery_changes_nothing(engine: Engine, body: bytes) -> None:
    instance = engine.instantiate(64 << 20)
    instance.start(start_body("return await callTool('t')", NO_LIMITS))
    assert instance.deliver(body) == Step(b"[]", ended=False, verdict=0)
    assert instance.deliver(encode_inputs([fulfilled(1, 2)])) == Step(b"[[5,2]]", ended=True, verdict=0)
    instance.close()


def test_a_fault_of_the_engine_is_told_from_the_script_s_limits(engine: Engine) -> None:
    instance = engine.instantiate(64 << 20)
    assert instance.start(b"too short") == Step(b"[]", ended=True, verdict=Verdict.ENGINE_FAULT)
    instance = engine.instantiate(64 << 20)
    instance.start(start_body("return 1", NO_LIMITS))
    again = instance.start(start_body("return 1", NO_LIMITS))
    assert again is not None
    assert again.verdict == Verdict.ENGINE_FAULT


def test_the_heap_keeps_what_is_put_in_it(engine: Engine) -> None:
    code = """
        const held = new Map(); let checked = 0;
        const isWhole = (bytes) => bytes.indexOf(bytes[0] + 1) < 0 && bytes.lastIndexOf(bytes[0]) === bytes.length - 1;
        for (let i = 0; i < 20000; i++) {
            const slot = Math.floor(Math.random() * 300), size = Math.floor(2 ** (Math.random() * 14));
            const old = held.get(slot);
            if (old && !isWhole(old)) throw new Error("damaged");
            checked += old ? 1 : 0;
            held.set(slot, new Uint8Array(size).fill(i % 251));
        }
        return checked > 15000"""
    assert value_of(engine, code, max_memory_bytes=16 << 20) is True


def test_memory_that_was_freed_is_used_again(engine: Engine) -> None:
    code = (
        "for (let i = 0; i < 500; i++) { new Uint8Array(1 + i * 9973).fill(1); [...'x'.repeat(i * 50)] } return 'fits'"
    )
    assert value_of(engine, code, max_memory_bytes=16 << 20) == "fits"


def test_most_of_the_memory_is_the_script_s(engine: Engine) -> None:
    code = "const all = []; for (let i = 0; i < 55; i++) all.push(new Uint8Array(1 << 20).fill(1)); return all.length"
    assert value_of(engine, code, max_memory_bytes=64 << 20) == 55


def test_a_waiting_instance_holds_little_memory(engine: Engine) -> None:
    def dirty_kib() -> int:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))

    if not os.path.exists("/proc/self/smaps_rollup"):  # noqa: PTH110 - a file of the kernel
        return  # only Linux says
    count = 40
    before = dirty_kib()
    scripts = [Script(engine, "await callTool('t', { x: 1 })") for _ in range(count)]
    assert (dirty_kib() - before) / count < 200
    for script in scripts:
        script.close()

"""Runs the module's `init` once and writes its memory back into the module, so that no instance has to run it again.

Pure Python over the binary format, for exactly the module that our compiler makes (one memory, one mutable global);
whatever else it meets is an error. Called by build.py only.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator

import wasmtime

__all__ = ["bake", "data_section", "read_unsigned", "signed", "unsigned"]

_CUSTOM, _MEMORY, _GLOBAL, _EXPORT, _START, _DATA, _DATA_COUNT = 0, 5, 6, 7, 8, 11, 12
_DROPPED_EXPORTS = (b"_initialize", b"init", b"__heap_base", b"__stack_pointer")
_PAGE = 65536
_GAP = 64
"""Runs of zeros up to this many bytes stay inside a data segment: a segment of its own costs about as much."""


def bake(module: bytes, prelude: bytes) -> bytes:
    """The module with its memory as `init` leaves it after it has run `prelude`: scripts, with a NUL between them."""
    memory, stack_pointer = _initialise(module, prelude)
    out = bytearray(module[:8])
    for kind, body in _sections(module):
        if kind in (_CUSTOM, _START, _DATA_COUNT):
            continue
        if kind == _MEMORY:
            body = _memory_section(body, len(memory) // _PAGE)
        elif kind == _GLOBAL:
            body = _global_section(body, stack_pointer)
        elif kind == _EXPORT:
            body = _export_section(body)
        elif kind == _DATA:
            body = data_section(memory)
        out += bytes([kind]) + unsigned(len(body)) + body
    return bytes(out)


def _initialise(module: bytes, prelude: bytes) -> tuple[bytes, int]:
    """The memory after `init`, and the stack pointer, below which the memory is the used-up stack: made zero."""
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    linker = wasmtime.Linker(engine)
    compiled = wasmtime.Module(engine, module)
    linker.define_unknown_imports_as_traps(compiled)
    exports = linker.instantiate(store, compiled).exports(store)

    def call(name: str, *arguments: int) -> int:
        function = exports[name]
        assert isinstance(function, wasmtime.Func)
        return function(store, *arguments) or 0

    memory, stack_pointer = exports["memory"], exports["__stack_pointer"]
    assert isinstance(memory, wasmtime.Memory)
    assert isinstance(stack_pointer, wasmtime.Global)
    call("_initialize")
    memory.write(store, prelude + b"\0", call("in_address", len(prelude)))
    if status := call("init", len(prelude)):
        raise RuntimeError(f"the prelude failed at init (line {status})")
    size = memory.data_len(store)
    base = ctypes.addressof(memory.data_ptr(store).contents)
    content = bytearray(ctypes.string_at(base, size))
    top: int = stack_pointer.value(store)
    bottom = call("stack_bottom")
    content[bottom:top] = bytes(top - bottom)
    return bytes(content), top


def _sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    if module[:8] != b"\0asm\1\0\0\0":
        raise ValueError("not a WebAssembly module")
    offset = 8
    while offset < len(module):
        length, start = read_unsigned(module, offset + 1)
        yield module[offset], module[start : start + length]
        offset = start + length


def _memory_section(body: bytes, pages: int) -> bytes:
    count, offset = read_unsigned(body, 0)
    if count != 1 or body[offset] != 1:
        raise ValueError("not exactly one memory with a maximum")
    _, offset = read_unsigned(body, offset + 1)
    maximum, _ = read_unsigned(body, offset)
    return b"\1\1" + unsigned(pages) + unsigned(maximum)


def _global_section(body: bytes, stack_pointer: int) -> bytes:
    count, offset = read_unsigned(body, 0)
    out, mutable = unsigned(count), 0
    for _ in range(count):
        end = _constant_end(body, offset + 2)
        if body[offset + 1]:
            mutable += 1
            out += body[offset : offset + 2] + b"\x41" + signed(stack_pointer) + b"\x0b"
        else:
            out += body[offset:end]
        offset = end
    if mutable != 1:
        raise ValueError("not exactly one mutable global")
    return out


def _export_section(body: bytes) -> bytes:
    count, offset = read_unsigned(body, 0)
    kept: list[bytes] = []
    for _ in range(count):
        length, start = read_unsigned(body, offset)
        _, end = read_unsigned(body, start + length + 1)
        if body[start : start + length] not in _DROPPED_EXPORTS:
            kept.append(body[offset:end])
        offset = end
    return unsigned(len(kept)) + b"".join(kept)


def data_section(memory: bytes) -> bytes:
    runs = re.finditer(rb"[^\0](?:[^\0]|\0{1,%d}(?=[^\0]))*" % _GAP, memory)
    segments = [
        b"\0\x41" + signed(run.start()) + b"\x0b" + unsigned(run.end() - run.start()) + run.group() for run in runs
    ]
    return unsigned(len(segments)) + b"".join(segments)


def _constant_end(body: bytes, offset: int) -> int:
    if body[offset] not in (0x41, 0x42):
        raise ValueError("an initial value that isn't an integer")
    _, offset = read_unsigned(body, offset + 1)
    if body[offset] != 0x0B:
        raise ValueError("an initial value that isn't a constant")
    return offset + 1


def read_unsigned(body: bytes, offset: int) -> tuple[int, int]:
    """A LEB128 number and the offset after it. (A signed one is skipped alike; its value is of no interest here.)"""
    value = shift = 0
    while True:
        byte = body[offset]
        offset += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, offset


def unsigned(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed(number: int) -> bytes:
    """LEB128 of a number that isn't negative: one bit less in the last byte, which would be the sign."""
    out = bytearray()
    while number > 63:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)

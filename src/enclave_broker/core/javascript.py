"""JavaScript, sans-I/O: QuickJS-NG in WebAssembly. A message in, effects out; no clock, no randomness of its own.

Owns instances and their steps: what a step is given and gives back is bytes, whose layouts are those of
types/messages.py and build/shim/shim.c. Called by runtime/worker.py. An instance is never used by two threads at once,
but may move between them.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from ctypes import c_uint32, c_uint64, memmove, string_at
from typing import NamedTuple

from enclave_broker.core import wasmtime_api as api
from enclave_broker.core.wasmtime_api import WasmtimeError

__all__ = ["Engine", "Instance", "Step", "WasmtimeError"]

_FAR = 1 << 40
"""An epoch that never comes."""
_ENGINE_FAULT = 4
"""Verdict.ENGINE_FAULT of types/messages.py, which is built on msgspec: nothing here needs that."""
_SMALL_INPUT_BYTES = 4095
"""Up to here an input goes to one fixed place (build/shim/shim.c)."""

_WARM_PLACES = 16
_WARM_BYTES = 9 << 18
"""What a warm place keeps: all that an instance has at its start, 2.2 MB."""

_report = struct.Struct("<IIII")
_COMMITTED = 4
"""Where the second field of a report starts."""

# Words of 8 bytes in an instance's block, which holds what wasmtime reads and writes: wasmtime_instance_t, the pointers
# to a trap and to an error, one wasmtime_val_t, and a wasmtime_extern_t for each export that we use.
_INSTANCE, _TRAP, _ERROR, _ARGUMENT = 0, 2, 3, 4
_MEMORY, _START, _DELIVER, _IN_ADDRESS = 8, 12, 16, 20
_WORD = 8
_new_block = c_uint64 * 24


class Step(NamedTuple):
    """What the engine did with one message."""

    effects: bytes
    """A JSON array of effects."""
    ended: bool
    """The script has settled and no call of its is open; or there is a verdict, and the instance has closed itself."""
    verdict: int


class _Places:
    """Room for a number of instances: a wasmtime engine, and the module that it has mapped."""

    __slots__ = ("engine", "pre")

    def __init__(self, path: bytes, instances: int, *, resident_bytes: int) -> None:
        self.engine = api.new_engine(instances, resident_bytes=resident_bytes)
        module, pre = ctypes.c_void_p(), ctypes.c_void_p()
        api.check(api.module_deserialize_file(self.engine, path, ctypes.byref(module)))
        linker = api.linker_new(self.engine)
        api.check(api.linker_traps(linker, module))
        api.check(api.linker_instantiate_pre(linker, module, ctypes.byref(pre)))
        api.linker_delete(linker)
        api.module_delete(module)
        self.pre = pre.value or 0

    def close(self) -> None:
        engine, self.engine = self.engine, 0
        if engine:
            api.pre_delete(self.pre)
            api.engine_delete(engine)


class Engine:
    """The compiled module, and room for instances of it. One a process is enough; `close` gives its room back.

    A few places keep their memory when they are free, and are taken first: page faults are the larger part of what a
    short script costs. The others hold none.
    """

    def __init__(self, image_path: str | os.PathLike[str], *, max_instances: int = 1200) -> None:
        """Maps the image that compile.py made. Raises WasmtimeError if it isn't for this machine and version."""
        path = os.fsencode(image_path)
        warm = min(_WARM_PLACES, max_instances // 2)
        self._warm = _Places(path, warm, resident_bytes=_WARM_BYTES)
        self._cold = _Places(path, max_instances - warm, resident_bytes=0)
        self._free_warm = [None] * warm
        """One for each that is free: instances are made by one thread and closed by any."""
        self.exports: dict[bytes, int] = {}
        self.memory_bytes = self.report = self.input = 0
        probe = Instance(self, self._cold.engine, self._cold.pre, 0)
        try:
            self.exports = probe.export_indices()
            probe.bind()
            self.memory_bytes = probe.memory_bytes()
            self.report = probe.call(probe.function(b"report_address", _START))
            self.input = probe.call(probe.function(b"in_address", _IN_ADDRESS), 0)
        finally:
            probe.close()

    def close(self) -> None:
        """Free it. Every instance has to be closed before, and nothing may use it afterwards. Idempotent."""
        self._cold.close()
        self._warm.close()

    def tick(self) -> None:
        """Moves the epoch: steps that have used up their slice stop. From any thread."""
        api.increment_epoch(self._cold.engine)
        api.increment_epoch(self._warm.engine)

    def instantiate(self, max_memory_bytes: int) -> Instance:
        """A fresh realm, which can't grow beyond so much memory. Raises WasmtimeError if there is no room for it."""
        warm = bool(self._free_warm)
        places = self._warm if warm else self._cold
        instance = Instance(self, places.engine, places.pre, max(max_memory_bytes, self.memory_bytes))
        if warm:
            self._free_warm.pop()
            instance.on_close = self._free_warm.append
        instance.bind()
        return instance


class Instance:
    """One realm, for one execution: `start` once, then `deliver` until a step has ended, and `close` in any case."""

    __slots__ = (
        "_base",
        "_block",
        "_bound",
        "_committed",
        "_context",
        "_engine",
        "_future",
        "_place",
        "_store",
        "on_close",
        "slice_ticks",
    )

    def __init__(self, engine: Engine, handle: int, pre: int, max_memory_bytes: int) -> None:
        self.slice_ticks = 2
        """Ticks in a step's first slice; every further slice has one."""
        self.on_close: Callable[[None], None] | None = None
        """Called once, when its place is free again."""
        self._engine = engine
        self._base = self._bound = self._future = 0
        self._block = _new_block()
        self._place = place = ctypes.addressof(self._block)
        self._store = store = api.store_new(handle, None, None)
        self._context = context = api.store_context(store)
        if max_memory_bytes:
            api.store_limiter(store, max_memory_bytes, -1, -1, -1, -1)
        if error := api.pre_instantiate(pre, context, place, place + _TRAP * _WORD):
            self.close()
            api.check(error)
        api.yield_at_epoch(context, 1)

    # ---- steps ----

    def start(self, body: bytes) -> Step | None:
        """Runs a script up to where it waits. None: it needs more than a slice; go on with `resume`."""
        return self._begin(b"start", _START, body)

    def deliver(self, body: bytes) -> Step | None:
        """Settles what `body` tells, in its order, and runs what follows from it. None: as for `start`."""
        return self._begin(b"deliver", _DELIVER, body)

    def resume(self) -> Step | None:
        """One more slice for a step that hasn't finished."""
        if not self._future:
            raise WasmtimeError("no step is under way")
        if not api.future_poll(self._future):
            return None
        future, self._future = self._future, 0
        api.future_delete(future)
        block = self._block
        if block[_TRAP] or block[_ERROR]:
            return self._trapped()
        base = self._base
        text, committed, ended, _ = _report.unpack(string_at(base + self._engine.report, _report.size))
        return Step(string_at(base + text, committed), ended != 0, 0)

    def stop(self, verdict: int) -> Step:
        """Ends a step that hasn't finished, keeps what it did up to here, and closes the instance."""
        if not self._future:
            raise WasmtimeError("no step is under way")
        return self._end(verdict)

    def close(self) -> None:
        """Gives memory and stack back, and ends an unfinished step. Idempotent."""
        future, self._future = self._future, 0
        store, self._store = self._store, 0
        if future:
            api.future_delete(future)
        if store:
            api.store_delete(store)
            if self.on_close is not None:
                self.on_close(None)

    def _begin(self, name: bytes, slot: int, body: bytes) -> Step | None:
        if not self._store or self._future:
            raise WasmtimeError("a step of this instance is under way" if self._store else "the instance is closed")
        size, block, context = len(body), self._block, self._context
        function = self.function(name, slot)
        self._committed.value = 0  # not the last step's, should this one end at once
        at = self._engine.input
        if size > _SMALL_INPUT_BYTES:
            try:
                at = self.call(self.function(b"in_address", _IN_ADDRESS), size)
            except WasmtimeError:
                return self._trapped()
        memmove(self._base + at, body, size)
        place = self._place
        block[_ARGUMENT] = 0  # the kind: an i32
        block[_ARGUMENT + 1] = size
        api.set_epoch_deadline(context, self.slice_ticks)
        self._future = api.call_async(
            context, function, place + _ARGUMENT * _WORD, 1, None, 0, place + _TRAP * _WORD, place + _ERROR * _WORD
        )
        return self.resume()

    def _trapped(self) -> Step:
        """The engine ended itself, with a verdict if it foresaw the case."""
        block = self._block
        if block[_TRAP]:
            api.trap_delete(block[_TRAP])
        if block[_ERROR]:
            api.error_delete(block[_ERROR])
        *_, verdict = _report.unpack(string_at(self._base + self._engine.report, _report.size))
        return self._end(verdict or _ENGINE_FAULT)

    def _end(self, verdict: int) -> Step:
        base = self._base
        text, committed, _, _ = _report.unpack(string_at(base + self._engine.report, _report.size))
        effects = string_at(base + text, committed) + b"]" if committed else b"[]"
        self.close()
        return Step(effects, ended=True, verdict=verdict)

    # ---- exports ----

    def bind(self) -> None:
        """Finds this instance's memory. Called by Engine, once."""
        self._base = base = api.memory_data(self._context, self.function(b"memory", _MEMORY))
        self._committed = c_uint32.from_address(base + self._engine.report + _COMMITTED)

    def function(self, name: bytes, slot: int) -> int:
        """The address of an export, looked up once and kept in its slot of the block."""
        place = self._place + slot * _WORD
        if not self._bound & 1 << slot:
            scratch = self._place + _ARGUMENT * _WORD
            index = self._engine.exports[name]
            api.export_nth(self._context, self._place, index, scratch, scratch + _WORD, place)
            if name != b"report_address":
                self._bound |= 1 << slot
        return place + _WORD

    def export_indices(self) -> dict[bytes, int]:
        """The places of all exports, by name."""
        name, length = ctypes.c_void_p(), ctypes.c_size_t()
        at = self._place + _START * _WORD
        indices: dict[bytes, int] = {}
        while api.export_nth(self._context, self._place, len(indices), ctypes.byref(name), ctypes.byref(length), at):
            indices[string_at(name.value or 0, length.value)] = len(indices)
        return indices

    def memory_bytes(self) -> int:
        """How large the memory is now."""
        return api.memory_size(self._context, self.function(b"memory", _MEMORY))

    def call(self, function: int, *arguments: int) -> int:
        """Calls a short function at once. Raises WasmtimeError if it traps."""
        block, place = self._block, self._place
        api.set_epoch_deadline(self._context, _FAR)
        block[_ARGUMENT] = arguments[0] if arguments else 0
        count = 1
        error = api.call_unchecked(self._context, function, place + _ARGUMENT * _WORD, count, place + _TRAP * _WORD)
        if error or block[_TRAP]:
            block[_ERROR] = error or 0
            raise WasmtimeError("a function of the engine trapped")
        return block[_ARGUMENT] & 0xFFFFFFFF

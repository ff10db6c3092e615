"""The functions of wasmtime's C API that the engine uses, and the configuration that compiler and worker share.

The library comes with the package wasmtime, whose Python side is left alone: importing it takes 0.1 s, and its calls
take 20 times as long. What is quick and never blocks keeps the GIL; what runs a script or maps memory gives it up.
Called by compile.py and javascript.py.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

__all__ = ["VALUE_BYTES", "Bytes", "WasmtimeError", "check", "new_engine"]

_NATIVE_STACK_BYTES = 16 << 20
"""Goes with 768 KiB of shadow stack (build/shim/shim.c): the engine's own limit comes first, as a RangeError."""
_STACK_MARGIN_BYTES = 512 << 10
_MAX_MEMORY_BYTES = 256 << 20
"""As the linker's flag in build/recipe.py."""

VALUE_BYTES = 32
"""Size of wasmtime_val_t: the kind at 0, the value at 8. Of wasmtime_extern_t as well."""


class WasmtimeError(RuntimeError):
    """wasmtime refused: no room for an instance, no memory, or an image that isn't ours."""


class Bytes(ctypes.Structure):
    """wasm_byte_vec_t."""

    _fields_ = (("size", c_size_t), ("data", c_void_p))
    size: int
    data: int


def _library() -> ctypes.CDLL:
    machine = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}.get(platform.machine(), platform.machine())
    name = {"darwin": "_libwasmtime.dylib", "win32": "_wasmtime.dll"}.get(sys.platform, "_libwasmtime.so")
    spec = importlib.util.find_spec("wasmtime")
    if spec is None or spec.origin is None:
        raise WasmtimeError("the package wasmtime isn't installed")
    return ctypes.CDLL(str(Path(spec.origin).parent / f"{sys.platform}-{machine}" / name))


_dll = _library()
_P = c_void_p


def _quick(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, _dll))


def _slow(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    return ctypes.CFUNCTYPE(result, *arguments)((name, _dll))


config_new = _quick("wasm_config_new", _P)
engine_new = _slow("wasm_engine_new_with_config", _P, _P)
engine_delete = _slow("wasm_engine_delete", None, _P)
increment_epoch = _quick("wasmtime_engine_increment_epoch", None, _P)

module_new = _slow("wasmtime_module_new", _P, _P, _P, c_size_t, _P)
module_serialize = _slow("wasmtime_module_serialize", _P, _P, _P)
module_deserialize_file = _slow("wasmtime_module_deserialize_file", _P, _P, c_char_p, _P)
linker_new = _quick("wasmtime_linker_new", _P, _P)
module_delete = _slow("wasmtime_module_delete", None, _P)
linker_delete = _slow("wasmtime_linker_delete", None, _P)
pre_delete = _slow("wasmtime_instance_pre_delete", None, _P)
linker_traps = _slow("wasmtime_linker_define_unknown_imports_as_traps", _P, _P, _P)
linker_instantiate_pre = _slow("wasmtime_linker_instantiate_pre", _P, _P, _P, _P)

store_new = _quick("wasmtime_store_new", _P, _P, _P, _P)
store_context = _quick("wasmtime_store_context", _P, _P)
store_limiter = _quick("wasmtime_store_limiter", None, _P, *[c_int64] * 5)
store_delete = _slow("wasmtime_store_delete", None, _P)
pre_instantiate = _slow("wasmtime_instance_pre_instantiate", _P, _P, _P, _P, _P)
export_get = _quick("wasmtime_instance_export_get", c_bool, _P, _P, c_char_p, c_size_t, _P)
export_nth = _quick("wasmtime_instance_export_nth", c_bool, _P, _P, c_size_t, _P, _P, _P)
memory_data = _quick("wasmtime_memory_data", _P, _P, _P)
memory_size = _quick("wasmtime_memory_data_size", c_size_t, _P, _P)

set_epoch_deadline = _quick("wasmtime_context_set_epoch_deadline", None, _P, c_uint64)
yield_at_epoch = _quick("wasmtime_context_epoch_deadline_async_yield_and_update", None, _P, c_uint64)
call_unchecked = _slow("wasmtime_func_call_unchecked", _P, _P, _P, _P, c_size_t, _P)
call_async = _quick("wasmtime_func_call_async", _P, _P, _P, _P, c_size_t, _P, c_size_t, _P, _P)
future_poll = _slow("wasmtime_call_future_poll", c_bool, _P)
future_delete = _slow("wasmtime_call_future_delete", None, _P)

error_message = _quick("wasmtime_error_message", None, _P, _P)
error_delete = _quick("wasmtime_error_delete", None, _P)
trap_delete = _quick("wasm_trap_delete", None, _P)
bytes_delete = _quick("wasm_byte_vec_delete", None, _P)


def check(error: int | None) -> None:
    """Raises WasmtimeError with the message of `error`, which it frees; does nothing for no error."""
    if not error:
        return
    message = Bytes()
    error_message(error, ctypes.byref(message))
    text = ctypes.string_at(message.data, message.size).decode("utf-8", "replace")
    bytes_delete(ctypes.byref(message))
    error_delete(error)
    raise WasmtimeError(text)


def new_engine(pool: int = 0, *, resident_bytes: int = 0) -> int:
    """A wasmtime engine; with `pool`, for as many instances at most, whose places are mapped beforehand.

    A place that was used keeps `resident_bytes` of memory, which spares the next instance its page faults. An image
    fits every engine made here on the same machine, whatever its pool.
    """
    config = config_new()

    def option(name: str, kind: Any, value: int) -> None:
        _quick(f"wasmtime_config_{name}_set", None, _P, kind)(config, value)

    option("epoch_interruption", c_bool, value=True)
    option("cranelift_nan_canonicalization", c_bool, value=True)
    option("memory_init_cow", c_bool, value=True)
    option("max_wasm_stack", c_size_t, _NATIVE_STACK_BYTES)
    option("async_stack_size", c_size_t, _NATIVE_STACK_BYTES + _STACK_MARGIN_BYTES)
    if pool:
        _use_pool(config, pool, resident_bytes)
    engine: int | None = engine_new(config)
    if not engine:
        raise WasmtimeError("no engine: too little address space?")
    return engine


def _use_pool(config: int, instances: int, resident_bytes: int) -> None:
    pool = _quick("wasmtime_pooling_allocation_config_new", _P)()
    numbers = {
        "total_core_instances": instances,
        "total_memories": instances,
        "total_tables": instances,
        "total_stacks": instances,  # a store keeps its stack until it is dropped
        "max_memory_size": _MAX_MEMORY_BYTES,
        "max_memories_per_module": 1,
        "max_tables_per_module": 1,
        "table_elements": 4000,
        "max_core_instance_size": 1 << 20,
        "linear_memory_keep_resident": resident_bytes,
        "table_keep_resident": 1 << 16,
        "async_stack_keep_resident": 1 << 16,
    }
    for name, value in numbers.items():
        _quick(f"wasmtime_pooling_allocation_config_{name}_set", None, _P, c_size_t)(pool, value)
    _quick("wasmtime_pooling_allocation_strategy_set", None, _P, _P)(config, pool)
    _quick("wasmtime_pooling_allocation_config_delete", None, _P)(pool)

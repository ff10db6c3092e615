"""The fixed inputs of the build: versions, source archive, compiler flags, patches. No code that acts.

Everything here is part of the build's key: to change anything is to make another engine, with another hash.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "COMPILER_FLAGS",
    "LINKER_FLAGS",
    "PATCHES",
    "REQUIREMENTS",
    "SOURCES",
    "SOURCE_FILES",
    "SOURCE_FOLDER",
    "SOURCE_SHA256",
    "Patch",
]

SOURCES = "quickjs-ng==0.17.0.2"
"""The source distribution on PyPI that carries the C sources of QuickJS-NG."""
SOURCE_SHA256 = "43d2e48272208721a7aaea8e3f02d4b9318f12ef20cc4f5421b59d9a470706ef"
SOURCE_FOLDER = "quickjs_ng-0.17.0.2/upstream-quickjs"
SOURCE_FILES = (
    "builtin-array-fromasync.h",
    "builtin-iterator-zip-keyed.h",
    "builtin-iterator-zip.h",
    "cutils.h",
    "dtoa.c",
    "dtoa.h",
    "libregexp-opcode.h",
    "libregexp.c",
    "libregexp.h",
    "libunicode-table.h",
    "libunicode.c",
    "libunicode.h",
    "list.h",
    "quickjs-atom.h",
    "quickjs-c-atomics.h",
    "quickjs-opcode.h",
    "quickjs.c",
    "quickjs.h",
    "unicode_gen_def.h",
)

REQUIREMENTS = ("pip==26.3", "wasmtime==50.0.1", "ziglang==0.17.1")
"""What the build itself needs: the download, the run of `init`, the compiler. Exact, so that its bytes are the same."""

COMPILER_FLAGS = (
    "-target",
    "wasm32-wasi",
    "-O2",
    "-g0",
    "-DNDEBUG",
    "-D_GNU_SOURCE",
    '-DCONFIG_VERSION="0.17"',
    "-D_WASI_EMULATED_SIGNAL",
)
LINKER_FLAGS = (
    "-mexec-model=reactor",
    "-lwasi-emulated-signal",
    "-Wl,--strip-all",
    # The shadow stack must be larger than the engine's own limit (shim/shim.c: STACK_BYTES), which checks less often.
    "-Wl,-z,stack-size=1048576",
    "-Wl,--export=__stack_pointer",
    "-Wl,--max-memory=268435456",
)


class Patch(NamedTuple):
    """A replacement of `old`, which occurs exactly `times` in `file`."""

    file: str
    old: str
    new: str
    times: int = 1


PATCHES = (
    # A switch instead of computed gotos: 6 to 9 % faster in WebAssembly, which has no computed goto.
    Patch("quickjs.c", "#define DIRECT_DISPATCH  1", "#define DIRECT_DISPATCH  0"),
    # `return` at the top level of a script: its value takes the place of the last expression's.
    Patch(
        "quickjs.c",
        """\
        if (s->cur_func->is_eval) {
            js_parse_error(s, "return not in a function");
            goto fail;
        }
""",
        """\
        if (s->cur_func->is_eval && (s->is_module || s->cur_func->func_kind != JS_FUNC_ASYNC)) {
            js_parse_error(s, "return not in a function");
            goto fail;
        }
""",
    ),
    Patch(
        "quickjs.c",
        """\
        if (s->token.val != ';' && s->token.val != '}' && !s->got_lf) {
            if (js_parse_expr(s))
                goto fail;
            emit_return(s, true);
        } else {
            emit_return(s, false);
        }
""",
        """\
        if (s->cur_func->is_eval) {
            if (s->token.val != ';' && s->token.val != '}' && s->token.val != TOK_EOF && !s->got_lf) {
                if (js_parse_expr(s))
                    goto fail;
            } else {
                emit_op(s, OP_undefined);
            }
            emit_op(s, OP_put_loc);
            emit_u16(s, s->cur_func->eval_ret_idx);
            emit_op(s, OP_object);
            emit_op(s, OP_get_loc);
            emit_u16(s, s->cur_func->eval_ret_idx);
            emit_op(s, OP_define_field);
            emit_atom(s, JS_ATOM_value);
            emit_return(s, true);
        } else if (s->token.val != ';' && s->token.val != '}' && !s->got_lf) {
            if (js_parse_expr(s))
                goto fail;
            emit_return(s, true);
        } else {
            emit_return(s, false);
        }
""",
    ),
    # Small arenas at first: a short script touches fewer pages.
    Patch(
        "quickjs.c",
        """\
    n_blocks = (JS_ARENA_SIZE - sizeof(JSArena)) / block_size;
""",
        """\
    n_blocks = (rt->malloc_state.malloc_size < 512 << 10 && block_size <= 128 ? 1024 : JS_ARENA_SIZE) - sizeof(JSArena);
    n_blocks /= block_size;
""",
    ),
    # A script's value is defined as a property, not set: a setter on Object.prototype has no part in it.
    Patch(
        "quickjs.c",
        """\
                emit_op(s, OP_dup);
                emit_op(s, OP_get_loc);
                emit_u16(s, fd->eval_ret_idx);
                emit_op(s, OP_put_field);
""",
        """\
                emit_op(s, OP_get_loc);
                emit_u16(s, fd->eval_ret_idx);
                emit_op(s, OP_define_field);
""",
        times=2,
    ),
    # The stack of an error whose class is the script's own starts where it was made, not in its class's constructors.
    Patch(
        "quickjs.c",
        """\
static void build_backtrace(JSContext *ctx, JSValueConst error_val,
                            JSValueConst filter_func, const char *filename,
                            int line_num, int col_num, int backtrace_flags)
{
""",
        """\
static bool is_native_error_proto(JSContext *ctx, JSObject *proto)
{
    int i;
    if (!proto || proto == JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_ERROR]))
        return true;
    for (i = 0; i < JS_NATIVE_ERROR_COUNT; i++)
        if (proto == JS_VALUE_GET_OBJ(ctx->native_error_proto[i]))
            return true;
    return false;
}

static bool is_derived_constructor(JSStackFrame *sf)
{
    JSObject *p;
    if (!sf || !sf->is_constructor || JS_VALUE_GET_TAG(sf->cur_func) != JS_TAG_OBJECT)
        return false;
    p = JS_VALUE_GET_OBJ(sf->cur_func);
    return js_class_has_bytecode(p->class_id) && p->u.func.function_bytecode->is_derived_class_constructor;
}

static void build_backtrace(JSContext *ctx, JSValueConst error_val,
                            JSValueConst filter_func, const char *filename,
                            int line_num, int col_num, int backtrace_flags)
{
""",
    ),
    Patch(
        "quickjs.c",
        """\
            backtrace_flags &= ~JS_BACKTRACE_FLAG_SKIP_FIRST_LEVEL;
            continue;
""",
        """\
            backtrace_flags &= ~JS_BACKTRACE_FLAG_SKIP_FIRST_LEVEL;
            if (!has_filter_func && !is_native_error_proto(ctx, JS_VALUE_GET_OBJ(error_val)->shape->proto)) {
                while (is_derived_constructor(sf->prev_frame))
                    sf = sf->prev_frame;
            }
            continue;
""",
    ),
)

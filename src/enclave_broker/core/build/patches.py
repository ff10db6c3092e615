"""The changes to the sources of QuickJS-NG, in the order in which they are made. No code that acts.

Each is part of the build's key: to change one is to make another engine, with another hash. sources.py makes them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PATCHES", "Patch"]


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
    # The first line's columns start at 1, as all others' do.
    Patch(
        "quickjs.c",
        """\
    s->mark = s->buf_ptr + min_int(1, input_len);
    s->eol = s->buf_ptr;
""",
        """\
    s->mark = s->buf_ptr;
    s->eol = s->buf_ptr - 1;
""",
    ),
    # A call's position is that of the name it is called by (of what follows `new`), whatever its arguments hold.
    Patch(
        "quickjs.c",
        """\
static __exception int js_parse_postfix_expr(JSParseState *s, int parse_flags)
{
""",
        """\
static int token_column(JSParseState *s)
{
    return s->token.ptr - s->token.line_start + 1;
}

static __exception int js_parse_postfix_expr(JSParseState *s, int parse_flags)
{
    int call_line = s->token.line_num, call_column = token_column(s);
""",
    ),
    Patch(
        "quickjs.c",
        """\
            emit_source_loc(s);
            if (js_parse_postfix_expr(s, 0))
                return -1;
            accept_lparen = true;
            if (s->token.val != '(') {
""",
        """\
            call_line = s->token.line_num;
            call_column = token_column(s);
            emit_source_loc(s);
            if (js_parse_postfix_expr(s, 0))
                return -1;
            accept_lparen = true;
            if (s->token.val != '(') {
                emit_source_loc_at(s, call_line, call_column);
""",
    ),
    Patch(
        "quickjs.c",
        """\
        parse_property:
            if (s->token.val == TOK_PRIVATE_NAME) {
""",
        """\
        parse_property:
            call_line = s->token.line_num;
            call_column = token_column(s);
            if (s->token.val == TOK_PRIVATE_NAME) {
""",
    ),
    Patch(
        "quickjs.c",
        """\
                emit_source_loc(s);
                switch(opcode = get_prev_opcode(fd)) {
""",
        """\
                switch(opcode = get_prev_opcode(fd)) {
""",
    ),
    Patch(
        "quickjs.c",
        """\
                /* apply function call */
                switch(opcode) {
""",
        """\
                /* apply function call */
                emit_source_loc_at(s, call_line, call_column);
                switch(opcode) {
""",
    ),
    Patch(
        "quickjs.c",
        """\
            emit_func_call:
                switch(opcode) {
""",
        """\
            emit_func_call:
                emit_source_loc_at(s, call_line, call_column);
                switch(opcode) {
""",
    ),
    # A thrown value's position is that of what follows `throw`, whatever is called in it.
    Patch(
        "quickjs.c",
        """\
        emit_source_loc(s);
        if (js_parse_expr(s))
            goto fail;
        emit_op(s, OP_throw);
""",
        """\
        emit_source_loc(s);
        {
            int line = s->token.line_num, column = token_column(s);
            if (js_parse_expr(s))
                goto fail;
            emit_source_loc_at(s, line, column);
        }
        emit_op(s, OP_throw);
""",
    ),
    # There are no modules: import() fails where it stands, and says so; a job of its own wouldn't know where that was.
    Patch(
        "quickjs.c",
        """\
            emit_op(s, OP_import);
""",
        """\
            emit_source_loc_at(s, call_line, call_column);
            emit_op(s, OP_import);
""",
    ),
    Patch(
        "quickjs.c",
        """\
    args[0] = resolving_funcs[0];
    args[1] = resolving_funcs[1];
    args[2] = basename_val;
    args[3] = specifier_str;
    args[4] = attributes;

    /* cannot run JS_LoadModuleInternal synchronously because it would
       cause an unexpected recursion in js_evaluate_module() */
    JS_EnqueueJob(ctx, js_dynamic_import_job, 5, vc(args));
done:
""",
        """\
    const char *name = JS_ToCString(ctx, specifier_str);
    if (name)
        JS_ThrowReferenceError(ctx, "could not load module '%s'", name);
    JS_FreeCString(ctx, name);
    goto exception;
done:
""",
    ),
    Patch(
        "quickjs.c",
        """\
 exception:
    JS_FreeValue(ctx, attributes_obj);
    err = JS_GetException(ctx);
""",
        """\
 exception:
    JS_FreeValue(ctx, attributes_obj);
    err = JS_GetException(ctx);
    if (needs_backtrace(err))
        build_backtrace(ctx, err, JS_UNDEFINED, NULL, 0, 0, 0);
""",
    ),
    # A regular expression that doesn't compile has its literal's position in place of an empty stack made before.
    Patch(
        "quickjs.c",
        """\
                build_backtrace(s->ctx, s->ctx->rt->current_exception, JS_UNDEFINED,
                                s->filename,
                                s->token.line_num,
                                s->token.col_num,
                                backtrace_flags);
                return -1;
""",
        """\
                str = s->ctx->rt->current_exception;
                if (JS_IsError(str)) {
                    JS_FreeValue(s->ctx, JS_VALUE_GET_OBJ(str)->u.object_data);
                    JS_VALUE_GET_OBJ(str)->u.object_data = JS_UNDEFINED;
                    build_backtrace(s->ctx, str, JS_UNDEFINED, s->filename, call_line, call_column, backtrace_flags);
                }
                return -1;
""",
    ),
    # A script's Error.prepareStackTrace gets no hold of functions: some are the prelude's.
    Patch(
        "quickjs.c",
        """\
    JS_CFUNC_MAGIC_DEF("getFunction", 0, js_callsite_getfield, offsetof(JSCallSiteData, func)),
""",
        "",
    ),
    # The end of the input is no token that could be shown.
    Patch("quickjs.c", '"Unexpected end of input"', '"unexpected end of input"', times=2),
    Patch(
        "quickjs.c",
        """\
    default:
        return js_parse_error(s, "unexpected token in expression: '%.*s'",
""",
        """\
    case TOK_EOF:
        return js_parse_error(s, "unexpected end of input");
    default:
        return js_parse_error(s, "unexpected token in expression: '%.*s'",
""",
    ),
    Patch(
        "quickjs.c",
        """\
        js_parse_error(s, "invalid property name");
""",
        """\
        js_parse_error(s, s->token.val == TOK_EOF ? "unexpected end of input" : "invalid property name");
""",
    ),
)

/* The engine's whole interface: QuickJS-NG with a shim around it, compiled as one unit so that it may use internals.

   The host calls in_address(n), writes n bytes there, sets the report's `committed` to 0, and calls start(n) or
   deliver(n); what came of it stands in the report (machine.h). The layouts of what is written are those of
   types/messages.py, little-endian.

   The engine is a left fold over its inputs: each is settled with its own time and all that follows from it is run
   before the next is looked at. So how many come in one `deliver` makes no difference. */

#include "quickjs.c"

#undef malloc
#undef free
#undef realloc
#include "machine.h"
#include "heap.h"
#include "text.h"
#include "values.h"
#include "errors.h"
#include "inspect.h"
#include "calls.h"
#include "outcome.h"
#include "extras.h"

#define EXPORT(name) __attribute__((export_name(#name), used, visibility("default"))) name

enum {
    STACK_BYTES = 768 << 10,     /* of the shadow stack; goes with 16 MiB of native stack (wasmtime_api.py) */
    GARBAGE_BYTES = 2 << 20,     /* allocated before the collector first runs: it touches every page */
    FREE_HEAP_BYTES = 600 << 10, /* in the image, so that a small script never grows its memory */
    SMALL_INPUT_BYTES = 4096,
};
enum { CALL_FULFILLED = 1, CALL_REJECTED, TIMER_FIRED };

typedef struct __attribute__((packed)) StartHeader {
    uint64_t seed;
    double now;
    uint32_t max_memory_bytes, max_stdout_bytes, max_args_bytes, max_result_bytes, max_calls, max_timers, cpu_ms, flags;
} StartHeader;

typedef struct __attribute__((packed)) InputHeader {
    uint32_t kind, id;
    double now;
    uint32_t length;
} InputHeader;

static JSRuntime *runtime;
static JSContext *context;
static char small_input[SMALL_INPUT_BYTES], *input = small_input; /* at a fixed address: small inputs need no call */
static bool started;

static void forget_thrown(JSContext *c)
{
    JS_FreeValue(c, c->error_back_trace);
    c->error_back_trace = JS_UNDEFINED;
}

/* Runs all jobs. The script's failure is recorded in the job that made it, while its position is known. */
static void run_jobs(JSContext *c)
{
    JSContext *of;
    int status;
    do {
        look_at_main(c);
        forget_thrown(c);
        status = JS_ExecutePendingJob(runtime, &of);
        if (status < 0)
            report_exception(c);
    } while (status);
}

/* Runs all that follows from what has just been settled, up to where the script waits or ends. */
static void drain(JSContext *c)
{
    do {
        run_jobs(c);
        report_rejections(c);
    } while (rejection_count || JS_IsJobPending(runtime)); /* a getter of what was reported may have made more */
    report_left_out();
    timers_set = 0;
    if (main_state != SETTLED && !calls_open && !timer_count) {
        open_record(7);
        close_record();
    }
    report.ended = main_state == SETTLED && !calls_open;
}

/* ---- entries ---- */

static void enter(void)
{
    JS_UpdateStackTop(runtime);
    open_outbox();
}

static void leave(void)
{
    if (input != small_input) {
        free(input);
        input = small_input;
    }
    put_char(&outbox, ']');
    report.committed = outbox.length; /* last: a step that is killed has no closing bracket */
}

/* Where the next input goes. Up to SMALL_INPUT_BYTES - 1 it is always the same place. */
char *EXPORT(in_address)(uint32_t bytes)
{
    if (bytes >= SMALL_INPUT_BYTES)
        input = malloc(bytes + 1); /* a NUL behind it */
    return input;
}

void *EXPORT(report_address)(void) { return &report; }

static uint64_t mix(uint64_t seed)
{
    seed += 0x9e3779b97f4a7c15ull; /* splitmix64: neighbouring seeds give unlike streams */
    seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9ull;
    seed = (seed ^ seed >> 27) * 0x94d049bb133111ebull;
    seed ^= seed >> 31;
    return seed ? seed : 1;
}

void EXPORT(start)(uint32_t length)
{
    StartHeader header;
    JSEvalOptions options = {.version = JS_EVAL_OPTIONS_VERSION,
                             .filename = SCRIPT_FILE,
                             .line_num = 1,
                             .eval_flags = JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_ASYNC};
    if (length < sizeof header || started)
        __builtin_trap();
    started = true;
    memcpy(&header, input, sizeof header);
    memory_cap = header.max_memory_bytes;
    stdout_left = header.max_stdout_bytes;
    max_args_bytes = header.max_args_bytes ? header.max_args_bytes : 1; /* 0 would be no limit of a Text */
    max_result_bytes = header.max_result_bytes ? header.max_result_bytes : 1;
    max_calls = header.max_calls;
    max_timers = header.max_timers;
    context->random_state = mix(header.seed);
    now_ms = started_ms = header.now;
    enter();
    input[length] = 0;
    main_promise = JS_Eval2(context, input + sizeof header, length - sizeof header, &options);
    if (JS_IsException(main_promise)) { /* a script that runs rejects its promise instead */
        JSValue error = take_exception(context), name = data_property(context, error, JS_ATOM_name);
        const char *chars = JS_ToCString(context, name);
        end_with_failure(context, error, chars && !strcmp(chars, "SyntaxError") ? "SYNTAX_ERROR" : NULL, JS_UNDEFINED);
        JS_FreeCString(context, chars);
        JS_FreeValue(context, name);
        JS_FreeValue(context, error);
        main_promise = JS_UNDEFINED;
    }
    drain(context);
    leave();
}

static JSValue parse(JSContext *c, char *json, uint32_t length)
{
    char behind = json[length];
    json[length] = 0;
    JSValue value = length ? JS_ParseJSON(c, json, length, "<result>") : JS_UNDEFINED;
    json[length] = behind;
    return value;
}

void EXPORT(deliver)(uint32_t length)
{
    InputHeader header;
    enter();
    for (uint32_t at = 0; at + sizeof header <= length && !report.ended; at += header.length) {
        memcpy(&header, input + at, sizeof header);
        at += sizeof header;
        if (header.length > length - at)
            break;
        now_ms = header.now;
        if (header.kind == TIMER_FIRED) {
            if (!fire_timer(context, header.id))
                report_exception(context);
        } else if (header.kind == CALL_FULFILLED || header.kind == CALL_REJECTED) {
            JSValue value = parse(context, input + at, header.length);
            bool is_error = header.kind == CALL_REJECTED;
            if (JS_IsException(value)) {
                value = take_exception(context);
                is_error = true;
            }
            finish_call(context, header.id, value, is_error);
        }
        drain(context);
    }
    leave();
}

/* ---- the image ---- */

static void *engine_malloc(void *opaque, size_t size) { return malloc(size); }
static void *engine_calloc(void *opaque, size_t count, size_t size) { return calloc(count, size); }
static void *engine_realloc(void *opaque, void *at, size_t size) { return realloc(at, size); }
static void engine_free(void *opaque, void *at) { free(at); }
static size_t engine_usable_size(const void *at) { return malloc_usable_size((void *)at); }

static const JSMallocFunctions engine_memory = {
    engine_calloc, engine_malloc, engine_free, engine_realloc, engine_usable_size,
};

static void set_function(JSContext *c, JSValueConst on, const char *name, JSCFunction *function, int length)
{
    JS_DefinePropertyValueStr(c, on, name, JS_NewCFunction(c, function, name, length), HIDDEN);
}

static void set_magic(JSContext *c, JSValueConst on, const char *name, JSCFunctionMagic *function, int length, int magic)
{
    JSValue value = JS_NewCFunctionMagic(c, function, name, length, JS_CFUNC_generic_magic, magic);
    JS_DefinePropertyValueStr(c, on, name, value, HIDDEN);
}

static void add_globals(JSContext *c, JSValueConst global, JSValueConst host)
{
    static const char *const levels[] = {"log", "info", "debug", "warn", "error"};
    JSValue console = JS_NewObject(c);
    for (int i = 0; i < (int)countof(levels); i++)
        set_magic(c, console, levels[i], print, 0, i);
    JS_DefinePropertyValueStr(c, global, "console", console, HIDDEN);
    set_function(c, global, "callTool", call_tool, 2);
    set_function(c, global, "sleep", sleep_ms, 1);
    set_magic(c, global, "setTimeout", set_timer, 2, 0);
    set_magic(c, global, "setInterval", set_timer, 2, 1);
    set_function(c, global, "clearTimeout", clear_timer, 1);
    set_function(c, global, "clearInterval", clear_timer, 1);
    set_function(c, host, "callTool", call_tool, 2);
    set_function(c, host, "getRandomValues", fill_random, 1);
    set_function(c, host, "randomUUID", random_uuid, 0);
    set_function(c, host, "now", elapsed, 0);
    set_function(c, host, "timeOrigin", time_origin, 0);
    set_function(c, host, "encode", encode, 1);
    set_function(c, host, "decode", decode, 3);
    set_function(c, host, "percentEncode", percent_encode, 2);
    set_function(c, host, "percentDecode", percent_decode, 1);
}

/* Everything that JS_NewContext adds but weak references, whose targets' ends would show how inputs were batched. */
static JSContext *new_context(JSRuntime *of)
{
    JSContext *c = JS_NewContextRaw(of);
    JS_AddIntrinsicBaseObjects(c);
    JS_AddIntrinsicDate(c);
    JS_AddIntrinsicEval(c);
    JS_AddIntrinsicRegExp(c);
    JS_AddIntrinsicJSON(c);
    JS_AddIntrinsicProxy(c);
    JS_AddIntrinsicMapSet(c);
    JS_AddIntrinsicTypedArrays(c);
    JS_AddIntrinsicPromise(c);
    JS_AddIntrinsicAToB(c);
    return c;
}

/* Uses up what is left of QuickJS's arenas: a script's first allocations of each size would touch a page each. */
static void retire_arenas(JSRuntime *of)
{
    for (int i = 0; i < JS_ARENA_BLOCK_SIZE_COUNT; i++)
        while (!list_empty(&of->arena_state.free_arena_list[i]))
            js_arena_malloc(of, arena_block_sizes[i] - sizeof(JSMallocBlockHeader));
}

/* Runs the scripts of the prelude, with a NUL between one and the next. Each is a function, and is given `host`. */
static bool run_prelude(JSContext *c, const char *at, uint32_t length, JSValueConst host)
{
    const char *end = at + length;
    for (; at < end; at += strlen(at) + 1) {
        JSValue script = JS_Eval(c, at, strlen(at), "<prelude>", JS_EVAL_TYPE_GLOBAL);
        JSValue result = JS_Call(c, script, JS_UNDEFINED, 1, vc(&host));
        JS_FreeValue(c, script);
        if (JS_IsException(result))
            return false;
        JS_FreeValue(c, result);
    }
    return true;
}

/* Builds the realm and runs the prelude, which stands at in_address. Run once, when the image is made; 0 is success. */
uint32_t EXPORT(init)(uint32_t length)
{
    JSContext *of;
    runtime = JS_NewRuntime2(&engine_memory, NULL);
    JS_SetMaxStackSize(runtime, STACK_BYTES);
    JS_SetHostPromiseRejectionTracker(runtime, on_rejection, NULL);
    context = new_context(runtime);
    prelude_file = JS_NewAtom(context, "<prelude>");
    JSValue global = JS_GetGlobalObject(context), host = JS_NewObject(context);
    add_globals(context, global, host);
    input[length] = 0;
    if (!run_prelude(context, input, length, host))
        return 1;
    text_of = JS_GetPropertyStr(context, host, "textOf");
    while (JS_ExecutePendingJob(runtime, &of) > 0)
        ;
    JS_FreeValue(context, host);
    JS_FreeValue(context, global);
    forget_thrown(context);
    JS_RunGC(runtime);
    free(input);
    input = small_input;
    open_outbox();
    retire_arenas(runtime);
    retire_holes();
    reserve_heap(FREE_HEAP_BYTES);
    JS_SetGCThreshold(runtime, runtime->malloc_state.malloc_size + GARBAGE_BYTES);
    main_promise = JS_UNDEFINED;
    report.committed = 0;
    return 0;
}

void *EXPORT(stack_bottom)(void)
{
    extern char __stack_low;
    return &__stack_low;
}

/* The engine's whole interface: QuickJS-NG with a shim around it, compiled as one unit so that it may use internals.

   The host calls in_address(n), writes n bytes there, and calls start(n) or deliver(n); what came of it stands in the
   report (machine.h). The layouts of what is written are those of types/messages.py, little-endian.

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
#include "extras.h"

#define EXPORT(name) __attribute__((export_name(#name), used, visibility("default"))) name

enum {
    STACK_BYTES = 768 << 10,     /* of the shadow stack; goes with 16 MiB of native stack (configuration.py) */
    GARBAGE_BYTES = 2 << 20,     /* allocated before the collector first runs: it touches every page */
    FREE_HEAP_BYTES = 600 << 10, /* in the image, so that a small script never grows its memory */
    SMALL_INPUT_BYTES = 4096,
    MAX_UNHANDLED_TEXT = 2000,   /* characters */
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

typedef struct Rejection {
    JSValue promise, reason;
} Rejection;

static JSRuntime *runtime;
static JSContext *context;
static char small_input[SMALL_INPUT_BYTES], *input = small_input; /* at a fixed address: small inputs need no call */
static uint32_t max_result_bytes;

static JSValue main_promise;
static enum { PENDING, AWAITING_VALUE, SETTLED } main_state;

/* Promises that were rejected in this step and that nobody has awaited yet. */
static Rejection *rejections;
static uint32_t rejection_count, rejection_room;

static void on_rejection(JSContext *c, JSValueConst promise, JSValueConst reason, bool is_handled, void *opaque)
{
    if (is_handled) {
        for (uint32_t i = 0; i < rejection_count; i++)
            if (JS_VALUE_GET_OBJ(rejections[i].promise) == JS_VALUE_GET_OBJ(promise)) {
                JS_FreeValue(c, rejections[i].promise);
                JS_FreeValue(c, rejections[i].reason);
                memmove(&rejections[i], &rejections[i + 1], sizeof *rejections * (--rejection_count - i));
                break;
            }
        return;
    }
    if (rejection_count == rejection_room) {
        rejection_room = rejection_room ? rejection_room * 2 : 4;
        rejections = realloc(rejections, sizeof *rejections * rejection_room);
    }
    rejections[rejection_count++] = (Rejection){JS_DupValue(c, promise), JS_DupValue(c, reason)};
}

static void report_unhandled(JSContext *c, JSValueConst reason)
{
    Text text = {.limit = stdout_left + 4};
    JSValue name = name_of(c, reason), message = message_of(c, reason);
    put_string(&text, c, name, MAX_NAME, 0);
    put_chars(&text, ": ");
    put_string(&text, c, message, MAX_UNHANDLED_TEXT, 0);
    JS_FreeValue(c, name);
    JS_FreeValue(c, message);
    record_output(8, 0, &text);
}

/* What several promises were rejected with is reported once. */
static void report_rejections(JSContext *c)
{
    for (uint32_t i = 0; i < rejection_count; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < i && !seen; k++)
            seen = js_same_value(c, rejections[k].reason, rejections[i].reason);
        if (!seen)
            report_unhandled(c, rejections[i].reason);
    }
    while (rejection_count) {
        rejection_count--;
        JS_FreeValue(c, rejections[rejection_count].promise);
        JS_FreeValue(c, rejections[rejection_count].reason);
    }
}

static void report_exception(JSContext *c)
{
    JSValue error = take_exception(c);
    report_unhandled(c, error);
    JS_FreeValue(c, error);
}

/* ---- the script's end ---- */

static void end_with_failure(JSContext *c, JSValueConst error, const char *code)
{
    Text json = {0};
    put_failure(&json, c, error, code, c->error_back_trace);
    open_record(6);
    put_char(&outbox, ',');
    put(&outbox, json.at, json.length);
    close_record();
    drop(&json);
    main_state = SETTLED;
}

static void end_with_message(JSContext *c, JSValue message)
{
    JSValue error = JS_NewObjectProto(c, JS_NULL);
    JS_DefinePropertyValueStr(c, error, "message", message, JS_PROP_C_W_E);
    end_with_failure(c, error, "EXECUTION_ERROR");
    JS_FreeValue(c, error);
}

static void end_without_value(JSContext *c, JSValueConst value)
{
    Text text = {0};
    put_chars(&text, "the script's value can't leave it: ");
    inspect(&text, c, value);
    put_chars(&text, JS_IsFunction(c, value) ? "; call it and return what it gives" : "");
    end_with_message(c, JS_NewStringLen(c, text.at, text.length));
    drop(&text);
}

static void end_with_value(JSContext *c, JSValueConst value)
{
    Text json = {.limit = max_result_bytes};
    Writer writer = {c, &json, "result"};
    Outcome outcome = JS_IsUndefined(value) ? ABSENT : write_value(&writer, value, NULL);
    if (json.over) {
        char message[100];
        if (JS_HasException(c))
            drop_exception(c);
        snprintf(message, sizeof message, "the script's result is larger than %u bytes", max_result_bytes);
        end_with_message(c, JS_NewString(c, message));
    } else if (outcome == FAILED) {
        JSValue error = take_exception(c);
        end_with_failure(c, error, NULL);
        JS_FreeValue(c, error);
    } else if (outcome == ABSENT && (JS_IsFunction(c, value) || JS_IsSymbol(value))) {
        end_without_value(c, value);
    } else {
        open_record(5);
        if (outcome == WRITTEN) {
            put_char(&outbox, ',');
            put(&outbox, json.at, json.length);
        }
        close_record();
        main_state = SETTLED;
    }
    drop(&json);
}

static bool has_then(JSContext *c, JSValueConst value)
{
    for (JSObject *object = JS_VALUE_GET_OBJ(value); object; object = object->shape->proto)
        if (object->class_id == JS_CLASS_PROXY || find_own_property1(object, JS_ATOM_then))
            return true;
    return false;
}

/* A script that ends on a promise ends on what that promise brings. */
static void await_value(JSContext *c, JSValueConst value)
{
    JSValue functions[2], promise = JS_NewPromiseCapability(c, functions);
    JSValue result = JS_Call(c, functions[0], JS_UNDEFINED, 1, &value);
    JS_FreeValue(c, result);
    JS_FreeValue(c, functions[0]);
    JS_FreeValue(c, functions[1]);
    JS_FreeValue(c, main_promise);
    JS_PromiseMarkAsHandled(c, promise);
    main_promise = promise;
    main_state = AWAITING_VALUE;
}

/* Records the script's end if it has come. */
static void look_at_main(JSContext *c)
{
    JSPromiseStateEnum state = JS_PromiseState(c, main_promise);
    if (main_state == SETTLED || state == JS_PROMISE_PENDING)
        return;
    JSValue value = JS_PromiseResult(c, main_promise);
    if (state == JS_PROMISE_REJECTED) {
        end_with_failure(c, value, NULL);
    } else if (main_state == AWAITING_VALUE) {
        end_with_value(c, value);
    } else { /* an async script's promise brings {value} */
        JSValue inner = JS_GetProperty(c, value, JS_ATOM_value);
        if (JS_IsObject(inner) && has_then(c, inner)) {
            await_value(c, inner);
            look_at_main(c); /* what isn't a thenable after all is there at once */
        } else {
            end_with_value(c, inner);
        }
        JS_FreeValue(c, inner);
    }
    JS_FreeValue(c, value);
}

static void forget_thrown(JSContext *c)
{
    JS_FreeValue(c, c->error_back_trace);
    c->error_back_trace = JS_UNDEFINED;
}

/* Runs all jobs. The script's failure is recorded in the job that made it, while its position is known. */
static void drain(JSContext *c)
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
    report_rejections(c);
    if (JS_IsJobPending(runtime)) { /* a getter of what was reported made one */
        drain(c);
        return;
    }
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
    report.committed = 0;
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
    memcpy(&header, input, sizeof header);
    memory_cap = header.max_memory_bytes;
    stdout_left = header.max_stdout_bytes;
    max_args_bytes = header.max_args_bytes;
    max_result_bytes = header.max_result_bytes;
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
        end_with_failure(context, error, chars && !strcmp(chars, "SyntaxError") ? "SYNTAX_ERROR" : NULL);
        JS_FreeCString(context, chars);
        JS_FreeValue(context, name);
        JS_FreeValue(context, error);
        main_promise = JS_UNDEFINED;
    } else {
        JS_PromiseMarkAsHandled(context, main_promise);
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
        } else {
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
    JS_DefinePropertyValueStr(c, on, name,
                              JS_NewCFunctionMagic(c, function, name, length, JS_CFUNC_generic_magic, magic), HIDDEN);
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
    JSValue prelude = JS_Eval(context, input, length, "<prelude>", JS_EVAL_TYPE_GLOBAL);
    JSValue result = JS_Call(context, prelude, JS_UNDEFINED, 1, vc(&host));
    if (JS_IsException(result))
        return 1;
    while (JS_ExecutePendingJob(runtime, &of) > 0)
        ;
    JS_FreeValue(context, result);
    JS_FreeValue(context, prelude);
    JS_FreeValue(context, host);
    JS_FreeValue(context, global);
    forget_thrown(context);
    JS_RunGC(runtime);
    free(input);
    input = small_input;
    open_outbox();
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

/* How a script ends, and the promises that it left rejected. */

enum { MAX_UNHANDLED = 20 /* reported in one step */, MAX_UNHANDLED_TEXT = 2000 /* characters */ };

typedef struct Rejection {
    JSValue promise, reason;
    JSValue thrown_at; /* a stack, for a reason that brings none along */
} Rejection;

static uint32_t max_result_bytes;

static JSValue main_promise;
static enum { PENDING, AWAITING_VALUE, SETTLED } main_state;

/* Promises that were rejected in this step and that nobody has awaited yet; the script's own as well. */
static Rejection *rejections;
static uint32_t rejection_count, rejection_room;

static uint32_t unhandled_reported, unhandled_left_out; /* in this step */

static void free_rejection(JSContext *c, Rejection *rejection)
{
    JS_FreeValue(c, rejection->promise);
    JS_FreeValue(c, rejection->reason);
    JS_FreeValue(c, rejection->thrown_at);
}

/* Takes a promise out of the list; returns where its reason was thrown, if that is known. */
static JSValue forget_rejection(JSContext *c, JSValueConst promise)
{
    for (uint32_t i = 0; i < rejection_count; i++) {
        if (JS_VALUE_GET_OBJ(rejections[i].promise) != JS_VALUE_GET_OBJ(promise))
            continue;
        Rejection found = rejections[i];
        memmove(&rejections[i], &rejections[i + 1], sizeof *rejections * (--rejection_count - i));
        JSValue thrown_at = JS_DupValue(c, found.thrown_at);
        free_rejection(c, &found);
        return thrown_at;
    }
    return JS_UNDEFINED;
}

static void on_rejection(JSContext *c, JSValueConst promise, JSValueConst reason, bool is_handled, void *opaque)
{
    if (is_handled) {
        JS_FreeValue(c, forget_rejection(c, promise));
        return;
    }
    if (rejection_count == rejection_room) {
        rejection_room = rejection_room ? rejection_room * 2 : 4;
        rejections = realloc(rejections, sizeof *rejections * rejection_room);
    }
    rejections[rejection_count++] = (Rejection){JS_DupValue(c, promise), JS_DupValue(c, reason), c->error_back_trace};
    c->error_back_trace = JS_UNDEFINED; /* the next that is thrown has a position of its own */
}

static void record_unhandled(Text *text)
{
    open_record(8);
    put_char(&outbox, ',');
    put_quoted(&outbox, text->at, text->length);
    close_record();
    drop(text);
}

/* No output of the script's: bounded by itself, so that it never ends a run. */
static void report_unhandled(JSContext *c, JSValueConst reason)
{
    if (unhandled_reported == MAX_UNHANDLED) {
        unhandled_left_out++;
        return;
    }
    unhandled_reported++;
    Text text = {0};
    JSValue name = name_of(c, reason), message = message_of(c, reason);
    put_string(&text, c, name, MAX_NAME, 0);
    put_chars(&text, ": ");
    put_string(&text, c, message, MAX_UNHANDLED_TEXT, 0);
    JS_FreeValue(c, name);
    JS_FreeValue(c, message);
    record_unhandled(&text);
}

static void report_left_out(void)
{
    Text text = {0};
    if (unhandled_left_out) {
        put_chars(&text, "and ");
        put_unsigned(&text, unhandled_left_out);
        put_chars(&text, " more");
        record_unhandled(&text);
    }
    unhandled_reported = unhandled_left_out = 0;
}

/* What several promises were rejected with is reported once. */
static void report_rejections(JSContext *c)
{
    Rejection *reported = rejections; /* the list itself may change meanwhile */
    uint32_t count = rejection_count, shown[MAX_UNHANDLED], shown_count = 0;
    rejections = NULL;
    rejection_count = rejection_room = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < shown_count && !seen; k++)
            seen = js_same_value(c, reported[shown[k]].reason, reported[i].reason);
        if (seen)
            continue;
        if (unhandled_reported < MAX_UNHANDLED)
            shown[shown_count++] = i;
        report_unhandled(c, reported[i].reason);
    }
    for (uint32_t i = 0; i < count; i++)
        free_rejection(c, &reported[i]);
    free(reported);
}

static void report_exception(JSContext *c)
{
    JSValue error = take_exception(c);
    report_unhandled(c, error);
    JS_FreeValue(c, error);
}

/* ---- the script's end ---- */

static void end_with_failure(JSContext *c, JSValueConst error, const char *code, JSValueConst thrown_at)
{
    Text json = {0};
    put_failure(&json, c, error, code, thrown_at);
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
    end_with_failure(c, error, "EXECUTION_ERROR", JS_UNDEFINED);
    JS_FreeValue(c, error);
}

static void end_without_value(JSContext *c, JSValueConst value)
{
    Text text = {.limit = MAX_MESSAGE};
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
        end_with_failure(c, error, NULL, JS_UNDEFINED);
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
        JSValue thrown_at = forget_rejection(c, main_promise);
        end_with_failure(c, value, NULL, thrown_at);
        JS_FreeValue(c, thrown_at);
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

/* Errors: where in the script they come from, tool errors for the script, and the record of a failed script.

   A stack, as QuickJS-NG makes it, is lines of "    at NAME (FILE:LINE:COLUMN)"; ours are the same. */

#define SCRIPT_FILE "script.js"
enum { SITE_FRAMES = 8, MAX_NAME = 200, MAX_MESSAGE = 16384 /* characters */, MAX_DETAILS = 65536 /* bytes */ };

typedef struct Frame {
    JSValue function;
    uint32_t pc;
} Frame;

/* Where a tool was called: kept until the call has its outcome, made into text only when that is an error. */
typedef struct Site {
    uint32_t count;
    Frame frames[];
} Site;

static JSAtom prelude_file;

static Site *take_site(JSContext *c)
{
    Frame found[SITE_FRAMES];
    uint32_t count = 0;
    for (JSStackFrame *frame = c->rt->current_stack_frame; frame && count < SITE_FRAMES; frame = frame->prev_frame) {
        if (!JS_IsObject(frame->cur_func) || !frame->cur_pc)
            continue;
        JSObject *function = JS_VALUE_GET_OBJ(frame->cur_func);
        if (!js_class_has_bytecode(function->class_id))
            continue;
        JSFunctionBytecode *code = function->u.func.function_bytecode;
        if (code->filename == prelude_file)
            continue;
        found[count].function = js_dup(frame->cur_func);
        found[count++].pc = frame->cur_pc - code->byte_code_buf - 1;
    }
    Site *site = malloc(sizeof *site + sizeof *found * count);
    site->count = count;
    memcpy(site->frames, found, sizeof *found * count);
    return site;
}

static void free_site(JSContext *c, Site *site)
{
    if (!site)
        return;
    for (uint32_t i = 0; i < site->count; i++)
        JS_FreeValue(c, site->frames[i].function);
    free(site);
}

static JSValue site_stack(JSContext *c, const Site *site)
{
    Text text = {0};
    for (uint32_t i = 0; i < site->count; i++) {
        JSFunctionBytecode *code = JS_VALUE_GET_OBJ(site->frames[i].function)->u.func.function_bytecode;
        const char *name = get_func_name(c, site->frames[i].function);
        const char *file = JS_AtomToCString(c, code->filename);
        int column, line = find_line_num(c, code, site->frames[i].pc, &column);
        put_chars(&text, "    at ");
        put_chars(&text, name && *name ? name : "<anonymous>");
        put_chars(&text, " (");
        put_chars(&text, file ? file : "");
        put_char(&text, ':');
        put_unsigned(&text, line);
        put_char(&text, ':');
        put_unsigned(&text, column);
        put_chars(&text, ")\n");
        JS_FreeCString(c, name);
        JS_FreeCString(c, file);
    }
    JSValue stack = JS_NewStringLen(c, text.at ? text.at : "", text.length);
    drop(&text);
    return stack;
}

/* An Error as a tool call rejects with. Takes over its values; `name` and `details` may be undefined. */
static JSValue new_call_error(JSContext *c, JSValue name, JSValue code, JSValue message, JSValue details,
                              const Site *site)
{
    JSValue error = JS_NewObjectClass(c, JS_CLASS_ERROR);
    JSObject *object = JS_VALUE_GET_OBJ(error);
    JS_DefinePropertyValue(c, error, JS_ATOM_message, message, HIDDEN);
    JS_DefinePropertyValue(c, error, JS_ATOM_name, JS_IsString(name) ? name : JS_NewString(c, "ToolError"), HIDDEN);
    JS_DefinePropertyValueStr(c, error, "code", code, JS_PROP_C_W_E);
    if (!JS_IsUndefined(details))
        JS_DefinePropertyValueStr(c, error, "details", details, JS_PROP_C_W_E);
    if (!JS_IsString(name))
        JS_FreeValue(c, name);
    JS_FreeValue(c, object->u.object_data);
    object->u.object_data = site_stack(c, site);
    return error;
}

static JSValue new_limit_error(JSContext *c, const char *code, const char *format, uint32_t number)
{
    char message[200];
    snprintf(message, sizeof message, format, number);
    Site *site = take_site(c);
    JSValue text = JS_NewString(c, message);
    JSValue error = new_call_error(c, JS_UNDEFINED, JS_NewString(c, code), text, JS_UNDEFINED, site);
    free_site(c, site);
    return error;
}

static JSValue take_exception(JSContext *c) { return JS_GetException(c); }
static void drop_exception(JSContext *c) { JS_FreeValue(c, JS_GetException(c)); }

/* A data property of the object or of its prototypes, without running anything of the script. */
static JSValue data_property(JSContext *c, JSValueConst value, JSAtom atom)
{
    if (!JS_IsObject(value))
        return JS_UNDEFINED;
    for (JSObject *object = JS_VALUE_GET_OBJ(value); object; object = object->shape->proto) {
        JSProperty *property;
        if (object->class_id == JS_CLASS_PROXY)
            break;
        JSShapeProperty *shape = find_own_property(&property, object, atom);
        if (shape)
            return (shape->flags & JS_PROP_TMASK) == JS_PROP_NORMAL ? js_dup(property->u.value) : JS_UNDEFINED;
    }
    return JS_UNDEFINED;
}

/* The stack that an error was made with, or one that the script put in its place; undefined without one. */
static JSValue stack_of(JSContext *c, JSValueConst error)
{
    if (!JS_IsObject(error))
        return JS_UNDEFINED;
    JSObject *object = JS_VALUE_GET_OBJ(error);
    JSValue own = data_property(c, error, JS_ATOM_stack);
    if (JS_IsString(own) || object->class_id != JS_CLASS_ERROR)
        return own;
    JS_FreeValue(c, own);
    return js_dup(object->u.object_data);
}

static const char *find_chars(const char *at, const char *end, const char *wanted)
{
    size_t length = strlen(wanted);
    for (; at + length <= end; at++)
        if (!memcmp(at, wanted, length))
            return at;
    return NULL;
}

static const char *read_number(const char *at, uint32_t *number)
{
    for (*number = 0; *at >= '0' && *at <= '9'; at++)
        *number = *number * 10 + (*at - '0');
    return at;
}

/* The stack's lines that are the script's own (each with a newline before it), and the first one's position. */
static void put_frames(Text *text, const char *stack, size_t length, uint32_t *line, uint32_t *column)
{
    const char *end = stack + length;
    for (const char *at = stack, *next; at < end; at = next) {
        const char *stop_at = memchr(at, '\n', end - at);
        const char *place = find_chars(at, stop_at ? stop_at : end, SCRIPT_FILE ":");
        next = stop_at ? stop_at + 1 : end;
        if (!place)
            continue;
        if (!*line) {
            const char *colon = read_number(place + strlen(SCRIPT_FILE ":"), line);
            if (*colon == ':')
                read_number(colon + 1, column);
        }
        const char *top = find_chars(at, place, "<eval> (");
        put_chars(text, "\n");
        if (top) { /* the script itself is no function */
            const char *last = stop_at ? stop_at : end;
            put_chars(text, "    at ");
            put(text, place, last - place - (last > place && last[-1] == ')'));
        } else {
            put(text, at, (stop_at ? stop_at : end) - at);
        }
    }
}

static void put_stack_frames(Text *text, JSContext *c, JSValueConst stack, uint32_t *line, uint32_t *column)
{
    size_t length;
    const char *chars = JS_IsString(stack) ? JS_ToCStringLen(c, &length, stack) : NULL;
    if (!chars)
        return;
    put_frames(text, chars, length, line, column);
    JS_FreeCString(c, chars);
}

static void inspect(Text *text, JSContext *c, JSValueConst value);

/* A property, undefined when it has none: runs getters, drops what they throw. */
static JSValue quiet_property(JSContext *c, JSValueConst value, const char *name)
{
    JSValue property = JS_IsObject(value) ? JS_GetPropertyStr(c, value, name) : JS_UNDEFINED;
    if (!JS_IsException(property))
        return property;
    drop_exception(c);
    return JS_UNDEFINED;
}

/* A property as a string; undefined when it is nothing that reads as one. */
static JSValue text_property(JSContext *c, JSValueConst value, const char *name)
{
    JSValue property = quiet_property(c, value, name);
    if (JS_IsNumber(property) || JS_IsBool(property))
        property = JS_ToStringFree(c, property);
    if (JS_IsString(property))
        return property;
    JS_FreeValue(c, property);
    return JS_UNDEFINED;
}

static JSValue name_of(JSContext *c, JSValueConst error)
{
    JSValue name = text_property(c, error, "name");
    if (JS_IsString(name) && !JS_IsEmptyString(name))
        return name;
    JS_FreeValue(c, name);
    return JS_NewString(c, "Error");
}

/* A thrown string is the message, a thrown object's own message is, anything else as the console shows it. */
static JSValue message_of(JSContext *c, JSValueConst error)
{
    if (JS_IsString(error))
        return JS_ToString(c, error);
    JSValue message = text_property(c, error, "message");
    if (JS_IsString(message))
        return message;
    Text text = {.limit = MAX_MESSAGE};
    inspect(&text, c, error);
    message = JS_NewStringLen(c, text.at ? text.at : "", text.length);
    drop(&text);
    return message;
}

static void put_text_field(Text *text, JSContext *c, const char *field, JSValueConst value, uint32_t most)
{
    put_chars(text, field);
    put_string(text, c, value, most, '"');
}

static void put_details(Text *text, JSContext *c, JSValueConst error)
{
    JSValue details = JS_IsObject(error) ? JS_GetPropertyStr(c, error, "details") : JS_UNDEFINED;
    Text json = {.limit = MAX_DETAILS};
    Writer writer = {c, &json, "details"};
    Outcome outcome = JS_IsException(details) ? FAILED : write_value(&writer, details, NULL);
    if (outcome == WRITTEN) {
        put_chars(text, ",\"details\":");
        put(text, json.at, json.length);
    } else if (outcome == FAILED && JS_HasException(c)) {
        drop_exception(c);
    }
    drop(&json);
    JS_FreeValue(c, details);
}

/* The record of a failed script. `code` NULL: the error's own. `thrown_at`: a stack for what brings none along. */
static void put_failure(Text *text, JSContext *c, JSValueConst error, const char *code, JSValueConst thrown_at)
{
    JSValue name = name_of(c, error), message = message_of(c, error), stack = stack_of(c, error);
    uint32_t line = 0, column = 0;
    Text frames = {0};
    put_text_field(text, c, "{\"name\":", name, MAX_NAME);
    put_text_field(text, c, ",\"message\":", message, MAX_MESSAGE);
    if (code) {
        put_chars(text, ",\"code\":");
        put_quoted(text, code, strlen(code));
    } else {
        JSValue own = quiet_property(c, error, "code");
        if (JS_IsString(own) && !JS_IsEmptyString(own)) /* a number is no code: not a DOMException's either */
            put_text_field(text, c, ",\"code\":", own, MAX_NAME);
        JS_FreeValue(c, own);
    }
    put_string(&frames, c, name, MAX_NAME, 0);
    put_chars(&frames, ": ");
    put_string(&frames, c, message, MAX_MESSAGE, 0);
    put_stack_frames(&frames, c, JS_IsString(stack) ? stack : thrown_at, &line, &column);
    if (line) {
        put_chars(text, ",\"stack\":");
        put_quoted(text, frames.at, frames.length);
        put_chars(text, ",\"line\":");
        put_unsigned(text, line);
        put_chars(text, ",\"column\":");
        put_unsigned(text, column);
    }
    put_details(text, c, error);
    put_char(text, '}');
    drop(&frames);
    JS_FreeValue(c, name);
    JS_FreeValue(c, message);
    JS_FreeValue(c, stack);
}

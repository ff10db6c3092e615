/* Values that leave the engine, as JSON, bounded while they are made. They are those of JSON.stringify, but

     NaN, Infinity, a Date that is none   null                  BigInt            a string of its digits
     Map                                  an object, if all of its keys are strings; else an array of [key, value]
     Set, typed array                     an array              Error             name, message, own properties
     a lone surrogate                     U+FFFD                a cycle           a TypeError that names its path
     deeper than MAX_DEPTH                a RangeError          `__proto__`       a property like any other
     URLSearchParams                      its text

   No intrinsic of the script's is used except what a value brings along itself: toJSON, getters, proxies. Those run
   script code, which may write records; so values are made in a text of their own and copied. */

typedef enum { FAILED = -1, WRITTEN, ABSENT } Outcome; /* FAILED: an exception is pending, or the text is over */

/* The containers around the value that is being written, innermost first. */
typedef struct Level {
    const struct Level *up;
    JSObject *object;
    JSAtom key;    /* of the member that is being written; JS_ATOM_NULL: `index` */
    int64_t index;
    uint32_t depth;
} Level;

typedef struct Writer {
    JSContext *c;
    Text *text;
    const char *root; /* what paths in messages start with */
} Writer;

enum { MAX_DEPTH = 500 /* levels; what reads the JSON is recursive, too */, MAX_PATH_BYTES = 1000 };

static Outcome write_value(Writer *w, JSValueConst value, const Level *up);

static bool is_identifier(JSString *string)
{
    if (string->is_wide_char || string->len == 0 || !lre_js_is_ident_first(str8(string)[0]))
        return false;
    for (uint32_t i = 1; i < string->len; i++)
        if (!lre_js_is_ident_next(str8(string)[i]))
            return false;
    return true;
}

static void put_member(Text *path, JSContext *c, const Level *level)
{
    if (level->key == JS_ATOM_NULL) {
        put_char(path, '[');
        put_double(path, (double)level->index);
        put_char(path, ']');
        return;
    }
    JSValue key = JS_AtomToString(c, level->key);
    bool plain = is_identifier(JS_VALUE_GET_STRING(key));
    put_chars(path, plain ? "." : "[");
    put_string(path, c, key, ALL, plain ? 0 : '"');
    if (!plain)
        put_char(path, ']');
    JS_FreeValue(c, key);
}

static void put_path(Text *path, JSContext *c, const char *root, const Level *level)
{
    if (!level) {
        put_chars(path, root);
        return;
    }
    put_path(path, c, root, level->up);
    put_member(path, c, level);
}

static Outcome throw_cycle(Writer *w, const Level *up, JSObject *object)
{
    Text path = {.limit = MAX_PATH_BYTES};
    put_path(&path, w->c, w->root, up);
    put_chars(&path, " is circular: it refers back to ");
    while (up->object != object)
        up = up->up;
    put_path(&path, w->c, w->root, up->up);
    JSValue message = JS_NewStringLen(w->c, path.at, path.length);
    drop(&path);
    JSValue error = JS_NewTypeError(w->c, "circular");
    JS_DefinePropertyValue(w->c, error, JS_ATOM_message, message, HIDDEN);
    JS_Throw(w->c, error);
    return FAILED;
}

static void put_date(Text *text, JSContext *c, JSValueConst value)
{
    double time;
    if (JS_ToFloat64(c, &time, JS_VALUE_GET_OBJ(value)->u.object_data) || isnan(time)) {
        put_chars(text, "null");
        return;
    }
    JSValue iso = get_date_string(c, value, 0, NULL, 0x23); /* as toISOString does */
    put_string(text, c, iso, ALL, '"');
    JS_FreeValue(c, iso);
}

static Outcome write_member(Writer *w, Level *here, JSValue value, bool first)
{
    uint32_t mark = w->text->length;
    if (!first)
        put_char(w->text, ',');
    put_atom(w->text, w->c, here->key, '"');
    put_char(w->text, ':');
    Outcome outcome = write_value(w, value, here);
    if (outcome == ABSENT)
        w->text->length = mark;
    JS_FreeValue(w->c, value);
    return outcome;
}

static Outcome write_item(Writer *w, Level *here, JSValue value)
{
    if (here->index > 0)
        put_char(w->text, ',');
    Outcome outcome = write_value(w, value, here);
    if (outcome == ABSENT)
        put_chars(w->text, "null");
    JS_FreeValue(w->c, value);
    return outcome == FAILED || w->text->over ? FAILED : WRITTEN;
}

static bool is_error(const JSObject *object)
{
    return object->class_id == JS_CLASS_ERROR || object->class_id == JS_CLASS_DOM_EXCEPTION;
}

static JSValue text_of; /* the prelude's function */

/* The text of a URL or URLSearchParams, undefined for all else. Nothing of the script runs. */
static JSValue url_text(JSContext *c, JSValueConst value)
{
    JSObject *object = JS_VALUE_GET_OBJ(value), *proto = object->shape->proto;
    if (object->class_id != JS_CLASS_OBJECT || !proto || proto == JS_VALUE_GET_OBJ(c->class_proto[JS_CLASS_OBJECT]))
        return JS_UNDEFINED;
    JSValue text = JS_Call(c, text_of, JS_UNDEFINED, 1, &value);
    if (!JS_IsException(text))
        return text;
    JS_FreeValue(c, JS_GetException(c));
    return JS_UNDEFINED;
}

/* The own enumerable properties; an error's name and message, which aren't, come first. */
static Outcome write_object(Writer *w, JSValueConst value, Level *here)
{
    JSContext *c = w->c;
    JSPropertyEnum *names;
    uint32_t count;
    bool first = true, named = is_error(here->object);
    Outcome outcome = WRITTEN;
    JSValue text = url_text(c, value);
    if (!JS_IsUndefined(text)) {
        put_string(w->text, c, text, ALL, '"');
        JS_FreeValue(c, text);
        return WRITTEN;
    }
    put_char(w->text, '{');
    if (named) {
        static const JSAtom shown[] = {JS_ATOM_name, JS_ATOM_message};
        for (int i = 0; i < 2 && outcome != FAILED; i++) {
            JSValue member = JS_GetProperty(c, value, here->key = shown[i]);
            outcome = JS_IsException(member) ? FAILED : write_member(w, here, member, first);
            first = first && outcome != WRITTEN;
        }
    }
    if (outcome == FAILED || JS_GetOwnPropertyNames(c, &names, &count, value, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return FAILED;
    for (uint32_t i = 0; i < count && outcome != FAILED; i++) {
        if (named && (names[i].atom == JS_ATOM_name || names[i].atom == JS_ATOM_message))
            continue;
        JSValue member = JS_GetProperty(c, value, here->key = names[i].atom);
        if (JS_IsUndefined(member))
            continue;
        outcome = JS_IsException(member) || w->text->over ? FAILED : write_member(w, here, member, first);
        if (outcome == WRITTEN)
            first = false;
    }
    JS_FreePropertyEnum(c, names, count);
    put_char(w->text, '}');
    return outcome == FAILED ? FAILED : WRITTEN;
}

static Outcome write_array(Writer *w, JSValueConst value, Level *here)
{
    int64_t length;
    if (js_get_length64(w->c, &length, value))
        return FAILED;
    put_char(w->text, '[');
    for (here->index = 0; here->index < length; here->index++) {
        JSValue item = JS_GetPropertyInt64(w->c, value, here->index);
        if (JS_IsException(item) || write_item(w, here, item) == FAILED)
            return FAILED;
    }
    put_char(w->text, ']');
    return WRITTEN;
}

/* Keys and values of a Map or Set, taken before any of them can change it; to be freed with `free_entries`. */
static JSValue *take_entries(JSContext *c, JSObject *object, uint32_t *count)
{
    JSMapState *map = object->u.map_state;
    JSValue *entries = malloc(sizeof *entries * 2 * map->record_count);
    struct list_head *link;
    *count = 0;
    list_for_each(link, &map->records) {
        JSMapRecord *record = list_entry(link, JSMapRecord, link);
        if (record->empty)
            continue;
        entries[*count * 2] = js_dup(record->key);
        entries[*count * 2 + 1] = object->class_id == JS_CLASS_MAP ? js_dup(record->value) : JS_UNDEFINED;
        ++*count;
    }
    return entries;
}

static void free_entries(JSContext *c, JSValue *entries, uint32_t count)
{
    for (uint32_t i = 0; i < count * 2; i++)
        JS_FreeValue(c, entries[i]);
    free(entries);
}

static Outcome write_set(Writer *w, Level *here)
{
    uint32_t count;
    Outcome outcome = WRITTEN;
    JSValue *entries = take_entries(w->c, here->object, &count);
    put_char(w->text, '[');
    for (here->index = 0; here->index < count && outcome != FAILED; here->index++)
        outcome = write_item(w, here, js_dup(entries[here->index * 2]));
    put_char(w->text, ']');
    free_entries(w->c, entries, count);
    return outcome;
}

static Outcome write_entry(Writer *w, Level *here, JSValue *entry)
{
    Level pair = {.up = here, .object = NULL, .depth = here->depth + 1};
    if (here->index > 0)
        put_char(w->text, ',');
    put_char(w->text, '[');
    if (write_item(w, &pair, js_dup(entry[0])) == FAILED)
        return FAILED;
    pair.index = 1;
    Outcome outcome = write_item(w, &pair, js_dup(entry[1]));
    put_char(w->text, ']');
    return outcome;
}

static Outcome write_map(Writer *w, Level *here)
{
    uint32_t count;
    bool all_strings = true, first = true;
    Outcome outcome = WRITTEN;
    JSValue *entries = take_entries(w->c, here->object, &count);
    for (uint32_t i = 0; i < count; i++)
        all_strings = all_strings && JS_IsString(entries[i * 2]);
    put_char(w->text, all_strings ? '{' : '[');
    for (here->index = 0; here->index < count && outcome != FAILED; here->index++) {
        JSValue *entry = entries + here->index * 2;
        if (!all_strings) {
            outcome = write_entry(w, here, entry);
            continue;
        }
        here->key = JS_ValueToAtom(w->c, entry[0]);
        outcome = w->text->over ? FAILED : write_member(w, here, js_dup(entry[1]), first);
        first = first && outcome != WRITTEN;
        JS_FreeAtom(w->c, here->key);
    }
    put_char(w->text, all_strings ? '}' : ']');
    free_entries(w->c, entries, count);
    return outcome == FAILED ? FAILED : WRITTEN;
}

static Outcome write_container(Writer *w, JSValueConst value, const Level *up)
{
    JSObject *object = JS_VALUE_GET_OBJ(value);
    Level here = {.up = up, .object = object, .depth = up ? up->depth + 1 : 1};
    int class_id = object->class_id;
    for (const Level *level = up; level; level = level->up)
        if (level->object == object)
            return throw_cycle(w, up, object);
    if (here.depth > MAX_DEPTH || js_check_stack_overflow(w->c->rt, 0)) {
        JS_ThrowRangeError(w->c, "%s is nested more than %d levels deep", w->root, MAX_DEPTH);
        return FAILED;
    }
    if (class_id == JS_CLASS_MAP)
        return write_map(w, &here);
    if (class_id == JS_CLASS_SET)
        return write_set(w, &here);
    bool is_typed = class_id >= JS_CLASS_UINT8C_ARRAY && class_id <= JS_CLASS_FLOAT64_ARRAY;
    int is_array = is_typed ? 1 : js_is_array(w->c, value);
    return is_array < 0 ? FAILED : is_array ? write_array(w, value, &here) : write_object(w, value, &here);
}

/* The value's toJSON(key), if it has one; else the value. */
static JSValue convert(Writer *w, JSValueConst value, const Level *up)
{
    JSContext *c = w->c;
    JSValue method = JS_GetProperty(c, value, JS_ATOM_toJSON), result;
    if (JS_IsException(method))
        return method;
    if (!JS_IsFunction(c, method)) {
        result = js_dup(value);
    } else {
        JSValue key = !up                          ? JS_NewString(c, "")
                      : up->key != JS_ATOM_NULL    ? JS_AtomToString(c, up->key)
                                                   : JS_ToStringFree(c, js_int64(up->index));
        result = JS_Call(c, method, value, 1, vc(&key));
        JS_FreeValue(c, key);
    }
    JS_FreeValue(c, method);
    return result;
}

static Outcome write_converted(Writer *w, JSValueConst value, const Level *up)
{
    Outcome outcome = WRITTEN;
    switch (JS_VALUE_GET_NORM_TAG(value)) {
    case JS_TAG_INT:
        put_signed(w->text, JS_VALUE_GET_INT(value));
        break;
    case JS_TAG_FLOAT64:
        if (isfinite(JS_VALUE_GET_FLOAT64(value)))
            put_double(w->text, JS_VALUE_GET_FLOAT64(value));
        else
            put_chars(w->text, "null");
        break;
    case JS_TAG_BOOL:
        put_chars(w->text, JS_VALUE_GET_BOOL(value) ? "true" : "false");
        break;
    case JS_TAG_NULL:
        put_chars(w->text, "null");
        break;
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE:
        put_string(w->text, w->c, value, ALL, '"');
        break;
    case JS_TAG_SHORT_BIG_INT:
    case JS_TAG_BIG_INT: {
        JSValue digits = JS_ToString(w->c, value);
        if (JS_IsException(digits))
            return FAILED;
        put_string(w->text, w->c, digits, ALL, '"');
        JS_FreeValue(w->c, digits);
        break;
    }
    case JS_TAG_OBJECT:
        switch (JS_VALUE_GET_OBJ(value)->class_id) {
        case JS_CLASS_NUMBER:
        case JS_CLASS_STRING:
        case JS_CLASS_BOOLEAN:
        case JS_CLASS_BIG_INT:
            return write_converted(w, JS_VALUE_GET_OBJ(value)->u.object_data, up);
        case JS_CLASS_DATE:
            put_date(w->text, w->c, value);
            break;
        default:
            outcome = JS_IsFunction(w->c, value) ? ABSENT : write_container(w, value, up);
        }
        break;
    default: /* undefined, symbol */
        outcome = ABSENT;
    }
    return w->text->over ? FAILED : outcome;
}

static Outcome write_value(Writer *w, JSValueConst value, const Level *up)
{
    if (!JS_IsObject(value) || JS_VALUE_GET_OBJ(value)->class_id == JS_CLASS_DATE)
        return write_converted(w, value, up);
    JSValue converted = convert(w, value, up);
    if (JS_IsException(converted))
        return FAILED;
    Outcome outcome = write_converted(w, converted, up);
    JS_FreeValue(w->c, converted);
    return outcome;
}

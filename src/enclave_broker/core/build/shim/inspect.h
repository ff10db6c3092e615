/* What console.log shows of a value: like Node's inspect, on one line. Nothing of the script runs meanwhile. */

enum { SHOWN_DEPTH = 4, SHOWN_ITEMS = 100, SHOWN_CHARACTERS = 10000 };

typedef struct Shown {
    const struct Shown *up;
    JSObject *object;
    uint32_t depth;
} Shown;

typedef struct Viewer {
    JSContext *c;
    Text *text;
} Viewer;

static void show(Viewer *v, JSValueConst value, const Shown *up);

static void show_string(Viewer *v, JSValueConst value)
{
    put_string(v->text, v->c, value, SHOWN_CHARACTERS, '\'');
}

static void show_plain(Viewer *v, JSValueConst value)
{
    JSValue string = JS_ToString(v->c, value);
    if (JS_IsException(string))
        drop_exception(v->c);
    else
        put_string(v->text, v->c, string, ALL, 0);
    JS_FreeValue(v->c, string);
}

static void show_symbol(Viewer *v, JSAtom atom)
{
    put_chars(v->text, "Symbol(");
    put_atom(v->text, v->c, atom, 0);
    put_char(v->text, ')');
}

/* The name of the class that the object is an instance of, by its prototype's constructor; false without one. */
static bool put_class_name(Text *text, JSContext *c, JSObject *object)
{
    JSObject *proto = object->shape->proto;
    JSValue constructor = proto ? data_property(c, JS_MKPTR(JS_TAG_OBJECT, proto), JS_ATOM_constructor) : JS_UNDEFINED;
    JSValue name = data_property(c, constructor, JS_ATOM_name);
    bool found = JS_IsString(name) && !JS_IsEmptyString(name);
    if (found)
        put_string(text, c, name, SHOWN_CHARACTERS, 0);
    JS_FreeValue(c, constructor);
    JS_FreeValue(c, name);
    return found;
}

/* "Foo " before an instance of Foo; nothing before what is plainly an object or array. */
static void show_prefix(Viewer *v, JSObject *object, const char *usual)
{
    Text name = {0};
    if (!put_class_name(&name, v->c, object))
        put_chars(&name, object->shape->proto ? usual : "[Object: null prototype]");
    if (name.length != strlen(usual) || memcmp(name.at, usual, name.length)) {
        put(v->text, name.at, name.length);
        put_char(v->text, ' ');
    }
    drop(&name);
}

static void show_count(Viewer *v, JSObject *object, const char *name, uint32_t count)
{
    if (!put_class_name(v->text, v->c, object))
        put_chars(v->text, name);
    put_char(v->text, '(');
    put_unsigned(v->text, count);
    put_chars(v->text, ") ");
}

static void show_more(Viewer *v, double more, const char *what)
{
    put_chars(v->text, ", ... ");
    put_double(v->text, more);
    put_chars(v->text, what);
}

static void show_key(Viewer *v, JSAtom atom)
{
    JSValue key = JS_AtomToValue(v->c, atom);
    if (JS_IsSymbol(key)) {
        put_char(v->text, '[');
        show_symbol(v, atom);
        put_char(v->text, ']');
    } else {
        JSString *string = JS_VALUE_GET_STRING(key);
        bool plain = is_identifier(string) || __JS_AtomIsTaggedInt(atom);
        put_string(v->text, v->c, key, SHOWN_CHARACTERS, plain ? 0 : '\'');
    }
    JS_FreeValue(v->c, key);
}

static void show_member(Viewer *v, JSObject *object, JSAtom atom, const Shown *here)
{
    JSPropertyDescriptor member;
    int found = JS_GetOwnPropertyInternal(v->c, &member, object, atom);
    if (found < 0)
        drop_exception(v->c);
    if (found <= 0)
        return;
    if (member.flags & JS_PROP_GETSET) {
        bool gets = !JS_IsUndefined(member.getter), sets = !JS_IsUndefined(member.setter);
        put_chars(v->text, gets && sets ? "[Getter/Setter]" : gets ? "[Getter]" : "[Setter]");
    } else {
        show(v, member.value, here);
    }
    js_free_desc(v->c, &member);
}

/* The own enumerable properties, each after `opening` or ", "; returns whether there were any. */
static bool show_members(Viewer *v, JSObject *object, const Shown *here, const char *opening)
{
    JSPropertyEnum *names;
    uint32_t count;
    bool any = false;
    int flags = JS_GPN_STRING_MASK | JS_GPN_SYMBOL_MASK | JS_GPN_ENUM_ONLY;
    if (JS_GetOwnPropertyNamesInternal(v->c, &names, &count, object, flags)) {
        drop_exception(v->c);
        return false;
    }
    for (uint32_t i = 0; i < count && !v->text->over; i++) {
        if (is_error(object) && (names[i].atom == JS_ATOM_name || names[i].atom == JS_ATOM_message))
            continue; /* shown already */
        put_chars(v->text, any ? ", " : opening);
        any = true;
        show_key(v, names[i].atom);
        put_chars(v->text, ": ");
        show_member(v, object, names[i].atom, here);
    }
    JS_FreePropertyEnum(v->c, names, count);
    return any;
}

static void show_object(Viewer *v, JSObject *object, const Shown *here, const char *usual)
{
    JSValue text = url_text(v->c, JS_MKPTR(JS_TAG_OBJECT, object));
    show_prefix(v, object, usual);
    if (JS_IsUndefined(text)) {
        put_chars(v->text, show_members(v, object, here, "{ ") ? " }" : "{}");
        return;
    }
    put_chars(v->text, "{ ");
    show_string(v, text);
    JS_FreeValue(v->c, text);
    show_members(v, object, here, ", ");
    put_chars(v->text, " }");
}

/* Of an array or typed array; no getter of the script runs, as `length` of an array is its own and plain. */
static int64_t item_count(Viewer *v, JSObject *object)
{
    int64_t length = 0;
    if (object->class_id != JS_CLASS_ARRAY)
        return object->u.array.count;
    if (js_get_length64(v->c, &length, JS_MKPTR(JS_TAG_OBJECT, object)))
        drop_exception(v->c);
    return length;
}

static void show_items(Viewer *v, JSObject *object, const Shown *here)
{
    int64_t length, shown = 0, holes = 0, i;
    length = item_count(v, object);
    for (i = 0; i < length && shown < SHOWN_ITEMS && !v->text->over; i++, shown++) {
        JSAtom atom = JS_NewAtomInt64(v->c, i);
        JSPropertyDescriptor item;
        int found = JS_GetOwnPropertyInternal(v->c, &item, object, atom);
        put_chars(v->text, shown ? ", " : " ");
        if (found > 0) {
            js_free_desc(v->c, &item);
            show_member(v, object, atom, here);
        } else {
            for (holes = 1; i + holes < length && holes < SHOWN_ITEMS; holes++) {
                JSAtom next = JS_NewAtomInt64(v->c, i + holes);
                int there = JS_GetOwnPropertyInternal(v->c, NULL, object, next);
                JS_FreeAtom(v->c, next);
                if (there)
                    break;
            }
            put_char(v->text, '<');
            put_double(v->text, (double)holes);
            put_chars(v->text, holes > 1 ? " empty items>" : " empty item>");
            i += holes - 1;
        }
        JS_FreeAtom(v->c, atom);
    }
    if (i < length)
        show_more(v, (double)(length - i), length - i > 1 ? " more items" : " more item");
    put_chars(v->text, shown ? " ]" : "]");
}

static void show_array(Viewer *v, JSObject *object, const Shown *here)
{
    if (object->class_id == JS_CLASS_ARRAY)
        show_prefix(v, object, "Array");
    else
        show_count(v, object, "TypedArray", (uint32_t)item_count(v, object));
    put_char(v->text, '[');
    show_items(v, object, here);
}

static void show_collection(Viewer *v, JSObject *object, const Shown *here)
{
    bool is_map = object->class_id == JS_CLASS_MAP;
    uint32_t count;
    JSValue *entries = take_entries(v->c, object, &count);
    show_count(v, object, is_map ? "Map" : "Set", count);
    put_char(v->text, '{');
    for (uint32_t i = 0; i < count && i < SHOWN_ITEMS && !v->text->over; i++) {
        put_chars(v->text, i ? ", " : " ");
        show(v, entries[i * 2], here);
        if (is_map) {
            put_chars(v->text, " => ");
            show(v, entries[i * 2 + 1], here);
        }
    }
    if (count > SHOWN_ITEMS)
        show_more(v, count - SHOWN_ITEMS, " more items");
    put_chars(v->text, count ? " }" : "}");
    free_entries(v->c, entries, count);
}

static void show_function(Viewer *v, JSValueConst value)
{
    JSObject *object = JS_VALUE_GET_OBJ(value);
    JSValue name = data_property(v->c, value, JS_ATOM_name);
    const char *source = js_class_has_bytecode(object->class_id) ? object->u.func.function_bytecode->source : NULL;
    bool is_class = source && !strncmp(source, "class", 5);
    put_chars(v->text, is_class ? "[class " : "[Function");
    if (JS_IsString(name) && !JS_IsEmptyString(name)) {
        put_chars(v->text, is_class ? "" : ": ");
        put_string(v->text, v->c, name, SHOWN_CHARACTERS, 0);
    } else {
        put_chars(v->text, is_class ? "(anonymous)" : " (anonymous)");
    }
    put_char(v->text, ']');
    JS_FreeValue(v->c, name);
}

static void show_error(Viewer *v, JSValueConst value, const Shown *here)
{
    JSContext *c = v->c;
    JSObject *object = JS_VALUE_GET_OBJ(value);
    JSValue name = data_property(c, value, JS_ATOM_name), message = data_property(c, value, JS_ATOM_message);
    JSValue stack = stack_of(c, value), cause = data_property(c, value, JS_ATOM_cause);
    uint32_t line = 0, column = 0;
    if (JS_IsString(name))
        put_string(v->text, c, name, MAX_NAME, 0);
    else
        put_chars(v->text, "Error");
    if (JS_IsString(message) && !JS_IsEmptyString(message)) {
        put_chars(v->text, ": ");
        put_string(v->text, c, message, SHOWN_CHARACTERS, 0);
    }
    put_stack_frames(v->text, c, stack, &line, &column);
    bool any = show_members(v, object, here, " { ");
    if (!JS_IsUndefined(cause)) {
        put_chars(v->text, any ? ", [cause]: " : " { [cause]: ");
        show(v, cause, here);
    }
    put_chars(v->text, any || !JS_IsUndefined(cause) ? " }" : "");
    JS_FreeValue(c, name);
    JS_FreeValue(c, message);
    JS_FreeValue(c, stack);
    JS_FreeValue(c, cause);
}

static void show_promise(Viewer *v, JSObject *object, const Shown *here)
{
    JSPromiseData *promise = object->u.promise_data;
    put_chars(v->text, "Promise { ");
    if (promise->promise_state == JS_PROMISE_PENDING)
        put_chars(v->text, "<pending>");
    if (promise->promise_state == JS_PROMISE_REJECTED)
        put_chars(v->text, "<rejected> ");
    if (promise->promise_state != JS_PROMISE_PENDING)
        show(v, promise->promise_result, here);
    put_chars(v->text, " }");
}

static void show_regexp(Viewer *v, JSObject *object)
{
    static const struct { int flag; char letter; } letters[] = {
        {LRE_FLAG_INDICES, 'd'}, {LRE_FLAG_GLOBAL, 'g'}, {LRE_FLAG_IGNORECASE, 'i'}, {LRE_FLAG_MULTILINE, 'm'},
        {LRE_FLAG_DOTALL, 's'}, {LRE_FLAG_UNICODE, 'u'}, {LRE_FLAG_UNICODE_SETS, 'v'}, {LRE_FLAG_STICKY, 'y'},
    };
    JSRegExp *regexp = &object->u.regexp;
    int flags = lre_get_flags(str8(regexp->bytecode));
    put_char(v->text, '/');
    put_string(v->text, v->c, JS_MKPTR(JS_TAG_STRING, regexp->pattern), SHOWN_CHARACTERS, 0);
    put_char(v->text, '/');
    for (uint32_t i = 0; i < countof(letters); i++)
        if (flags & letters[i].flag)
            put_char(v->text, letters[i].letter);
}

static void show_by_class(Viewer *v, JSValueConst value, const Shown *here)
{
    JSObject *object = here->object;
    int class_id = object->class_id;
    if (is_error(object)) {
        show_error(v, value, here);
    } else if (class_id == JS_CLASS_DATE) {
        double time;
        bool valid = !JS_ToFloat64(v->c, &time, object->u.object_data) && !isnan(time);
        JSValue iso = valid ? get_date_string(v->c, value, 0, NULL, 0x23) : JS_NewString(v->c, "Invalid Date");
        show_plain(v, iso);
        JS_FreeValue(v->c, iso);
    } else if (class_id == JS_CLASS_REGEXP) {
        show_regexp(v, object);
    } else if (class_id == JS_CLASS_NUMBER || class_id == JS_CLASS_STRING || class_id == JS_CLASS_BOOLEAN
               || class_id == JS_CLASS_BIG_INT || class_id == JS_CLASS_SYMBOL) {
        put_char(v->text, '[');
        if (!put_class_name(v->text, v->c, object))
            put_chars(v->text, "Object");
        put_chars(v->text, ": ");
        show(v, object->u.object_data, here);
        put_char(v->text, ']');
    } else if (class_id == JS_CLASS_MAP || class_id == JS_CLASS_SET) {
        show_collection(v, object, here);
    } else if (class_id == JS_CLASS_PROMISE) {
        show_promise(v, object, here);
    } else if (class_id == JS_CLASS_ARRAY
               || (class_id >= JS_CLASS_UINT8C_ARRAY && class_id <= JS_CLASS_FLOAT64_ARRAY)) {
        show_array(v, object, here);
    } else {
        show_object(v, object, here, "Object");
    }
}

static void show(Viewer *v, JSValueConst value, const Shown *up)
{
    if (v->text->over)
        return;
    while (JS_IsProxy(value)) /* the target, as nothing of the handler may run */
        value = JS_VALUE_GET_OBJ(value)->u.proxy_data->target;
    if (JS_IsString(value)) {
        show_string(v, value);
    } else if (JS_IsSymbol(value)) {
        JSAtom atom = JS_ValueToAtom(v->c, value);
        show_symbol(v, atom);
        JS_FreeAtom(v->c, atom);
    } else if (!JS_IsObject(value)) {
        if (JS_VALUE_IS_NAN(value) || !JS_TAG_IS_FLOAT64(JS_VALUE_GET_TAG(value)) || JS_VALUE_GET_FLOAT64(value) != 0
            || !signbit(JS_VALUE_GET_FLOAT64(value)))
            show_plain(v, value);
        else
            put_chars(v->text, "-0");
        if (JS_IsBigInt(value))
            put_char(v->text, 'n');
    } else if (JS_IsFunction(v->c, value)) {
        show_function(v, value);
    } else {
        Shown here = {up, JS_VALUE_GET_OBJ(value), up ? up->depth + 1 : 0};
        for (const Shown *around = up; around; around = around->up)
            if (around->object == here.object) {
                put_chars(v->text, "[Circular]");
                return;
            }
        if (here.depth <= SHOWN_DEPTH) {
            show_by_class(v, value, &here);
        } else {
            put_char(v->text, '[');
            if (!put_class_name(v->text, v->c, here.object))
                put_chars(v->text, "Object");
            put_char(v->text, ']');
        }
    }
}

static void inspect(Text *text, JSContext *c, JSValueConst value)
{
    Viewer viewer = {c, text};
    show(&viewer, value, NULL);
}

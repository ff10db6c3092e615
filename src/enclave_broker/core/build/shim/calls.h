/* What the script does to the world: tool calls, timers, console. Each is a record in the outbox. */

typedef struct Call {
    uint32_t id; /* 0: free */
    JSValue promise;
    Site *site;
} Call;

typedef struct Timer {
    uint32_t handle; /* what clearTimeout takes */
    uint32_t id;     /* on the wire; an interval has a new one each time */
    double every;    /* milliseconds of an interval; 0: fires once */
    JSValue action;  /* a function, or the promise of a sleep */
    int count;
    JSValue *arguments;
} Timer;

enum {
    LONGEST_MS = 2147483647, /* as in browsers */
    TIMERS_A_STEP = 16,      /* times max_timers: cleared ones make records too */
    LEAST_LINE_BYTES = 16,   /* of the output, for an empty line as well: a record costs the host more than its text */
};

static uint32_t max_args_bytes, max_calls, max_timers, stdout_left;

/* Calls without outcome, in a table of a power of two, at their id modulo its size. */
static Call *calls;
static uint32_t call_room, calls_made, calls_open;

static Timer *timers;
static uint32_t timer_room, timer_count, timers_made, timers_set /* in this step */;

static JSValue new_promise(JSContext *c)
{
    JSValue promise = JS_NewObjectClass(c, JS_CLASS_PROMISE);
    JSPromiseData *data = js_mallocz(c, sizeof *data);
    init_list_head(&data->promise_reactions[0]);
    init_list_head(&data->promise_reactions[1]);
    data->promise_result = JS_UNDEFINED;
    JS_SetOpaqueInternal(promise, data);
    return promise;
}

/* Takes over the value, which is never a thenable: no `then` of the script's is asked for. */
static void settle(JSContext *c, JSValueConst promise, JSValue value, bool is_reject)
{
    fulfill_or_reject_promise(c, promise, value, is_reject);
    JS_FreeValue(c, value);
}

static JSValue rejected(JSContext *c, JSValue error)
{
    JSValue promise = new_promise(c);
    settle(c, promise, error, true);
    return promise;
}

/* ---- tool calls ---- */

static Call *call_slot(uint32_t id)
{
    while (!call_room || calls[id & (call_room - 1)].id) {
        uint32_t room = call_room ? call_room * 2 : 8;
        Call *table = calloc(room, sizeof *table);
        for (uint32_t i = 0; i < call_room; i++)
            if (calls[i].id)
                table[calls[i].id & (room - 1)] = calls[i];
        free(calls);
        calls = table;
        call_room = room;
    }
    return &calls[id & (call_room - 1)];
}

static JSValue invalid_arguments(JSContext *c, JSValueConst arguments)
{
    Text message = {.limit = 300};
    put_chars(&message, "invalid arguments: an object is wanted, not ");
    inspect(&message, c, arguments);
    JSValue text = JS_NewStringLen(c, message.at, message.length);
    drop(&message);
    Site *site = take_site(c);
    JSValue code = JS_NewString(c, "VALIDATION_ERROR");
    JSValue error = new_call_error(c, JS_UNDEFINED, code, text, JS_UNDEFINED, site);
    free_site(c, site);
    return rejected(c, error);
}

static JSValue unfit_arguments(JSContext *c, Text *json, JSValueConst arguments)
{
    JSValue error;
    if (json->over)
        error = new_limit_error(c, "ARGUMENTS_TOO_LARGE", "the call's arguments are larger than %u bytes",
                                max_args_bytes);
    else if (JS_HasException(c))
        error = take_exception(c);
    else
        return invalid_arguments(c, arguments);
    if (json->over && JS_HasException(c))
        drop_exception(c);
    return rejected(c, error);
}

static JSValue call_tool(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    if (!JS_IsString(given[0])) {
        JS_ThrowTypeError(c, "callTool(name, args): the name must be a string");
        return rejected(c, take_exception(c));
    }
    Text json = {.limit = max_args_bytes};
    put_string(&json, c, given[0], ALL, '"');
    put_char(&json, ',');
    uint32_t start = json.length;
    Writer writer = {c, &json, "args"};
    Outcome outcome = WRITTEN;
    if (JS_IsUndefined(given[1]))
        put_chars(&json, "{}");
    else
        outcome = write_value(&writer, given[1], NULL);
    JSValue promise;
    if (outcome != WRITTEN || json.over || json.at[start] != '{') {
        promise = unfit_arguments(c, &json, given[1]);
    } else if (calls_made >= max_calls) {
        JSValue error = new_limit_error(c, "MAX_TOOL_CALLS", "a script may make %u tool calls, no more", max_calls);
        promise = rejected(c, error);
    } else {
        Call *call = call_slot(++calls_made);
        call->id = calls_made;
        call->promise = promise = new_promise(c);
        JS_DupValue(c, promise);
        call->site = take_site(c);
        calls_open++;
        open_record(1);
        put_char(&outbox, ',');
        put_unsigned(&outbox, call->id);
        put_char(&outbox, ',');
        put(&outbox, json.at, json.length);
        close_record();
    }
    drop(&json);
    return promise;
}

/* Takes over the value. An id that isn't open is ignored. */
static void finish_call(JSContext *c, uint32_t id, JSValue value, bool is_error)
{
    Call *found = call_room ? &calls[id & (call_room - 1)] : NULL;
    if (!found || !id || found->id != id) {
        JS_FreeValue(c, value);
        return;
    }
    Call call = *found;
    found->id = 0;
    calls_open--;
    if (is_error && JS_IsObject(value) && JS_VALUE_GET_OBJ(value)->class_id == JS_CLASS_OBJECT) {
        JSValue fields = value;
        JSValue name = JS_GetPropertyStr(c, fields, "name"), code = JS_GetPropertyStr(c, fields, "code");
        JSValue message = JS_GetPropertyStr(c, fields, "message"), details = JS_GetPropertyStr(c, fields, "details");
        value = new_call_error(c, name, code, message, details, call.site);
        JS_FreeValue(c, fields);
    }
    settle(c, call.promise, value, is_error);
    JS_FreeValue(c, call.promise);
    free_site(c, call.site);
}

/* ---- timers ---- */

static void record_timer(uint32_t id, double ms)
{
    open_record(3);
    put_char(&outbox, ',');
    put_unsigned(&outbox, id);
    put_char(&outbox, ',');
    put_double(&outbox, ms);
    close_record();
}

/* NULL, with an exception pending, when there are too many or the delay is no number. */
static Timer *add_timer(JSContext *c, JSValueConst delay, double least)
{
    double ms;
    if (JS_ToFloat64(c, &ms, delay))
        return NULL;
    if (timer_count >= max_timers) {
        JS_Throw(c, new_limit_error(c, "TIMER_LIMIT", "more than max_timers (%u) pending timers", max_timers));
        return NULL;
    }
    if (timers_set >= (uint64_t)max_timers * TIMERS_A_STEP) {
        JS_Throw(c, new_limit_error(c, "TIMER_LIMIT", "more than 16 x max_timers (%u) timers set in one step",
                                    max_timers));
        return NULL;
    }
    if (timer_count == timer_room) {
        timer_room = timer_room ? timer_room * 2 : 4;
        timers = realloc(timers, sizeof *timers * timer_room);
    }
    Timer *timer = &timers[timer_count++];
    timers_made++;
    timers_set++;
    *timer = (Timer){.handle = timers_made, .id = timers_made, .action = JS_UNDEFINED};
    ms = ms >= least ? ms : least; /* NaN, too */
    ms = ms <= LONGEST_MS ? ms : LONGEST_MS;
    timer->every = least > 0 ? ms : 0;
    record_timer(timer->id, ms);
    return timer;
}

static Timer remove_timer(uint32_t at)
{
    Timer timer = timers[at];
    memmove(&timers[at], &timers[at + 1], sizeof *timers * (--timer_count - at));
    return timer;
}

static void free_timer(JSContext *c, Timer *timer)
{
    JS_FreeValue(c, timer->action);
    for (int i = 0; i < timer->count; i++)
        JS_FreeValue(c, timer->arguments[i]);
    free(timer->arguments);
}

static JSValue set_timer(JSContext *c, JSValueConst this_value, int count, JSValueConst *given, int is_interval)
{
    if (!JS_IsFunction(c, given[0]))
        return JS_ThrowTypeError(c, "the first argument of a timer must be a function");
    Timer *timer = add_timer(c, given[1], is_interval);
    if (!timer)
        return JS_EXCEPTION;
    timer->action = JS_DupValue(c, given[0]);
    timer->count = count > 2 ? count - 2 : 0;
    timer->arguments = timer->count ? malloc(sizeof(JSValue) * timer->count) : NULL;
    for (int i = 0; i < timer->count; i++)
        timer->arguments[i] = JS_DupValue(c, given[i + 2]);
    return JS_NewUint32(c, timer->handle);
}

static JSValue clear_timer(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    for (uint32_t i = 0; JS_IsNumber(given[0]) && i < timer_count; i++) {
        uint32_t handle;
        JS_ToUint32(c, &handle, given[0]);
        if (timers[i].handle != handle || JS_IsPromise(timers[i].action))
            continue;
        Timer timer = remove_timer(i);
        open_record(4);
        put_char(&outbox, ',');
        put_unsigned(&outbox, timer.id);
        close_record();
        free_timer(c, &timer);
        break;
    }
    return JS_UNDEFINED;
}

static JSValue sleep_ms(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    Timer *timer = add_timer(c, given[0], 0);
    if (!timer)
        return rejected(c, take_exception(c));
    timer->action = new_promise(c);
    return JS_DupValue(c, timer->action);
}

/* Runs what the timer is for; an exception of its stays pending: false. */
static bool fire_timer(JSContext *c, uint32_t id)
{
    uint32_t at = 0;
    while (at < timer_count && timers[at].id != id)
        at++;
    if (at == timer_count)
        return true;
    Timer timer = remove_timer(at);
    if (JS_IsPromise(timer.action)) {
        settle(c, timer.action, JS_UNDEFINED, false);
        free_timer(c, &timer);
        return true;
    }
    JSValue action = JS_DupValue(c, timer.action), *arguments = NULL;
    if (timer.count)
        memcpy(arguments = malloc(sizeof *arguments * timer.count), timer.arguments, sizeof *arguments * timer.count);
    for (int i = 0; i < timer.count; i++)
        JS_DupValue(c, arguments[i]);
    if (timer.every > 0) { /* before the action, which may clear it; its place is free */
        timer.id = ++timers_made;
        timers[timer_count++] = timer;
        record_timer(timer.id, timer.every);
    } else {
        free_timer(c, &timer);
    }
    JSValue result = JS_Call(c, action, JS_UNDEFINED, timer.count, vc(arguments));
    bool done = !JS_IsException(result);
    JS_FreeValue(c, result);
    JS_FreeValue(c, action);
    for (int i = 0; i < timer.count; i++)
        JS_FreeValue(c, arguments[i]);
    free(arguments);
    return done;
}

/* ---- console ---- */

/* Takes the text over. What is beyond the limit is cut off, and the script with it. */
static void record_output(uint32_t level, Text *text)
{
    uint32_t fits = text->length, cost = fits + 1 /* its newline */;
    if (cost < LEAST_LINE_BYTES)
        cost = LEAST_LINE_BYTES;
    bool over = text->over || cost > stdout_left;
    if (over) {
        fits = fits < stdout_left ? fits : stdout_left;
        while (fits && fits < text->length && ((uint8_t)text->at[fits] & 0xc0) == 0x80)
            fits--;
    }
    open_record(2);
    put_char(&outbox, ',');
    put_unsigned(&outbox, level);
    put_char(&outbox, ',');
    put_quoted(&outbox, text->at ? text->at : "", fits);
    close_record();
    drop(text);
    if (over)
        stop(STDOUT_LIMIT);
    stdout_left -= cost;
}

static JSValue print(JSContext *c, JSValueConst this_value, int count, JSValueConst *given, int level)
{
    Text text = {.limit = stdout_left + 4}; /* whole characters up to the limit, whatever their length */
    for (int i = 0; i < count; i++) {
        if (i)
            put_char(&text, ' ');
        if (JS_IsString(given[i]))
            put_string(&text, c, given[i], ALL, 0);
        else
            inspect(&text, c, given[i]);
    }
    record_output(level, &text);
    return JS_UNDEFINED;
}

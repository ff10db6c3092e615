/* Functions that the prelude makes the rest of the globals from: randomness from the seed, the clock, UTF-8. */

static double started_ms;

static uint64_t random_bits(JSContext *c) { return xorshift64star(&c->random_state); }

static JSValue fill_random(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    size_t size;
    int type = JS_GetTypedArrayType(given[0]);
    if (type < 0 || type == JS_TYPED_ARRAY_FLOAT16 || type == JS_TYPED_ARRAY_FLOAT32 || type == JS_TYPED_ARRAY_FLOAT64)
        return JS_ThrowTypeError(c, "getRandomValues: a typed array of integers is wanted");
    JSObject *object = JS_VALUE_GET_OBJ(given[0]);
    size = (size_t)object->u.array.count << typed_array_size_log2(object->class_id);
    if (size > 65536)
        return JS_ThrowDOMException(c, "QuotaExceededError", "getRandomValues: more than 65536 bytes");
    for (size_t i = 0; i < size; i += 8) {
        uint64_t bits = random_bits(c);
        memcpy(object->u.array.u.uint8_ptr + i, &bits, size - i < 8 ? size - i : 8);
    }
    return JS_DupValue(c, given[0]);
}

static JSValue random_uuid(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    uint64_t high = (random_bits(c) & ~0xf000ull) | 0x4000, low = (random_bits(c) & ~(3ull << 62)) | 1ull << 63;
    char text[40];
    int length = snprintf(text, sizeof text, "%08x-%04x-%04x-%04x-%012llx", (uint32_t)(high >> 32),
                          (uint32_t)(high >> 16 & 0xffff), (uint32_t)(high & 0xffff), (uint32_t)(low >> 48),
                          low & 0xffffffffffffull);
    return JS_NewStringLen(c, text, length);
}

static JSValue elapsed(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    return JS_NewFloat64(c, now_ms - started_ms);
}

static JSValue time_origin(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    return JS_NewFloat64(c, started_ms);
}

static JSValue encode(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    Text text = {0};
    JSValue string = JS_ToString(c, given[0]);
    if (JS_IsException(string))
        return string;
    put_string(&text, c, string, ALL, 0);
    JS_FreeValue(c, string);
    JSValue bytes = JS_NewUint8ArrayCopy(c, (const uint8_t *)(text.at ? text.at : ""), text.length);
    drop(&text);
    return bytes;
}

/* The length of the character at the start: 0 for a wrong one, -1 for one that lacks its end; `bad` bytes of which are
   to be replaced by one U+FFFD. */
static int utf8_length(const uint8_t *at, size_t left, size_t *bad)
{
    uint8_t first = at[0], low = 0x80, high = 0xbf;
    int length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (first == 0xe0)
        low = 0xa0;
    if (first == 0xed)
        high = 0x9f;
    if (first == 0xf0)
        low = 0x90;
    if (first == 0xf4)
        high = 0x8f;
    *bad = 1;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if ((size_t)i >= left) {
            *bad = left;
            return -1;
        }
        if (at[i] < low || at[i] > high)
            return 0;
        *bad = i + 1;
    }
    return length;
}

/* Puts UTF-8, with U+FFFD for what isn't; false for what isn't if that is `fatal`. With `stream`, `waiting` is how many
   bytes at the end wait for more. */
static bool put_decoded(Text *text, const uint8_t *bytes, size_t size, bool fatal, bool stream, uint32_t *waiting)
{
    size_t bad = 0;
    for (size_t at = 0; at < size;) {
        int length = utf8_length(bytes + at, size - at, &bad);
        if (length < 0 && stream) {
            *waiting = size - at;
            break;
        }
        if (length > 0) {
            put(text, bytes + at, length);
            at += length;
            continue;
        }
        if (fatal)
            return false;
        put_chars(text, "\xef\xbf\xbd");
        at += bad;
    }
    return true;
}

/* decode(bytes, fatal, stream): the text and the number of bytes at the end that wait for more. */
static JSValue decode(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    size_t size;
    uint8_t *bytes = JS_GetUint8Array(c, &size, given[0]);
    bool fatal = JS_ToBool(c, given[1]), stream = JS_ToBool(c, given[2]);
    uint32_t waiting = 0;
    Text text = {0};
    if (!bytes && JS_HasException(c))
        return JS_EXCEPTION;
    if (!put_decoded(&text, bytes, size, fatal, stream, &waiting)) {
        drop(&text);
        return JS_ThrowTypeError(c, "the bytes are not valid UTF-8");
    }
    JSValue result = JS_NewArray(c);
    JS_DefinePropertyValueUint32(c, result, 0, JS_NewStringLen(c, text.at ? text.at : "", text.length), JS_PROP_C_W_E);
    JS_DefinePropertyValueUint32(c, result, 1, JS_NewUint32(c, waiting), JS_PROP_C_W_E);
    drop(&text);
    return result;
}

/* percentEncode(text, set): controls, what isn't ASCII, and the characters of `set` as %XX of their UTF-8. */
static JSValue percent_encode(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    static const char hex[] = "0123456789ABCDEF";
    const char *set = JS_ToCString(c, given[1]);
    Text text = {0}, out = {0};
    uint32_t from = 0;
    put_string(&text, c, given[0], ALL, 0);
    for (uint32_t i = 0; i < text.length; i++) {
        uint8_t byte = text.at[i];
        if (byte >= 32 && byte < 127 && !strchr(set, byte))
            continue;
        put(&out, text.at + from, i - from);
        put(&out, (char[]){'%', hex[byte >> 4], hex[byte & 15]}, 3);
        from = i + 1;
    }
    put(&out, text.at + from, text.length - from);
    JSValue result = out.length == text.length ? js_dup(given[0]) : JS_NewStringLen(c, out.at, out.length);
    JS_FreeCString(c, set);
    drop(&text);
    drop(&out);
    return result;
}

/* percentDecode(text): each %XX a byte of UTF-8, with U+FFFD for what isn't. */
static JSValue percent_decode(JSContext *c, JSValueConst this_value, int count, JSValueConst *given)
{
    Text bytes = {0}, text = {0};
    uint32_t kept = 0;
    put_string(&bytes, c, given[0], ALL, 0);
    for (uint32_t i = 0; i < bytes.length; i++) {
        bool whole = bytes.at[i] == '%' && i + 2 < bytes.length;
        int high = whole ? from_hex(bytes.at[i + 1]) : -1, low = whole ? from_hex(bytes.at[i + 2]) : -1;
        bool encoded = high >= 0 && low >= 0;
        bytes.at[kept++] = encoded ? high << 4 | low : bytes.at[i];
        i += encoded ? 2 : 0;
    }
    put_decoded(&text, (uint8_t *)bytes.at, kept, false, false, NULL);
    JSValue result = kept == bytes.length ? js_dup(given[0]) : JS_NewStringLen(c, text.at, text.length);
    drop(&bytes);
    drop(&text);
    return result;
}

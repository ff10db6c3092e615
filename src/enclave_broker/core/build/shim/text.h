/* Text that is made piece by piece: UTF-8, bounded while it is made. The outbox is one of them. */

typedef struct Text {
    char *at;
    uint32_t length, room;
    uint32_t limit; /* bytes; 0: none */
    bool over;      /* more than `limit` was put; the rest wasn't */
} Text;

static Text outbox;

enum { HIDDEN = JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE /* of a property: not enumerable */ };

static void grow(Text *text, uint32_t more)
{
    uint32_t room = text->room * 2;
    if (room < text->length + more)
        room = text->length + more;
    if (room < 256)
        room = 256;
    /* Not realloc: a step that is killed meanwhile leaves a report that points at whole records. */
    char *old = text->at, *at = malloc(room);
    if (text->length)
        memcpy(at, old, text->length);
    text->at = at;
    text->room = room;
    if (text == &outbox)
        report.text = (uint32_t)(uintptr_t)at;
    free(old);
}

static void put(Text *text, const void *bytes, uint32_t count)
{
    if (text->over)
        return;
    if (text->limit && count > text->limit - text->length) {
        text->over = true;
        count = text->limit - text->length;
    }
    if (count > text->room - text->length)
        grow(text, count);
    memcpy(text->at + text->length, bytes, count);
    text->length += count;
}

static void put_char(Text *text, char byte) { put(text, &byte, 1); }
static void put_chars(Text *text, const char *chars) { put(text, chars, strlen(chars)); }

static void put_unsigned(Text *text, uint32_t number)
{
    char digits[10];
    int at = sizeof digits;
    do
        digits[--at] = '0' + number % 10;
    while (number /= 10);
    put(text, digits + at, sizeof digits - at);
}

static void put_signed(Text *text, int32_t number)
{
    if (number < 0)
        put_char(text, '-');
    put_unsigned(text, number < 0 ? -(uint32_t)number : (uint32_t)number);
}

static void put_double(Text *text, double number)
{
    char digits[400];
    JSDTOATempMem scratch;
    put(text, digits, js_dtoa(digits, number, 10, 0, JS_DTOA_FORMAT_FREE, &scratch));
}

static int encode_utf8(char *at, uint32_t code)
{
    if (code < 0x80) {
        at[0] = code;
        return 1;
    }
    if (code < 0x800) {
        at[0] = 0xc0 | code >> 6;
        at[1] = 0x80 | (code & 63);
        return 2;
    }
    if (code < 0x10000) {
        at[0] = 0xe0 | code >> 12;
        at[1] = 0x80 | (code >> 6 & 63);
        at[2] = 0x80 | (code & 63);
        return 3;
    }
    at[0] = 0xf0 | code >> 18;
    at[1] = 0x80 | (code >> 12 & 63);
    at[2] = 0x80 | (code >> 6 & 63);
    at[3] = 0x80 | (code & 63);
    return 4;
}

static int escape(char *at, uint32_t code)
{
    static const char hex[] = "0123456789abcdef";
    char letter = code == '\n' ? 'n' : code == '\t' ? 't' : code == '\r' ? 'r' : code < 32 ? 0 : code;
    at[0] = '\\';
    at[1] = letter ? letter : 'u';
    if (letter)
        return 2;
    at[2] = at[3] = '0';
    at[4] = hex[code >> 4];
    at[5] = hex[code & 15];
    return 6;
}

static inline bool is_plain(uint32_t code, char quote)
{
    return code < 0x80 && (!quote || (code >= 32 && code != (uint32_t)quote && code != '\\'));
}

#define BYTES(value) (0x0101010101010101ull * (value))

static uint64_t zero_bytes(uint64_t word) { return (word - BYTES(1)) & ~word & BYTES(0x80); }

/* How many of the characters from `at` on need neither escape nor more than one byte: eight at a time. */
static uint32_t plain_run(const uint8_t *at, uint32_t left, char quote)
{
    uint32_t count = 0;
    for (; left - count >= 8; count += 8) {
        uint64_t word, special;
        memcpy(&word, at + count, 8);
        special = word & BYTES(0x80);
        if (quote)
            special |= ((word - BYTES(0x20)) & ~word & BYTES(0x80)) | zero_bytes(word ^ BYTES((uint8_t)quote))
                       | zero_bytes(word ^ BYTES('\\'));
        if (special)
            break;
    }
    while (count < left && is_plain(at[count], quote))
        count++;
    return count;
}

/* The characters before `end`; with a quote character they are escaped as in JSON. Lone surrogates become U+FFFD. */
static void put_units(Text *text, JSString *string, uint32_t end, char quote)
{
    char chunk[256];
    uint32_t used = 0, i = 0;
    const uint8_t *narrow = string->is_wide_char ? NULL : str8(string);
    const uint16_t *wide = string->is_wide_char ? str16(string) : NULL;
    while (i < end && !text->over) {
        uint32_t code, run = narrow ? plain_run(narrow + i, end - i, quote) : 0;
        if (run) {
            put(text, chunk, used);
            put(text, narrow + i, run);
            used = 0;
            i += run;
            continue;
        }
        code = narrow ? narrow[i++] : wide[i++];
        if (is_hi_surrogate(code) && i < end && is_lo_surrogate(wide[i]))
            code = from_surrogate(code, wide[i++]);
        else if (is_surrogate(code))
            code = 0xfffd;
        used += code < 0x80 && !is_plain(code, quote) ? escape(chunk + used, code) : encode_utf8(chunk + used, code);
        if (used > sizeof chunk - 8) {
            put(text, chunk, used);
            used = 0;
        }
    }
    put(text, chunk, used);
}

/* At most `most` characters of a string value, between quotes if there is a quote character. */
static void put_string(Text *text, JSContext *c, JSValueConst value, uint32_t most, char quote)
{
    JSValue flat = JS_VALUE_GET_TAG(value) == JS_TAG_STRING_ROPE ? js_linearize_string_rope(c, value) : js_dup(value);
    JSString *string = JS_VALUE_GET_STRING(flat);
    if (quote)
        put_char(text, quote);
    put_units(text, string, string->len < most ? string->len : most, quote);
    if (string->len > most)
        put_chars(text, "\xe2\x80\xa6");
    if (quote)
        put_char(text, quote);
    JS_FreeValue(c, flat);
}

enum { ALL = 0xffffffff };

static void put_atom(Text *text, JSContext *c, JSAtom atom, char quote)
{
    JSValue value = JS_AtomToString(c, atom);
    put_string(text, c, value, ALL, quote);
    JS_FreeValue(c, value);
}

/* JSON of text that is UTF-8 already. */
static void put_quoted(Text *text, const char *bytes, uint32_t count)
{
    put_char(text, '"');
    for (uint32_t i = 0, start = 0; i <= count; i++) {
        bool special = i < count && !((uint8_t)bytes[i] >= 0x80 || is_plain(bytes[i], '"'));
        if (special || i == count)
            put(text, bytes + start, i - start);
        if (special) {
            char escaped[6];
            put(text, escaped, escape(escaped, bytes[i]));
            start = i + 1;
        }
    }
    put_char(text, '"');
}

static void drop(Text *text)
{
    free(text->at);
    *text = (Text){0};
}

/* ---- the outbox: records [kind,...] between brackets ---- */

enum { KEPT_OUTBOX_BYTES = 65536 };

static void open_outbox(void)
{
    if (outbox.room > KEPT_OUTBOX_BYTES)
        drop(&outbox);
    outbox.length = 0;
    put_char(&outbox, '[');
    report.text = (uint32_t)(uintptr_t)outbox.at;
    report.committed = outbox.length;
}

static void open_record(uint32_t kind)
{
    put_chars(&outbox, outbox.length > 1 ? ",[" : "[");
    put_unsigned(&outbox, kind);
}

static void close_record(void)
{
    put_char(&outbox, ']');
    report.committed = outbox.length;
}

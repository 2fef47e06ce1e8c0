/* Makes texts fit for people. */
#include "evapictl/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "evapictl/evapictl.h"

void out_of_memory(void)
{
    fputs("evapictl: no memory\n", stderr);
    exit(EXIT_ANSWERED_ERROR);
}

/* ---- characters ------------------------------------------------------------------------------------------------- */

size_t control_character(const char *text, size_t length)
{
    const unsigned char c = (unsigned char)text[0];
    const unsigned char next = length > 1 ? (unsigned char)text[1] : 0;
    if (c == 0xc2 && next >= 0x80 && next < 0xa0)
        return 2;
    return c < 0x20 || c == 0x7f;
}

/* Bytes of the UTF-8 character at the text's start; 0: none (RFC 3629: not longer than needed, no surrogate, nothing
 * beyond U+10FFFF). */
static size_t utf8_character(const unsigned char *text, size_t length)
{
    const unsigned char c = text[0];
    const size_t size = c < 0x80                ? 1
                        : c >= 0xc2 && c < 0xe0 ? 2
                        : c >= 0xe0 && c < 0xf0 ? 3
                        : c >= 0xf0 && c < 0xf5 ? 4
                                                : 0;
    if (size == 0 || size > length)
        return 0;
    for (size_t i = 1; i < size; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && text[1] < 0xa0) || (c == 0xed && text[1] >= 0xa0) || (c == 0xf0 && text[1] < 0x90) ||
        (c == 0xf4 && text[1] >= 0x90))
        return 0;
    return size;
}

void print_plain(FILE *out, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length;) {
        const size_t size = utf8_character((const unsigned char *)bytes + i, length - i);
        const size_t control = size > 0 ? control_character(bytes + i, length - i) : 1;
        for (size_t k = 0; k < control; k++)
            fprintf(out, "\\x%02x", (unsigned char)bytes[i + k]);
        if (control == 0)
            fwrite(bytes + i, 1, size, out);
        i += control > 0 ? control : size;
    }
}

static bool has_control_character(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (control_character(text + i, length - i) > 0)
            return true;
    return false;
}

/* The text with control characters as \xNN; NULL if it has none. A tag can be any bytes that the script takes from a
 * client: it must not forge lines or control a terminal. */
static json_t *printable(const json_t *text)
{
    char *shown = NULL;
    size_t length = 0;
    if (!has_control_character(json_string_value(text), json_string_length(text)))
        return NULL;
    FILE *out = open_memstream(&shown, &length);
    if (out == NULL)
        out_of_memory();
    print_plain(out, json_string_value(text), json_string_length(text));
    fclose(out);
    json_t *made = json_stringn(shown, length);
    free(shown);
    if (made == NULL)
        out_of_memory();
    return made;
}

void make_printable(json_t *value)
{
    const char *key = NULL;
    void *next = NULL;
    json_t *inner = NULL;
    json_t *shown = NULL;
    size_t i = 0;
    json_object_foreach_safe(value, next, key, inner)
    {
        make_printable(inner);
        if (has_control_character(key, strlen(key)))
            json_object_del(value, key);
        else if (json_is_string(inner) && (shown = printable(inner)) != NULL)
            json_object_set_new(value, key, shown);
    }
    json_array_foreach(value, i, inner)
    {
        make_printable(inner);
        if (json_is_string(inner) && (shown = printable(inner)) != NULL)
            json_array_set_new(value, i, shown);
    }
}

/* ---- members ---------------------------------------------------------------------------------------------------- */

json_int_t number_at(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "-";
}

bool is_true_at(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* ---- figures ---------------------------------------------------------------------------------------------------- */

const char *show_size(json_int_t bytes, char out[SHORT_TEXT])
{
    static const char units[] = " KMGTPE";
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && units[unit + 1] != '\0'; unit++)
        value /= 1024;
    if (unit == 0)
        snprintf(out, SHORT_TEXT, "%lld", (long long)bytes);
    else
        snprintf(out, SHORT_TEXT, value < 10 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return out;
}

const char *show_span(json_int_t seconds, char out[SHORT_TEXT])
{
    if (seconds < 60)
        snprintf(out, SHORT_TEXT, "%lld s", (long long)seconds);
    else if (seconds < 3600)
        snprintf(out, SHORT_TEXT, "%lld min", (long long)seconds / 60);
    else if (seconds < 86400)
        snprintf(out, SHORT_TEXT, "%lld h %lld min", (long long)seconds / 3600, (long long)seconds / 60 % 60);
    else
        snprintf(out, SHORT_TEXT, "%lld d %lld h", (long long)seconds / 86400, (long long)seconds / 3600 % 24);
    return out;
}

const char *show_since(const char *since, char out[SHORT_TEXT])
{
    struct tm utc = { 0 };
    if (strptime(since, "%Y-%m-%dT%H:%M:%S", &utc) == NULL)
        return "-";
    const time_t ago = time(NULL) - timegm(&utc);
    return show_span(ago > 0 ? ago : 0, out);
}

char *show_dropped(const json_t *dropped)
{
    char *text = NULL;
    size_t length = 0;
    const char *reason = NULL;
    json_t *count = NULL;
    bool some = false;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        out_of_memory();
    json_object_foreach((json_t *)(uintptr_t)dropped, reason, count)
    {
        if (json_integer_value(count) <= 0)
            continue;
        fprintf(out, "%s%s %lld", some ? ", " : "", reason, (long long)json_integer_value(count));
        some = true;
    }
    if (!some)
        fputc('-', out);
    fclose(out);
    return text;
}
